"""The signer's memory: the last head that it signed, in a file of its own, written before a signature is given out.

There is no way to set it back: recovery after a restore is a new shard, not an older head.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from services._mesh.failpoints import reach
from services.audit.model.signing import SignedHead


class SignerState:
    """The file. Written whole, synced, and renamed over the old one, so that a crash leaves one or the other."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.head = self._read()

    def remember(self, head: SignedHead) -> None:
        """Make `head` the last one signed, durably. Raises OSError, and then nothing was signed."""
        content = json.dumps({"size": head.size, "root": head.root.hex(), "note": head.note})
        beside = self._path.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, content.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        reach("sign.written")
        beside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.head = head

    def _read(self) -> SignedHead:
        if not self._path.exists():
            return SignedHead()
        content = json.loads(self._path.read_text("utf-8"))
        return SignedHead(int(content["size"]), bytes.fromhex(content["root"]), str(content["note"]))
