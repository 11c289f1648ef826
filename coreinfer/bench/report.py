"""A run in words: a table for people, and one row of JSON on the last line for programs."""

import json
from typing import Any

from coreinfer.bench.run import Measured, Speed

GB = 1e9


def summary(made: Measured) -> dict[str, Any]:
    """The row: the leanest of our own, what it could reach, and the peers."""
    own = min((s for s in made.speeds if s.engine == "coreinfer"), key=lambda s: s.keep)
    peers = {f"{s.engine}, keep {s.keep:g}": round(s.tokens_per_second, 2) for s in made.speeds if s is not own}
    adds = made.prefill_with_statistic_s / made.prefill_s - 1
    return {
        "shape": made.shape, "keep": own.keep, "dtype": made.dtype, "device": made.device,
        "tokens_per_second": round(own.tokens_per_second, 2), "bandwidth_GBps": round(made.bandwidth / GB, 1),
        "limit_tokens_per_second": round(own.limit, 2), "share_of_limit": round(own.share_of_limit, 4),
        "prefill_s": round(made.prefill_s, 5), "statistic_adds": round(adds, 4),
        "switch_s": round(made.switch_s, 6), "peers": peers, "left_out": made.left_out,
    }  # fmt: skip


def table(made: Measured) -> list[str]:
    """Lines: a speed each, with its limit and how many times the slowest dense it is."""
    base = next(s for s in made.speeds if s.engine != "coreinfer" and s.keep == 1.0)
    wide = max(len(s.engine) for s in made.speeds)
    lines = [
        f"{made.shape}, {made.dtype}, {made.device}: memory {made.bandwidth / GB:,.1f} GB/s",
        f"{'':{wide}}   keep     tok/s     limit   share   over {base.engine}, dense",
        *(_line(s, wide, base) for s in made.speeds),
        f"prefill {1e3 * made.prefill_s:.1f} ms, with the statistic {1e3 * made.prefill_with_statistic_s:.1f} ms; "
        f"another set in place after {1e3 * made.switch_s:.2f} ms",
    ]
    return lines + [f"left out: {name}: {why}" for name, why in made.left_out.items()]


def _line(speed: Speed, wide: int, base: Speed) -> str:
    times = speed.tokens_per_second / base.tokens_per_second
    return (
        f"{speed.engine:{wide}}   {speed.keep:4g}  {speed.tokens_per_second:8.1f}  {speed.limit:8.1f}  "
        f"{speed.share_of_limit:6.1%}   {times:.2f}x"
    )


def last_line(made: Measured) -> str:
    """The JSON that a program reads."""
    return json.dumps(summary(made), ensure_ascii=False)
