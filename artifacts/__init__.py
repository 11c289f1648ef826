"""Data that ships with the project: the format's specification and the embedded default (``demo/``)."""
