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
FOLDERS = {
    "`evidence/`": PACKAGE / "evidence",
    "`receipts/`": PACKAGE / "receipts",
    "`savings/`": PACKAGE / "savings",
}
# What a part may import of the verifier, beside itself and the core; the command loads what it was asked for.
MAY_IMPORT = {"core": set[str](), "savings": set[str](), "receipts": {"savings"}, "evidence": {"receipts"}}


def files_of(part: str) -> list[Path]:
    command = PACKAGE / "cli.py"
    if part == "`cli`":
        return [command]
    return [file for file in FOLDERS.get(part, PACKAGE).glob("*.py") if file != command]


@pytest.mark.parametrize("part", ["core", "`cli`", *FOLDERS])
def test_each_part_has_no_more_lines_than_the_readme_says(part: str) -> None:
    said = re.search(rf"^\| {part} \|.*\| ([0-9,]+) \|$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert said
    most = int(said[1].replace(",", ""))
    lines = sum(len(file.read_text("utf-8").splitlines()) for file in files_of(part))
    assert 0 < lines <= most < 800


def test_the_parts_are_all_there_is() -> None:
    there = {file.parent for file in PACKAGE.rglob("*.py")}
    assert there == {PACKAGE, *FOLDERS.values()}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_the_parts_rest_on_each_other_one_way(part: str) -> None:
    files = files_of(part if part == "core" else f"`{part}/`")
    assert len(files) > 3
    for file in files:
        found = set(re.findall(r"recoup_verify[.](evidence|receipts|savings)\b", file.read_text("utf-8")))
        found |= set(re.findall(r"from recoup_verify import (\w+)", file.read_text("utf-8")))
        assert found <= MAY_IMPORT[part] | {part}, file


KEY = "log.example+45581e74+AQICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgIC"
SLOW = {"argparse", "dataclasses", "inspect", "pathlib", "calendar", "zipfile", "pkg_resources", "importlib.metadata"}


@pytest.mark.parametrize(
    ("command", "wanted", "unwanted"),
    [
        ("event", "recoup_verify.event", ("evidence", "receipts", "savings")),
        ("checkpoint", "recoup_verify.checkpoint", ("evidence", "receipts", "savings")),
        ("receipt", "recoup_verify.receipts.receipt", ("evidence",)),
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
