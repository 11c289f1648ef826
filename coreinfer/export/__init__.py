"""Neuron sets and sliced models for other runtimes, which load them with no code of ours.

Sets, for engines that slice by themselves: ``bits`` (the binary file that 30 lines of NumPy read), ``views`` (the same as
Arrow or JSON, and back).
"""
