"""A model in less memory than its weights take: ``coreinfer generate --memory 12GiB``.

What is always resident: embeddings, attention, caches, and the neurons of the current set. All neurons lie in a bundle
on disk, each one's rows and column side by side, so that it is one contiguous read (row-column bundling, "LLM in a
flash", Alizadeh et al. 2023, arXiv 2312.11514, section 3.2). A prefill streams them, layer by layer.

In reading order: ``sizes`` (12GiB in words), ``facts`` (what a model takes, from its configuration alone) and ``plan``
(what fits into a budget); ``checkpoint`` (a model's safetensors files, read in pieces), ``bundle`` (the folder of
neurons: written once, checked) and ``mapped`` (its layers in memory, one at a time); ``buffers`` (the same for a GPU:
two layers, one being filled while the other computes); ``linear`` (the modules that compute on them); ``held`` (the
current set's neurons, resident). ``budget`` puts them together; ``peak`` measures.
"""
