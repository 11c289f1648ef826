"""Held-out texts -> layer budgets, the policies' numbers and the curve keep -> expected loss: all by measured loss."""
