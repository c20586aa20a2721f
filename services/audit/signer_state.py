"""The signer's memory of one shard: the last head that it signed, in a file, written before a signature is given out.

There is no way to set it back: recovery after a restore is a new shard, not an older head.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from services._mesh.failpoints import reach
from services.audit.model.signing import Inconsistent, SignedHead


class SignerState:
    """The file. Written whole, synced, and renamed over the old one, so that a crash leaves one or the other.

    `newest` is the newest shard of which a head was signed, where the file says so: that of the first shard does.
    `opened` is the year in which the shard was opened, by the signer's own clock; 0 where it isn't known yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.head, self.newest, self.opened = self._read()

    def remember(self, head: SignedHead) -> None:
        """Make `head` the last one signed, durably. Raises OSError or Inconsistent, and then nothing was signed.

        Somebody else may have signed, or put another file in place: what this process knows isn't the memory then.
        """
        if self._read()[0] != self.head:
            raise Inconsistent(f"the memory in {self._path.name} isn't as the signer left it")
        self._write(head, self.newest)

    def tell_newest(self, shard: int) -> None:
        """Make `shard` the newest one of which a head was signed, durably. Raises OSError."""
        if shard > self.newest:
            self._write(self.head, shard)

    def begin(self, opened: int, newest: int = 0, head: SignedHead | None = None) -> None:
        """Make the file, which isn't there yet. Raises OSError."""
        self.opened = opened
        self._write(head or SignedHead(), newest)

    def _write(self, head: SignedHead, newest: int) -> None:
        content = json.dumps(
            {
                "size": head.size,
                "root": head.root.hex(),
                "note": head.note,
                "newest": newest,
                "opened": self.opened,
            }
        )
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
        self.head, self.newest = head, newest

    def _read(self) -> tuple[SignedHead, int, int]:
        if not self._path.exists():
            return SignedHead(), 0, 0
        content = json.loads(self._path.read_text("utf-8"))
        head = SignedHead(int(content["size"]), bytes.fromhex(content["root"]), str(content["note"]))
        # A memory from before it was kept: the shard was opened in the year of the last signature, or earlier.
        written = datetime.fromtimestamp(self._path.stat().st_mtime, UTC).year
        return head, int(content.get("newest", 0)), int(content.get("opened", written))
