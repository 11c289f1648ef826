"""``python -m coreinfer.lm_eval run --model coreinfer …``: the harness's command line, which knows ``coreinfer`` so."""

import sys

from coreinfer.errors import CoreInferError


def main() -> None:
    """Bad input is one line and exit code 2, as for every verb."""
    try:
        from lm_eval.__main__ import cli_evaluate
    except ImportError:
        print("error: the harness is not installed: pip install 'coreinfer[lm-eval]'", file=sys.stderr)
        raise SystemExit(2) from None
    import coreinfer.lm_eval.model  # noqa: F401

    try:
        cli_evaluate()
    except CoreInferError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
