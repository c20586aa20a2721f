"""Failpoints: nothing in production, and in the local profile what a file says, once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services._mesh import failpoints
from services._mesh.settings import FailpointsSettings, MeshSettings, ProcessSettings, TlsSettings, TrustSettings

_PROCESS = """
import sys
from pathlib import Path
from services._mesh import failpoints
failpoints.open_failpoints("local", Path(sys.argv[1]), "audit")
failpoints.reach("here")
print("went on", flush=True)
"""


def reached(folder: Path, *armed: tuple[str, str]) -> subprocess.CompletedProcess[str]:
    for name, how in armed:
        (folder / name).write_text(how)
    return subprocess.run([sys.executable, "-c", _PROCESS, str(folder)], capture_output=True, text=True, timeout=60)


def test_a_process_is_killed_where_it_was_said_and_only_once(tmp_path: Path) -> None:
    assert reached(tmp_path, ("audit.here", "kill")).returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["audit.here.reached"]
    again = reached(tmp_path)
    assert (again.returncode, again.stdout) == (0, "went on\n")


def test_other_places_and_other_processes_go_on(tmp_path: Path) -> None:
    gone_on = reached(tmp_path, ("audit.elsewhere", "kill"), ("pricing.here", "kill"))
    assert (gone_on.returncode, gone_on.stdout) == (0, "went on\n")


def settings(tmp_path: Path, profile: str) -> MeshSettings:
    files = TlsSettings(ca=tmp_path, cert=tmp_path, key=tmp_path)
    return MeshSettings(
        process=ProcessSettings(name="audit", profile=profile),
        tls=files,
        trust=TrustSettings(dir=tmp_path),
        failpoints=FailpointsSettings(folder=tmp_path),
    )


def test_production_refuses_them(tmp_path: Path) -> None:
    assert settings(tmp_path, "local").failpoints is not None
    with pytest.raises(ValueError, match="only the local profile may"):
        settings(tmp_path, "production")
    with pytest.raises(RuntimeError, match="local profile only"):
        failpoints.open_failpoints("production", tmp_path, "audit")
    failpoints.reach("here")
