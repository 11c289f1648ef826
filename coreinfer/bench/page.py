"""A page of measurements that grows: a section for each thing measured, which a later run replaces."""

from pathlib import Path

from coreinfer.bench.report import table_of
from coreinfer.bench.run import Measured
from coreinfer.machine import hardware, machine, versions
from coreinfer.places import moved_in, writing

TOP = """# Performance

Tokens a second while decoding, each subject in turn and all in one run, so that a machine's moods reach all alike; the
median of three rounds counts. `limit` is the memory's bandwidth, measured in the same run, over the bytes that a step
must read: weights, of the neurons that it keeps, and cache. Each section is written by the command that it names.
"""
HEADING = "\n## "


def section(made: Measured, command: str) -> str:
    """In Markdown: what, on what, when, by which command, and the figures."""
    now, used = machine(), ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"{title(made)}\n\n{hardware(now)}; {now['date'][:10]}; {used}\n\n```\n{command}\n```\n\n{table_of(made)}\n"


def title(made: Measured) -> str:
    """What is measured, and so what a section is replaced by."""
    return f"{made.shape}, {made.dtype}, on a {'GPU' if made.device.startswith('cuda') else 'CPU'}"


def put(text: str, new: str) -> str:
    """The page with this section in the place of the one of its title, or at the end."""
    top, *rest = (text or TOP).rstrip("\n").split(HEADING)
    name = new.partition("\n")[0]
    parts = [new.rstrip("\n") if part.partition("\n")[0] == name else part.rstrip("\n") for part in rest]
    parts += [] if any(part.partition("\n")[0] == name for part in rest) else [new.rstrip("\n")]
    return f"\n{HEADING}".join([top.rstrip("\n"), *parts]) + "\n"


def write(made: Measured, command: str, page: Path) -> None:
    """Put a run's section into a page, which is made if it is not there.

    Raises:
        CoreInferError: the disk refuses.
    """
    with writing(page, "choose another --page"):
        before = page.read_text("utf-8") if page.exists() else ""
        with moved_in(page) as part:
            part.write_text(put(before, section(made, command)), "utf-8")
