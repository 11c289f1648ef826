"""The one exception that users see: what was wrong, with the values, and what to do next."""


class CoreInferError(Exception):
    """Bad input or an unusable file. The message is one line, ends with the remedy, and is all the CLI prints."""


def in_words(error: BaseException) -> str:
    """The first line of another library's error, for use inside one of ours."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".: ")[:300]
