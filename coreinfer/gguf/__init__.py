"""A model with fewer neurons as a GGUF file, which llama.cpp and what is built on it read.

In reading order: ``kinds`` (of weights, and their bytes), ``layouts`` (what llama.cpp calls a family, and what keeps a
model from being written), ``tensors`` (the weights by llama.cpp's names, in its order of rows), ``metadata`` (a model's
numbers and its tokenizer), ``writer`` (the file, one tensor at a time). All but the first two start from a
``decode.network.Network``: where a Hugging Face model keeps its weights is known there already. Needs the package
``gguf``.

llama.cpp's architectures have one MLP width for all layers; ``deci`` alone, which is Llama otherwise, has one a layer.
So Llama, Mistral, Qwen2 and Phi-3 are written as ``deci``, each layer with the neurons that it keeps. Qwen3 and
Gemma 2 and 3 normalise what ``deci`` does not: they keep their own architecture, and each layer is filled up with zero
neurons to the widest one, which costs reading them.
"""
