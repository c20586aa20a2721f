"""Writes a small file so that a crash leaves the old content or the new one, and never loses what was written."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, content: str) -> None:
    """Replace a file's content: written whole beside it, synced, renamed over it, the folder synced. Raises OSError."""
    beside = path.with_suffix(".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
