"""How bad input is refused: exit code 2, and one line with the value and the remedy."""

from conftest import Result

REMEDIES = (
    "add give choose check pass lower shorten rebuild make mend see end free name copy leave write replace".split()  # noqa: SIM905
)
READING = ("load models", "read passages", "hold out")


def refused(result: Result, *words: str) -> None:
    """Exit code 2 and one line, which names the fault and, after it, a remedy."""
    assert "Traceback" not in result.err
    assert result.code == 2, result
    *talk, error = result.err.splitlines()
    assert talk == list(READING[: len(talk)]), result.err  # what is found to be wrong while it is read
    assert error.startswith("error: ")
    assert result.err.endswith("\n")
    assert len(error) < 700
    for word in words:
        assert word in error
    assert any(remedy in error for remedy in REMEDIES), error
