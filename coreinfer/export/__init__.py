"""Neuron sets and sliced models for other runtimes, which load them with no code of ours.

Sets, for engines that slice by themselves: ``bits`` (the binary file that 30 lines of NumPy read), ``views`` (the same
as Arrow or JSON, and back), ``origin`` (whose neurons they are).

Models, in reading order: ``choosing`` (which neurons), ``targets`` (what a runtime cannot hold), ``sliced`` and
``checkpoint`` (Transformers and plain safetensors), ``onnx_network`` and ``onnx_graph``, ``writing`` (a folder of any
target; GGUF is written by ``coreinfer.gguf``), ``card``, ``run`` (all of it, or nothing), ``verb``.
"""
