"""What decoding costs and could cost: ``coreinfer bench``.

In reading order: ``shapes`` (random models of well-known sizes), ``limits`` (what the memory gives, measured),
``plan`` (what is measured), ``subjects`` (the ways to decode: ours, and peers),
``run`` (all of them side by side, in one run), ``report`` (a table, a picture, a row of JSON), ``under`` (a model
under a memory budget) and ``verb``.
"""
