"""How messages are worded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreinfer.wording import lasting


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "1 s"), (89, "89 s"), (90, "2 min"), (1500, "25 min"), (5400, "2 h"), (172_000, "48 h"), (345_600, "4 days")],
)
def test_how_long(seconds: float, said: str) -> None:
    assert lasting(seconds) == said


@given(st.floats(1, 1e8))
def test_it_is_off_by_a_third_at_the_most(seconds: float) -> None:
    number, unit = lasting(seconds).split()
    found = float(number.replace(",", "")) * {"s": 1, "min": 60, "h": 3600, "days": 86_400}[unit]
    assert found == pytest.approx(seconds, rel=1 / 3 + 1e-9) or abs(found - seconds) <= 0.5
