"""The step as one kernel, as far as no GPU is needed; the rest is in tests_gpu."""

from importlib.resources import files

import pytest
from families import FAMILIES, build
from hypothesis import given
from hypothesis import strategies as st

from coreinfer.decode.families import read_network
from coreinfer.kernels import whole

pytest.importorskip("triton")  # which the steps of several kernels are made of

from coreinfer.decode.whole import suits, unfit

VALUES = st.one_of(st.integers(-(2**31), 2**31 - 1), st.floats(width=32, allow_nan=False, allow_infinity=False))


def test_a_cpu_has_other_steps() -> None:
    net = read_network(build("Llama", FAMILIES["Llama"]))
    assert unfit(net) == "a device that does not copy in bulk"
    assert not suits(net)


def test_its_sources_include_one_another() -> None:
    folder = files(whole.__package__)
    for name in (*whole.INCLUDED, "step.cu"):
        text = (folder / name).read_text()
        wanted = {line.split('"')[1] for line in text.splitlines() if line.startswith("#include")}
        assert wanted <= {"shape.cuh", *whole.INCLUDED}


@given(st.dictionaries(st.from_regex(r"\A[A-Z_]{1,20}\Z"), VALUES, min_size=1))
def test_constants_keep_their_values(shape: dict[str, int | float]) -> None:
    once, *lines = whole.header(tuple(shape.items())).splitlines()
    assert once == "#pragma once"
    for line, (name, value) in zip(lines, shape.items(), strict=True):
        kind, rest = line.removeprefix("constexpr ").split(" ", 1)
        assert kind == ("float" if isinstance(value, float) else "int")
        assert rest.startswith(f"{name} = ")
        assert float(rest.removeprefix(f"{name} = ").removesuffix(";")) == value
