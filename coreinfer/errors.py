"""The one exception that users see: what was wrong, with the values, and what to do next."""


class CoreInferError(Exception):
    """Bad input or an unusable file. The message is one line, ends with the remedy, and is all the CLI prints."""
