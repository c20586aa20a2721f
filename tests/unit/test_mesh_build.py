"""What is told of the build that runs: by `--version`, in the log and the metrics, and with each span."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

from services._mesh.build import REVISION, UNKNOWN, this_build
from services._mesh.settings import OtlpSettings
from services._mesh.telemetry import Telemetry

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _detached(git: Path) -> Path:
    (git / "HEAD").write_text(f"{COMMIT}\n")
    return git


def _branch(git: Path) -> Path:
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "refs" / "heads" / "main").write_text(f"{COMMIT}\n")
    return git


def _packed(git: Path) -> Path:
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text(
        f"# pack-refs with: peeled\n{'f' * 40} refs/heads/other-main\n{COMMIT} refs/heads/main\n"
    )
    return git


def _worktree(git: Path) -> Path:
    own = git / "worktrees" / "one"
    own.mkdir(parents=True)
    _branch(git)
    (own / "HEAD").write_text("ref: refs/heads/main\n")
    (own / "commondir").write_text("../..\n")
    (git.parent / "file").write_text(f"gitdir: {own}\n")
    return git.parent / "file"


@pytest.mark.parametrize("laid", [_detached, _branch, _packed, _worktree])
def test_a_checkout_knows_its_revision(laid: Callable[[Path], Path], tmp_path: Path) -> None:
    (tmp_path / "git").mkdir()
    assert this_build(laid(tmp_path / "git")).revision == COMMIT


def test_an_image_is_told_its_revision_and_nothing_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert this_build(tmp_path / "nothing").revision == UNKNOWN
    (tmp_path / "HEAD").write_text("ref: refs/heads/never-born\n")
    assert this_build(tmp_path).revision == UNKNOWN
    monkeypatch.setenv(REVISION, "r42")
    assert this_build(_detached(tmp_path)).revision == "r42"


def test_a_process_says_which_build_it_is() -> None:
    command = [sys.executable, "-m", "services.pricing.worker", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={REVISION: "r42"})
    assert done.stdout.startswith(f"recoup-services {version('recoup-services')} (revision r42, Python 3."), done.stderr


@pytest.mark.parametrize("program", ["recoup", "recoup-verify"])
def test_so_do_the_command_lines(program: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name(program), "--version"], capture_output=True, text=True, timeout=60
    )
    package = {"recoup": "recoup-client"}.get(program, program)
    assert (done.returncode, done.stdout) == (0, f"{program} {version(package)}\n")


def test_each_span_says_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REVISION, COMMIT)
    tracing = Telemetry("test", OtlpSettings(endpoint="http://127.0.0.1:1"))
    assert tracing._provider is not None
    said = tracing._provider.resource.attributes
    assert said["service.version"] == f"{version('recoup-services')}+{COMMIT[:12]}"
    tracing.close()
