"""What decoding costs and could cost: ``coreinfer bench``.

In reading order: ``shapes`` (random models of well-known sizes), ``limits`` (what the memory gives, measured),
``subjects`` (the ways to decode: ours, and each peer that is installed), ``timing`` (one subject, several times),
``run`` (all of them side by side, in one run) and ``report`` (a table, a picture, a row of JSON).
"""
