"""The client's wheels in an empty environment, as another team has them: they bring all they need, types included."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
OWN = {"recoup-protos": "protos", "recoup-client": "clients"}
TYPES = ROOT / "tests" / "support" / "client_types.py"
GENERATED = ROOT / "protos" / "gen" / "recoup" / "scanner" / "v1"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheels, what they require, what that requires, and nothing else."""
    folder = tmp_path_factory.mktemp("stranger")
    made = run(sys.executable, "-m", "venv", "--without-pip", "environment", cwd=folder)
    assert made.returncode == 0, made.stderr
    (site,) = (folder / "environment" / "lib").glob("python*/site-packages")
    for name, source in OWN.items():
        shutil.copytree(ROOT / source, folder / source, ignore=shutil.ignore_patterns("node_modules", "*.egg-info"))
        built = run(
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--no-build-isolation", "--no-index", "--wheel-dir", folder, folder / source),
            cwd=folder,
        )
        assert built.returncode == 0, built.stderr
        (wheel,) = folder.glob(f"{name.replace('-', '_')}-*.whl")
        shutil.unpack_archive(wheel, site, "zip")
    wanted, laid = list(OWN), set[str]()
    while wanted:
        name = wanted.pop()
        if name in laid:
            continue
        laid.add(name)
        found = next(iter(Distribution.discover(name=name, path=[str(site)])), None) or _lay(name, site)
        for requirement in map(Requirement, found.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(re.sub(r"[-_.]+", "-", requirement.name).lower())
                if wanted[-1] not in OWN:
                    assert requirement.specifier.contains(distribution(wanted[-1]).version), requirement
    return folder


def _lay(name: str, site: Path) -> Distribution:
    """What a package has installed here, there."""
    found = distribution(name)
    places = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
    for place in places:
        source, target = Path(str(found.locate_file(place))), site / place
        if source.is_dir() and target.is_dir():  # Of several packages together, such as google.
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    return found


def test_the_command_line_and_both_clients_are_there(stranger: Path) -> None:
    program = "import recoup_client.blocking, recoup_client.mesh; from recoup_client.cli import main; main(['--help'])"
    done = run(stranger / "environment" / "bin" / "python", "-W", "error", "-c", program, cwd=stranger)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ")


def test_a_users_type_checker_finds_their_mistakes(stranger: Path) -> None:
    """By their own settings, strict: each `ignore` in that file is a mistake, and one that isn't found fails."""
    shutil.copy(TYPES, stranger / "program.py")
    done = run(
        *(sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", stranger / "cache"),
        *("--python-executable", stranger / "environment" / "bin" / "python", "program.py"),
        cwd=stranger,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_stubs_ask_for_what_generated_them() -> None:
    """An installer chooses versions that the stubs load with, rather than they refuse those that it chose."""
    stub = (GENERATED / "scanner_service_pb2_grpc.py").read_text()
    message = (GENERATED / "scanner_pb2.py").read_text()
    grpc = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", stub)
    protobuf = re.search(r"PUBLIC,\s+(\d+),\s+(\d+),\s+(\d+)", message)
    assert grpc
    assert protobuf
    project = tomllib.loads((ROOT / "protos" / "pyproject.toml").read_text())["project"]
    asked = {each.name: str(each.specifier) for each in map(Requirement, project["dependencies"])}
    assert (asked["grpcio"], asked["protobuf"]) == (f">={grpc[1]}", f">={'.'.join(protobuf.groups())}")
