"""A run in words: a table for people, a picture, and one row of JSON on the last line for programs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coreinfer.bench.run import Measured, Speed, named
from coreinfer.places import moved_in, writing

GB = 1e9


def summary(made: Measured) -> dict[str, Any]:
    """The row: the leanest of our own, what it could reach, and the peers."""
    own = made.own
    peers = {_name(s, made): round(s.tokens_per_second, 2) for s in made.speeds if s is not own}
    return {
        "shape": made.shape, "keep": own.keep, "dtype": made.dtype, "device": made.device,
        "tokens_per_second": round(own.tokens_per_second, 2), "bandwidth_GBps": round(made.bandwidth / GB, 1),
        "limit_tokens_per_second": round(own.limit, 2), "share_of_limit": round(own.share_of_limit, 4),
        "prefill_s": round(made.prefill_s, 5), "statistic_adds": round(made.statistic_adds, 4),
        "switch_s": round(made.switch_s, 6), "peers": peers, "left_out": made.left_out,
        "lossless": None if made.lossless is None else asdict(made.lossless),
    }  # fmt: skip


def table(made: Measured) -> list[str]:
    """Lines: a speed each, with its limit and how many times the slowest dense it is."""
    base = made.dense_peers[0]
    wide = max(len(s.engine) for s in made.speeds)
    lines = [
        f"{made.shape}, {made.dtype}, {made.device}: memory {made.bandwidth / GB:,.1f} GB/s",
        f"{'':{wide}}   keep  texts      dtype     tok/s     limit   share   over {base.engine}, dense",
        *(_line(s, wide, base) for s in made.speeds),
    ]
    prefill = (
        f"prefill {1e3 * made.prefill_s:.1f} ms, with the statistic {1e3 * made.prefill_with_statistic_s:.1f} ms; "
        f"another set in place after {1e3 * made.switch_s:.2f} ms"
    )
    return lines + notes(made, prefill, rates=True)


def notes(made: Measured, prefill: str, rates: bool) -> list[str]:
    """What is said of a run besides speeds, its prefill first; without ``rates`` in ratios alone."""
    lines = [prefill]
    if (drafts := made.lossless) is not None:
        rate = f"{drafts.tokens_per_second:.1f} tok/s, " if rates else ""
        same = "the same texts" if drafts.identical else "OTHER TEXTS"
        lines.append(
            f"lossless, drafts at keep {drafts.keep:g}: {rate}{drafts.over_dense:.2f}x its dense steps; "
            f"{drafts.accepted:.0%} of the drafts accepted, {same}"
        )
    return lines + [f"left out: {name}: {why}" for name, why in made.left_out.items()]


def _name(speed: Speed, made: Measured) -> str:
    """A dtype is said where it is not the run's."""
    return named(speed.engine, speed.keep, speed.texts) + (f", {speed.dtype}" if speed.dtype != made.dtype else "")


def _line(speed: Speed, wide: int, base: Speed) -> str:
    times, rate = speed.over(base), speed.tokens_per_second
    name = f"{speed.engine:{wide}}   {speed.keep:4g}  {speed.texts:5}  {speed.dtype:>9}"
    over = "" if times is None else f"{times:.2f}x"
    return f"{name}  {rate:8.1f}  {speed.limit:8.1f}  {speed.share_of_limit:6.1%}   {over}".rstrip()


def last_line(made: Measured) -> str:
    """The JSON that a program reads."""
    return json.dumps(summary(made), ensure_ascii=False)


def save(made: Measured, folder: Path) -> None:
    """bench.json, all that was measured, and bench.svg.

    Raises:
        CoreInferError: the disk refuses.
    """
    with writing(folder, "choose another --output"):
        for name, text in (("bench.json", json.dumps(made.row(), indent=1) + "\n"), ("bench.svg", picture(made))):
            with moved_in(folder / name) as part:
                part.write_text(text, "utf-8")


def picture(made: Measured) -> str:
    """Bars: tokens a second of each subject, its limit behind it."""
    import io

    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.9 + 0.42 * len(made.speeds)), layout="constrained")
    FigureCanvasSVG(figure)
    axes, rows = figure.subplots(), list(reversed(made.speeds))
    names = [_name(s, made) for s in rows]
    axes.barh(
        names, [s.limit for s in rows], color="#e6e4df", label="limit: the memory's bandwidth over the bytes read"
    )
    bars = axes.barh(names, [s.tokens_per_second for s in rows], color=[_colour(s) for s in rows], height=0.5)
    axes.bar_label(bars, [f" {s.tokens_per_second:.0f} ({s.share_of_limit:.0%})" for s in rows])
    axes.set_xlabel(f"tokens a second; {made.shape}, {made.dtype}, {made.device}, {made.bandwidth / GB:,.0f} GB/s")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.14), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()


def _colour(speed: Speed) -> str:
    return "#2f74d0" if speed.engine == "coreinfer" else "#8b93a1"
