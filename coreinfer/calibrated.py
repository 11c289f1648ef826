"""``calibration.json``: the policies' numbers and what each keep costs, none that matching or ranking could not use."""

from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from typing import Any, get_args

from coreinfer.settings import PolicySettings, Source

LARGEST = 1e9
FEW = 20  # held-out similarities: of fewer, their quantile is chance
GUESS = "uncalibrated"  # how the rule of a threshold begins that no held-out texts gave
RANGES = {  # of a cosine, with room for rounding; of what is divided by or is an exponent: no more than can be computed
    "threshold": (-1.01, 1.01), "strong": (-1.01, 1.01), "sharpness": (1e-6, LARGEST), "n0": (0.0, LARGEST),
    "shrink": (0.0, LARGEST), "doubt": (0.0, 1.0), "doubt_fall": (0.0, 16.0),
}  # fmt: skip


def policy_of(calibration: Any) -> PolicySettings:
    """The policies' numbers, all of them.

    Raises:
        ValueError, LookupError, TypeError: some are missing, unknown, of another type, or out of their range.
    """
    if not isinstance(calibration, dict):
        raise TypeError(f"calibration.json holds {str(calibration)[:80]}, no object")
    raw = calibration["policy"]
    policy = PolicySettings(**raw)
    if asdict(policy) != raw or policy.auto not in get_args(Source):
        raise ValueError(f"the policy is {str(raw)[:300]}")
    for name, (least, most) in RANGES.items():
        if not is_number(raw[name]) or not least <= raw[name] <= most:
            raise ValueError(f"the policy's {name} is {str(raw[name])[:80]}, not from {least:g} to {most:g}")
    if policy.strong < policy.threshold:
        raise ValueError(f"the policy's strong is {policy.strong}, below its threshold {policy.threshold}")
    if type(policy.mixture) is not int or not 0 < policy.mixture < 1 << 31:
        raise ValueError(f"the policy's mixture is {str(policy.mixture)[:80]}, no number of clusters")
    return policy


def knows_threshold(calibration: Mapping[str, Any]) -> bool:
    """Whether the policies' threshold was calibrated, as far as its evidence says: that of losses has no rule; one of
    held-out similarities, or of the corpus itself, is a guess where hardly any texts were held out.
    """
    rule, held = calibration.get("threshold_rule"), calibration.get("held_out_passages", FEW)
    few = is_number(held) and held < FEW
    return rule is None or not (few or str(rule).startswith(GUESS))


def check_curve(calibration: Mapping[str, Any]) -> None:
    """
    Raises:
        ValueError, LookupError, TypeError: there is a curve that no keep could be read from.
    """
    rows = calibration.get("curve", [])
    if not isinstance(rows, list):
        raise TypeError(f"the curve is {str(rows)[:80]}")
    keeps = [0.0, *(row["keep"] for row in rows)]
    rising = all(is_number(b) and a < b <= 1 for a, b in pairwise(keeps))
    if not rising or not all(_possible(row["rise"], row.get("rise_high", row["rise"])) for row in rows):
        raise ValueError(f"the curve is {str(rows)[:300]}")


def _possible(rise: Any, high: Any) -> bool:
    """A rise in nats, and the upper end of its interval."""
    return is_number(rise) and is_number(high) and abs(rise) < LARGEST and rise <= high < LARGEST


def is_number(value: Any) -> bool:
    """Of JSON: a bool is none."""
    return type(value) in (int, float)
