"""The verifier stays readable: so many lines at most in each of its parts, and what it is made of stays outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "verifier"
PACKAGE = ROOT / "recoup_verify"
# Without site, which loads what it likes.
PATHS = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path]))}
PARTS = {"core": PACKAGE, "`evidence/`": PACKAGE / "evidence", "`savings/`": PACKAGE / "savings"}


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_no_more_lines_than_the_readme_says(part: str) -> None:
    said = re.search(rf"^\| {part} \|.*\| ([0-9,]+) \|$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert said
    lines = sum(len(file.read_text("utf-8").splitlines()) for file in PARTS[part].glob("*.py"))
    assert lines <= int(said[1].replace(",", ""))


def test_the_parts_are_all_there_is() -> None:
    there = {file.parent for file in PACKAGE.rglob("*.py")}
    assert there == set(PARTS.values())


def test_the_core_knows_neither_evidence_nor_savings() -> None:
    """But for the command, which loads what it was asked for."""
    names = [file for file in PACKAGE.glob("*.py") if file.name != "cli.py"]
    assert len(names) > 5
    assert not [file.name for file in names if re.search(r"recoup_verify\.(evidence|savings)", file.read_text("utf-8"))]


KEY = "log.example+45581e74+AQICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC"
SLOW = {"argparse", "dataclasses", "inspect", "pathlib", "calendar", "zipfile", "pkg_resources", "importlib.metadata"}


@pytest.mark.parametrize(
    ("command", "wanted", "unwanted"),
    [
        ("event", "recoup_verify.event", ("evidence", "savings")),
        ("checkpoint", "recoup_verify.checkpoint", ("evidence", "savings")),
        ("receipt", "recoup_verify.savings.receipt", ("evidence",)),
    ],
)
def test_a_command_loads_only_what_it_needs(
    command: str, wanted: str, unwanted: tuple[str, ...], tmp_path: Path
) -> None:
    """Each module costs a part of the time that a whole check has; some of Python's own cost most of it."""
    (tmp_path / "file").write_text("{}")
    arguments = [command, str(tmp_path / "file"), "--key", KEY]
    code = f"import sys; from recoup_verify.cli import main; main({arguments!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=PATHS)
    loaded = done.stdout.split()
    assert wanted in loaded, done.stderr
    assert not SLOW & set(loaded)
    assert not [name for name in loaded if name.startswith(tuple(f"recoup_verify.{part}" for part in unwanted))]
