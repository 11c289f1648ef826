"""More passages into an artifact that is there: recorded, merged with what is stored, and how far they drift from it.

``merging`` and ``drift`` are arithmetic, ``run`` calls the stages.
"""
