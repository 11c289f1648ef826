"""What a run leaves in its folder: rows, texts, settings, ladder.md, ladder.svg and report.html; each in one go.

Every file is written beside its place and then moved, so that a reader never sees half of one.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from coreinfer.evaluate import markdown
from coreinfer.evaluate.figures import standalone
from coreinfer.evaluate.rows import Row, as_rows, text_rows
from coreinfer.evaluate.scoring import Results
from coreinfer.places import moved_in, used_folder, writing

REMEDY = "choose another --output"


@contextmanager
def folder_for(folder: Path | None) -> Iterator[None]:
    """Make the folder of the results, or refuse it before any work is done; without one, nothing. If it is still empty
    at the end, it goes again, and so do those above it that were made for it.

    Raises:
        CoreInferError: a file on the way to it, or no right to write there.
    """
    if folder is None:
        yield
        return
    with ExitStack() as stack:
        with writing(folder, REMEDY):
            stack.enter_context(used_folder(folder))
            (probe := folder / ".partial").mkdir(exist_ok=True)
            with suppress(OSError):
                probe.rmdir()
        yield


def save(folder: Path, rows: list[Row], results: Results, facts: dict[str, Any], report: str, chart: str) -> None:
    """Write all of it; ``chart`` is the ladder's, the report is last.

    Raises:
        CoreInferError: the disk refuses.
    """
    with writing(folder, REMEDY):
        for name, value in (("settings.json", facts), ("rows.json", as_rows(rows))):
            _put(folder / name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
        with moved_in(folder / "rows.parquet") as part:
            _write_rows(part, as_rows(rows))
        with moved_in(folder / "texts.parquet") as part:
            _write_texts(part, results)
        _put(folder / "ladder.md", markdown.ladder(rows, results.plan.refresh))
        _put(folder / "ladder.svg", standalone(chart))
        _put(folder / "report.html", report)


def _put(path: Path, text: str) -> None:
    with moved_in(path) as part:
        part.write_text(text, "utf-8")


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), int: pa.int32(), float: pa.float64()}
    annotated: dict[str, Any] = {name: hint for name, hint in Row.__annotations__.items()}
    schema = pa.schema([(name, kinds[_plain(hint)]) for name, hint in annotated.items()])
    pq.write_table(pa.Table.from_pylist(rows, schema), path, compression="zstd")


def _plain(hint: Any) -> type:
    """``float`` of ``float | None``."""
    made: type = next((part for part in getattr(hint, "__args__", ()) if part is not type(None)), hint)
    return made


def _write_texts(path: Path, results: Results) -> None:
    """A row group for each rung."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    double = pa.float64()
    schema = pa.schema(
        [("text", pa.string()), ("domain", pa.string()), ("prompt_tokens", pa.int32()), ("keep", double),
         ("policy", pa.string()), ("dense_nll", double), ("nll_rise", double), ("kl", double), ("agreement", double),
         ("recall", double), ("similarity", double), ("auto_source", pa.string()),
         ("rise_by_position", pa.list_(pa.float32()))]
    )  # fmt: skip
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for columns in text_rows(results):
            writer.write_table(pa.table(columns, schema))
