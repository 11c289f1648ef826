"""The package's front door: its names are what the README says, whatever was imported first."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import coreinfer

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.mark.parametrize("first", coreinfer.__all__)
def test_names_are_no_modules(first: str) -> None:
    names = ", ".join(coreinfer.__all__)
    code = f"from coreinfer import {first}, {names}\nprint(*(callable(name) for name in ({names})))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True"] * len(coreinfer.__all__)


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, coreinfer; print([m for m in ('torch', 'transformers', 'pyarrow') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["neurons", "policy", "match", "artifact", "tables", "manifest", "settings"])
def test_what_needs_no_torch_loads_none(name: str) -> None:
    """Another runtime can read artifacts and rank neurons with NumPy and PyArrow."""
    code = f"import sys, coreinfer.{name}; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_readme_example_runs() -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)[0]
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "hybrid" in said.stdout
    assert "[1024, 1024, 1024, 1024, 1024, 1024]" in said.stdout
