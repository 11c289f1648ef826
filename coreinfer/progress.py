"""How far a long job is, for people: on stderr, by stages."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from coreinfer.wording import lasting

if TYPE_CHECKING:
    from rich.console import Console

Tick = Callable[[int], Any]  # so many more are done

EVERY = 60.0  # seconds between two lines about one stage in a log


class Gauge(Protocol):
    """A tick that may say more: a ``note`` stands until the next one."""

    def __call__(self, n: int, note: str = "", /) -> Any: ...


Stage = Callable[[str, int | None], Gauge]  # of a name and a total; how a caller shows progress


def unseen(name: str, total: int | None) -> Gauge:
    """A stage that nobody watches."""
    return lambda n, note="": None


def logged(name: str, total: int | None) -> Gauge:
    """A stage in a log: its name, once something of it is done, so that what is refused at once has the error alone.
    A tick of 0 says that it will take a while. Of what does take long, a line every minute says how far it is.
    """
    begun = said = time.monotonic()
    named, done, noted = False, 0, ""

    def tick(n: int, note: str = "", /) -> None:
        nonlocal named, said, done, noted
        done, noted, now = done + n, note or noted, time.monotonic()
        if not named:
            print(name, file=sys.stderr, flush=True)
        elif total and now - said >= EVERY:
            said = now
            print(f"{name}: {_how_far(done, total, now - begun, noted)}", file=sys.stderr, flush=True)
        named = True

    return tick


def _how_far(done: int, total: int, seconds: float, note: str) -> str:
    """``3,072 of 9,216, 51/s, 2 min left, 6 of 18 shards, 2 workers``."""
    rate = done / seconds
    left = [f"{lasting((total - done) / rate)} left"] if rate > 0 else []
    return ", ".join([f"{done:,} of {total:,}", f"{rate:,.0f}/s", *left, *filter(None, [note])])


@contextmanager
def stages(quiet: bool) -> Iterator[Stage]:
    """Progress on stderr: a bar for each stage, with its rate and the time left; in a log, its name."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield unseen if quiet else logged
        return
    with _bars(console) as begin:
        yield begin


@contextmanager
def one_line(quiet: bool) -> Iterator[Stage]:
    """The same in a single line, which is written only when something is done: a bar that moves by itself would take
    part in what is measured. It is gone at the end, so that results take its place.
    """
    if quiet or not sys.stderr.isatty():
        yield unseen if quiet else logged
        return
    shown = ""

    def show(text: str) -> None:
        nonlocal shown
        print(f"\r{text.ljust(len(shown))}\r", end="", file=sys.stderr, flush=True)
        shown = text

    def begin(name: str, total: int | None) -> Gauge:
        done = 0
        show(name)

        def tick(n: int, note: str = "", /) -> None:
            nonlocal done
            done += n
            show(f"{name} {done}/{total}" if total else name)

        return tick

    try:
        yield begin
    finally:
        show("")


@contextmanager
def _bars(console: "Console") -> Iterator[Stage]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:15}"),
        BarColumn(30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:

        def finish() -> None:
            for task in progress.tasks:
                done = task.total or task.completed or 1
                progress.update(task.id, total=done, completed=done)

        def begin(name: str, total: int | None) -> Gauge:
            finish()
            task_id = progress.add_task(name, total=total, rate="", note="")

            def tick(n: int, note: str = "", /) -> None:
                task = progress.tasks[task_id]
                speed = (task.completed + n) / task.elapsed if task.elapsed else 0.0
                progress.update(task_id, advance=n, rate=f"{speed:,.0f}/s", note=note or task.fields["note"])

            return tick

        yield begin
        finish()
