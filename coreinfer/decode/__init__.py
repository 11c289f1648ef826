"""Decoding at the memory limit: one token reads every kept weight once, and little else takes time.

In reading order: ``network`` (a model's weights as decoding reads them: each neuron's rows and column side by side) and
``families`` (where a Hugging Face model keeps them; it goes on working, on views of the same memory); ``reference``
(one step in plain torch, the slow truth); ``state`` (what a step reads and writes, at fixed addresses). Then the same
step three times: ``steps`` in Triton kernels, captured once, ``rows`` for several rows, and ``whole``, one kernel where
that is faster; ``swift`` in loops for a CPU that ``compiled``, ``compiled_heads`` and ``tiles`` hold, for quantised
weights ``compiled_int``, and whose parts the threads of a ``team`` share (``compiled_shared``,
``compiled_int_shared``); ``lean`` in few torch calls, where Numba is missing. ``picking`` draws a CPU's tokens.
``decoder`` puts them together: prefill, sets, tokens; ``continuing`` makes a continuation of that, ``together`` several
at a time. ``lossless`` lets the kept neurons draft for the dense model, as many tokens as ``drafting`` finds to pay.
``weights`` and ``views`` are how a model lives on memory laid out anew, ``compiling`` what a first step may come to.

Dimension letters: V vocabulary, H hidden, A = heads * head_dim, G = kv_heads * head_dim, F neurons of a layer, k kept,
P rows of a neuron (gate, up and down column, or two where there is no gate), C positions of the context.
"""
