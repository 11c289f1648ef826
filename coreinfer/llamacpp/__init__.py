"""llama.cpp as a runtime: the prompt runs dense in Transformers, what follows in llama.cpp on a sliced GGUF file.

In reading order: ``handover`` (a prefill's cache as llama.cpp keeps its own), ``files`` (the written files, a bounded
folder of them), ``session`` (llama.cpp itself: a loaded file, one token a call) and ``decoder`` (all of it behind the
methods of ``decode.decoder.Decoder``). Needs the extra ``coreinfer[llama]``.
"""
