"""Checks the key manifest: which receipt keys the log's own key vouches for, and for which part of the log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from recoup_verify.documents import Disproved, decode
from recoup_verify.log import Key, verified_note, whole_number

_VERSION = "recoup-keys/v1"
_USE, _ALGORITHM, _OPEN_END = "receipt", "ed25519", "-"


@dataclass(frozen=True)
class ReceiptKey:
    """A key that receipts are signed with, good for leaves from `start` to before `end` (None: no end yet)."""

    public: bytes
    start: int
    end: int | None

    @property
    def key_id(self) -> str:
        """SHA-256 of the key, hexadecimal: how envelopes name it."""
        return hashlib.sha256(self.public).hexdigest()

    def covers(self, index: int) -> bool:
        """Whether the key may sign a receipt whose issue is the log's leaf `index`."""
        return self.start <= index and (self.end is None or index < self.end)


def receipt_keys(manifest: str, key: Key) -> Mapping[str, ReceiptKey]:
    """The manifest's keys by id. Raises Disproved."""
    lines = verified_note(manifest, key, "the key manifest").split("\n")
    if lines[:2] != [f"{key.name}/keys", _VERSION] or len(lines) < 4 or lines[-1]:
        raise Disproved("the key manifest's text isn't that of this log")
    keys = [_key(line) for line in lines[2:-1]]
    if len({each.key_id for each in keys}) != len(keys):
        raise Disproved("the key manifest lists a key twice")
    return {each.key_id: each for each in keys}


def _key(line: str) -> ReceiptKey:
    words = line.split(" ")
    if len(words) != 5 or words[:2] != [_USE, _ALGORITHM]:
        raise Disproved("a line of the key manifest isn't a receipt key")
    public, start = decode(words[2], "a key of the key manifest"), whole_number(words[3])
    end = None if words[4] == _OPEN_END else whole_number(words[4])
    if len(public) != 32 or start is None or (end is None and words[4] != _OPEN_END):
        raise Disproved("a line of the key manifest can't be")
    if end is not None and end <= start:
        raise Disproved("a line of the key manifest can't be")
    return ReceiptKey(public, start, end)
