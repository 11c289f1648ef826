"""Decoding at the memory limit: one token reads every kept weight once, and little else takes time.

In reading order: ``network`` (a model's weights as decoding reads them: each neuron's rows and column side by side) and
and `families` (where a Hugging Face model keeps them; it goes on working, on views of the same memory); `reference` (a
step in plain torch: the slow truth, and the path of a CPU); ``state`` (what a step reads and writes, at fixed
addresses); ``steps`` (the same step in Triton kernels, captured once); ``decoder`` (prefill, sets, tokens).

Dimension letters: V vocabulary, H hidden, A = heads * head_dim, G = kv_heads * head_dim, F neurons of a layer, k kept,
P rows of a neuron (gate, up and down column, or two where there is no gate), C positions of the context.
"""
