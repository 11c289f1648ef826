"""Core-mask-aware training: a language model learns to lose little on a fixed neuron set.

In reading order: ``settings``; ``corpus`` (texts, held-out texts) and ``packing`` (one row of tokens, windows of it);
``topics`` (which clusters a text's beginning is near) and ``priors`` (what those clusters' neurons are, learned while
training); ``draws`` (what each step trains on) and ``masks`` (the formula, before every down projection);
``objective``, ``optimizer``, ``lora`` and ``trainer`` (one step); ``checkpoints``, ``report`` and ``steps`` (all of
them); ``card``; ``run`` calls them in order.

Dimension letters: B sequences of a batch, T tokens of a window, S segments (parts of texts) of a window, L layers, F
neurons of a layer, K clusters, m of a mixture, V vocabulary.
"""
