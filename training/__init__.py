"""How the demo language model was trained; rerunnable on any corpus. Read ``train_lm.py`` first."""
