"""Holds the repository to its shape: the rooms of a service, names, docstrings, and what may never be committed."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("identity", "scanner", "pricing", "actions", "audit", "broker")
MANDATORY = ("__main__.py", "config.py", "README.md")
ROOMS = ("rpc", "usecases", "model")
FORBIDDEN_NAMES = re.compile(r"(^|/)(utils?|helpers?|common|managers?|misc)(\.py)?(/|$)")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:root|work|home/[a-z]\w*)/")
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://")
GENERATED_IMPORT = re.compile(r"^\s*(?:from|import) recoup\.", re.MULTILINE)
MAY_IMPORT_GENERATED = re.compile(r"/(rpc|consumers|clients|wire|__main__|worker|signer)[/._]")


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def python_files() -> list[str]:
    return [name for name in tracked() if name.endswith(".py") and not name.startswith("protos/gen/")]


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_its_rooms(service: str) -> None:
    folder = ROOT / "services" / service
    missing = [name for name in MANDATORY if not (folder / name).exists()]
    missing += [name for name in ROOMS if not (folder / f"{name}.py").exists() and not (folder / name).is_dir()]
    assert not missing, f"services/{service} lacks {missing}"


def test_nothing_is_named_after_nothing() -> None:
    assert not [name for name in tracked() if FORBIDDEN_NAMES.search(name) and not name.startswith("protos/gen/")]


def test_every_module_says_what_it_is() -> None:
    bare = [
        name
        for name in python_files()
        if not name.startswith("tests/") and not ast.get_docstring(ast.parse((ROOT / name).read_text()))
    ]
    assert not bare


def test_no_lock_names_an_address() -> None:
    locks = [name for name in tracked() if re.search(r"(requirements[^/]*\.(txt|in)|\.lock|package-lock\.json)$", name)]
    assert locks
    assert not [name for name in locks if ADDRESS.search((ROOT / name).read_text())]


def test_no_file_holds_a_path_of_one_machine() -> None:
    found = []
    for name in tracked():
        if name == "tests/unit/test_repo_shape.py" or name.endswith((".binpb", ".gz")):
            continue
        if MACHINE_PATH.search((ROOT / name).read_text(errors="replace")):
            found.append(name)
    assert not found


def test_generated_code_stays_at_the_edges_of_a_service() -> None:
    inside = [
        name
        for name in python_files()
        if name.startswith("services/")
        and not name.startswith(("services/_mesh/", "services/gateway/"))
        and not MAY_IMPORT_GENERATED.search(name)
        and GENERATED_IMPORT.search((ROOT / name).read_text())
        and set(re.findall(r"^\s*from (recoup\.\S+)", (ROOT / name).read_text(), re.MULTILINE))
        - {"recoup.errors.v1.error_reason_pb2"}  # the one enum of reasons is our own vocabulary
    ]
    assert not inside


def test_sqlalchemy_stays_in_the_store() -> None:
    inside = [
        name
        for name in python_files()
        if name.startswith("services/")
        and not name.startswith("services/_mesh/")
        and not re.search(r"/(store|tables|migrations)[/._]", name)
        and re.search(r"^\s*(?:from|import) sqlalchemy", (ROOT / name).read_text(), re.MULTILINE)
    ]
    assert not inside
