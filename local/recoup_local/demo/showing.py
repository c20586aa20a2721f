"""What the story shows and how: amounts, spans worth a line, the offline verifier at work."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from recoup_local.otlp import SeenSpan


def money(finding: dict[str, Any]) -> str:
    """A finding's monthly saving."""
    saving = finding.get("monthlySaving")
    return f"{Decimal(saving['amount']):.2f}" if saving else "unknown"


def with_processes(span: SeenSpan) -> bool:
    """Whether a span is worth a line: calls between processes and to the cloud are, statements aren't."""
    return not span.name.startswith("sql")


def change_one_byte(bundle: bytes) -> bytes:
    """The bundle with one digit of the verified amount changed."""
    place = bundle.index(b'\\"economic\\":\\"') + len(b'\\"economic\\":\\"')
    digit = bundle[place : place + 1]
    return bundle[:place] + (b"9" if digit != b"9" else b"8") + bundle[place + 1 :]


def recoup_verify(file: Path, key: str, what: str = "receipt") -> tuple[int, str]:
    """Run the verifier as an auditor would; its exit code and what it said."""
    command = [sys.executable, "-m", "recoup_verify.cli", what, str(file), "--key", key]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr
