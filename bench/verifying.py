"""verify.receipt_ms and verify.bundle_100k_s: recoup-verify as a whole process, as an auditor would run it."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.measuring import Result
from tests.support import receipt_cases
from tests.support.evidence_bundle import Bundling, bundled, zipped
from tests.support.receipt_log import Signatories
from tests.support.receipts import issue

VERIFY = Path(sys.executable).with_name("recoup-verify")
RECEIPT_RUNS, BUNDLE_RUNS, BUNDLE_EVENTS = 20, 3, 100_000
# What any process has to pay that checks an Ed25519 signature in Python.
BARE = "from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey"


def receipt() -> Result:
    """Milliseconds of a receipt's verification, against an interpreter that imports Ed25519 and ends."""
    with tempfile.TemporaryDirectory() as folder:
        signatories, path = Signatories(), Path(folder) / "receipt.json"
        path.write_bytes(issue(receipt_cases.deleted_volume(), signatories))
        command: list[str | Path] = [VERIFY, "receipt", path, "--key", signatories.log.verifier_key.text()]
        bare: list[str | Path] = [sys.executable, "-c", BARE]
        for each in (command, bare):
            _milliseconds(each)
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        for _ in range(RECEIPT_RUNS):
            _milliseconds(command)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        runs = [{"subject": _milliseconds(command), "floor": _milliseconds(bare)} for _ in range(RECEIPT_RUNS)]
    subject, floor = median(run["subject"] for run in runs), median(run["floor"] for run in runs)
    used = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    facts = {"processor time of one, ms": round(used / RECEIPT_RUNS * 1000, 1)}
    name = "python that imports Ed25519 and ends"
    return Result("verify.receipt_ms", subject, "ms", name, floor, round(subject / floor, 3), runs, facts)


def bundle() -> Result:
    """Seconds of a bundle's verification, against reading and hashing the same file twice."""
    with tempfile.TemporaryDirectory() as folder:
        made, path = bundled(Bundling(events=BUNDLE_EVENTS)), Path(folder) / "evidence.zip"
        zipped(made.files, path)
        command: list[str | Path] = [VERIFY, "bundle", path, "--key", made.vkey()]
        bare: list[str | Path] = [sys.executable, "-c", _HASHING, path]
        runs = [
            {"subject": _milliseconds(command) / 1000, "floor": _milliseconds(bare) / 1000} for _ in range(BUNDLE_RUNS)
        ]
    subject, floor = median(run["subject"] for run in runs), median(run["floor"] for run in runs)
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    facts = {
        "events": float(BUNDLE_EVENTS),
        "largest memory of a process that was started so far, MiB": round(largest, 1),
    }
    name = "unzipping, reading and hashing its lines as JSON"
    return Result("verify.bundle_100k_s", subject, "s", name, floor, round(subject / floor, 3), runs, facts)


_HASHING = """
import hashlib, json, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive, archive.open("events.jsonl") as lines:
    for line in lines:
        hashlib.sha256(line).digest(), json.loads(json.loads(line)["leaf"])
"""


def _milliseconds(command: Sequence[str | Path]) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    taken = (time.perf_counter() - began) * 1000
    assert done.returncode == 0, done.stdout + done.stderr
    return round(taken, 2)
