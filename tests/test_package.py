"""The package's front door: its names are what the README says, whatever was imported first."""

import re
import sys
from importlib import import_module
from pathlib import Path
from unittest import mock

import pytest
from command_line import in_new_process

import coreinfer

README = Path(__file__).resolve().parent.parent / "README.md"


EACH = """
import sys, importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
    print(name, [heavy for heavy in ("torch", "transformers") if heavy in sys.modules])
"""


@pytest.mark.parametrize("first", coreinfer.__all__)
def test_names_are_no_modules(first: str) -> None:
    """Of a package that nothing was imported from before."""
    others = {name: module for name, module in sys.modules.items() if name.split(".")[0] != "coreinfer"}
    with mock.patch.dict(sys.modules, others, clear=True):
        fresh = import_module("coreinfer")
        assert fresh is not coreinfer
        assert callable(getattr(fresh, first))
        assert all(callable(getattr(fresh, name)) for name in fresh.__all__)


def test_importing_the_package_loads_nothing_heavy() -> None:
    said = in_new_process("import sys, coreinfer; print({'torch', 'transformers', 'pyarrow'} & sys.modules.keys())")
    assert said.out == "set()\n", said.err


def test_what_needs_no_torch_loads_none() -> None:
    """Another runtime can read artifacts and rank neurons with NumPy and PyArrow."""
    names = [
        f"coreinfer.{name}"
        for name in ("settings", "neurons", "policy", "match", "manifest", "tables", "artifact", "page")
    ]
    said = in_new_process(EACH, *names)
    assert said.out.splitlines() == [f"{name} []" for name in names], said.err


def test_readme_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)[0], {})
    said = capsys.readouterr().out
    assert "hybrid" in said
    assert "[1024, 1024, 1024, 1024, 1024, 1024]" in said
