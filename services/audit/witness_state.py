"""The witness's memory: for each log the last checkpoint that it cosigned, in a file of its own.

Comparing and persisting are one step under a lock of the file system, so that neither two requests nor two processes
can move a log back. There is no way to set it back: a witness that lost its state is retired, with its key.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.audit.durable import write_durably
from services.audit.model.notes import TreeHead
from services.audit.model.witnessing import Cosigned, Submission, check_continues


class WitnessState:
    """The folder. Its calls block; run them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def advance(self, submission: Submission, head: TreeHead) -> None:
        """Make the checkpoint the last one of its log, durably. Raises Refused, and then nothing has changed.

        Raises OSError, ValueError, KeyError where the state can't be read or written: nothing may be cosigned then.
        """
        name = hashlib.sha256(head.origin.encode()).hexdigest()
        path = self._folder / f"{name}.json"
        with _locked(self._folder / f"{name}.lock"):
            last = _read(path, head.origin)
            check_continues(submission, head, last)
            if last is None or head.size > last.size:
                content = {
                    "origin": head.origin,
                    "size": head.size,
                    "root": head.root.hex(),
                    "note": submission.note,
                }
                write_durably(path, json.dumps(content))

    def last(self, origin: str) -> Cosigned | None:
        """The last checkpoint of a log that was cosigned."""
        return _read(self._folder / f"{hashlib.sha256(origin.encode()).hexdigest()}.json", origin)


def _read(path: Path, origin: str) -> Cosigned | None:
    if not path.exists():
        return None
    content = json.loads(path.read_text("utf-8"))
    if content["origin"] != origin:
        raise ValueError(f"{path.name} is of another log")
    return Cosigned(int(content["size"]), bytes.fromhex(content["root"]), str(content["note"]))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
