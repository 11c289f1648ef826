"""The offline verbs of the command line, one a file: parse, call, print. Heavy packages load inside the functions.

A new verb is a function in a file of its own here, and its name in the list in ``cli.py``.
"""
