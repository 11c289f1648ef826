"""The offline half: a dataset becomes an artifact. Read ``build.py`` first; it calls the stages in order."""
