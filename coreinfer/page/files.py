"""The page's files, as a server hands them out and as a report holds them within itself."""

from functools import cache
from pathlib import Path

STATIC = Path(__file__).resolve().parent / "static"
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}  # fmt: skip
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)


@cache
def files() -> dict[str, tuple[bytes, str]]:
    """Path below ``/`` -> (its bytes, its content type); ``index.html`` is what ``/`` shows."""
    return {
        path.name if path.suffix == ".html" else f"page/{path.name}": (path.read_bytes(), KINDS[path.suffix])
        for path in sorted(STATIC.iterdir())
        if path.suffix in KINDS
    }


def text_of(name: str) -> str:
    """One of them as text, by its name in the folder."""
    return (STATIC / name).read_text("utf-8")
