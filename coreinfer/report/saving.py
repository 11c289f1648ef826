"""A report's files: the page, and the figures if they are wanted; each is whole or not there."""

from collections.abc import Iterator
from pathlib import Path

from coreinfer.artifact import Artifact
from coreinfer.places import moved_in, used_folder, writing
from coreinfer.report.document import document
from coreinfer.report.figures import save_figures
from coreinfer.report.seen import Seen
from coreinfer.wording import counted

REMEDY = "name another place"


def save(artifact: Artifact, seen: Seen, output: Path, figures: Path | None) -> Iterator[str]:
    """Write what was seen; a line about each place.

    Raises:
        CoreInferError: the disk refuses.
    """
    page = document(artifact, seen, artifact.root.name or str(artifact.root))
    with writing(output, REMEDY), moved_in(output) as part:
        part.write_text(page, "utf-8")
    yield f"report in {output} ({len(page.encode()) / 1e3:,.0f} kB)"
    if figures is not None:
        with writing(figures, REMEDY), used_folder(figures):
            names = save_figures(artifact, seen, figures)
        yield f"{counted(len(names), 'figure')} in {figures}, each as .png and .svg: {', '.join(names)}"
