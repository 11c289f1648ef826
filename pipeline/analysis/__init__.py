"""The observations behind core neurons, measured on any model and texts: what the paper plots, and whether it holds.

Read in this order: ``plan`` (what is measured), ``texts``, ``observe`` (one dense pass), ``quality`` (what sets cost),
``findings`` (means and intervals), ``paper`` (its values beside ours); ``table``, ``charts`` and ``page`` show it all.
"""
