"""verify.receipt_ms and verify.bundle_100k_s: recoup-verify as a whole process, as an auditor would run it.

Installers compile modules once; so does the run of each command that isn't counted, into a cache of this process's own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from bench.measuring import Result
from tests.support import receipt_cases
from tests.support.evidence_bundle import Bundling, bundled, zipped
from tests.support.receipt_log import Signatories
from tests.support.receipts import issue

Command = Sequence[str | Path]
VERIFY = Path(sys.executable).with_name("recoup-verify")
RECEIPT_RUNS, BUNDLE_RUNS, BUNDLE_EVENTS = 20, 3, 100_000
# What any process has to pay that checks an Ed25519 signature in Python.
BARE = "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey"


def receipt() -> Result:
    """Milliseconds of a receipt's verification, against an interpreter that imports Ed25519 and ends."""
    with tempfile.TemporaryDirectory() as folder:
        signatories, path = Signatories(), Path(folder) / "receipt.json"
        path.write_bytes(issue(receipt_cases.deleted_volume(), signatories))
        command: Command = [VERIFY, "receipt", path, "--key", signatories.log.verifier_key.text()]
        name = "python that imports Ed25519 and ends"
        return _compared("verify.receipt_ms", "ms", name, command, [sys.executable, "-c", BARE], RECEIPT_RUNS)


def bundle() -> Result:
    """Seconds of a bundle's verification, against reading, hashing and parsing its lines."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "evidence.zip"
        vkey = _write_bundle(path)
        command: Command = [VERIFY, "bundle", path, "--key", vkey]
        name = "unzipping, hashing and parsing its lines"
        return _compared(
            "verify.bundle_100k_s", "s", name, command, [sys.executable, "-c", _HASHING, path], BUNDLE_RUNS
        )


def _write_bundle(path: Path) -> str:
    made = bundled(Bundling(events=BUNDLE_EVENTS))
    zipped(made.files, path)
    return made.vkey()


def _compared(name: str, unit: str, floor: str, command: Command, bare: Command, runs: int) -> Result:
    """Whole processes in turn, after one of each that isn't counted; the subject's processor time and memory beside."""
    scale = 1000.0 if unit == "ms" else 1.0
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
        _seconds(bare, environment)
        peak = _peak_mib(command, environment)
        found, used = list[dict[str, float]](), list[float]()
        for _ in range(runs):
            below = _seconds(bare, environment)
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            taken = _seconds(command, environment)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            found.append({"subject": round(taken * scale, 2), "floor": round(below * scale, 2)})
    middle, below = median(run["subject"] for run in found), median(run["floor"] for run in found)
    facts = {f"processor time, {unit}": round(median(used) * scale, 2), "memory at its highest, MiB": peak}
    return Result(name, middle, unit, floor, below, round(middle / below, 3), found, facts)


_HASHING = """
import hashlib, json, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive, archive.open("events.jsonl") as lines:
    for line in lines:
        hashlib.sha256(line).digest(), json.loads(json.loads(line)["leaf"])
"""


def _seconds(command: Command, environment: Mapping[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    taken = time.perf_counter() - began
    assert done.returncode == 0, done.stdout + done.stderr
    return taken


def _peak_mib(command: Command, environment: Mapping[str, str]) -> float:
    """The largest resident memory of a process. What getrusage says of a child counts its parent's before the exec."""
    process, peak = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment), 0.0
    while process.poll() is None:
        with contextlib.suppress(OSError):  # It may have ended meanwhile.
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak = int(line.split()[1]) / 1024
        time.sleep(0.005)
    return round(peak, 1)
