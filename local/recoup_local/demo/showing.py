"""What the story shows and how: amounts, the trace worth showing, the offline verifier at work."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from recoup_local.otlp import SeenSpan


def money(finding: dict[str, Any]) -> str:
    saving = finding.get("monthlySaving")
    return f"{Decimal(saving['amount']):.2f}" if saving else "unknown"


def widest_trace(spans: list[SeenSpan]) -> list[SeenSpan]:
    """The spans of the trace that went through the most processes; the longest of those."""
    traces: dict[str, list[SeenSpan]] = {}
    for span in spans:
        traces.setdefault(span.trace_id, []).append(span)
    if not traces:
        return []
    return max(traces.values(), key=lambda trace: (len({span.process for span in trace}), len(trace)))


def change_one_byte(proof: bytes) -> bytes:
    """The proof with one byte of the payload's base64 changed."""
    place = proof.index(b'"payload": "') + 40
    return proof[:place] + (b"A" if proof[place : place + 1] != b"A" else b"B") + proof[place + 1 :]


def recoup_verify(file: Path, key: str) -> tuple[int, str]:
    """Run the verifier as an auditor would; its exit code and what it said."""
    command = [sys.executable, "-m", "recoup_verify.cli", "event", str(file), "--key", key]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr
