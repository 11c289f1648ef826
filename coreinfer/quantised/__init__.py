"""Weights of 8 or 4 bits, quantised once when a model is loaded: prefill, statistics and decoding read the same.

``packed`` quantises tensors, row by row; ``linear`` is the module that computes with them in a Hugging Face model;
``conversion`` puts it in place of a model's linear modules, one after another. A neuron's scales are its own, so that
slicing a quantised MLP to some of its neurons changes none of their values.
"""
