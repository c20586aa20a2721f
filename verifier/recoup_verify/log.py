"""Checks signed tree heads (C2SP signed notes, Ed25519) and inclusion proofs (RFC 9162, section 2.1.3.2)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from recoup_verify.documents import CannotTell, Disproved, decode

_ALGORITHM = b"\x01"
_DASH = "\u2014 "
LOCAL = ".local.invalid"


@dataclass(frozen=True)
class Key:
    """A verifier key: its name, which is the log's origin, and 32 bytes."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """SHA-256(name ‖ newline ‖ algorithm ‖ key), the first four bytes."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ALGORITHM + self.public).digest()[:4]

    @property
    def is_local(self) -> bool:
        """Whether the key says of itself that it signs nothing that counts."""
        return LOCAL in self.name


def parse_key(text: str) -> Key:
    """A key as "<name>+<id>+<base64>". Raises CannotTell."""
    try:
        name, key_id, encoded = text.strip().split("+", 2)
        raw = decode(encoded, "the key")
    except (ValueError, Disproved) as error:
        raise CannotTell("this isn't a verifier key: <name>+<id>+<base64>") from error
    key = Key(name, raw[1:])
    if raw[:1] != _ALGORITHM or len(key.public) != 32 or key.key_id.hex() != key_id:
        raise CannotTell("this isn't an Ed25519 verifier key")
    return key


@dataclass(frozen=True)
class Head:
    """A tree head that the key signed."""

    origin: str
    size: int
    root: bytes


def verified_head(note: str, key: Key) -> Head:
    """The tree head in a note that `key` signed, alone. Raises Disproved."""
    body, separator, signatures = note.rpartition("\n\n")
    if not separator or signatures.count("\n") != 1 or not signatures.endswith("\n"):
        raise Disproved("the checkpoint isn't a note with one signature line")
    body += "\n"
    name, _, encoded = signatures.rstrip("\n").removeprefix(_DASH).partition(" ")
    raw = decode(encoded, "the checkpoint's signature")
    if not signatures.startswith(_DASH) or name != key.name or raw[:4] != key.key_id:
        raise Disproved("the checkpoint isn't signed by the key that you gave")
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(raw[4:], body.encode())
    except InvalidSignature:
        raise Disproved("the checkpoint's signature is wrong: its text was changed, or another key signed it") from None
    return _head(body, key)


def _head(body: str, key: Key) -> Head:
    lines = body.split("\n")
    if len(lines) != 4 or lines[0] != key.name or not lines[1].isdecimal() or str(int(lines[1])) != lines[1]:
        raise Disproved("the checkpoint's text isn't a tree head of this log")
    root = decode(lines[2], "the checkpoint's root")
    if len(root) != 32 or int(lines[1]) == 0:
        raise Disproved("the checkpoint's root or size can't be")
    return Head(lines[0], int(lines[1]), root)


def check_inclusion(leaf: bytes, index: int, proof: Sequence[bytes], head: Head) -> None:
    """Raise Disproved unless the proof leads from the leaf to the head's root."""
    if not 0 <= index < head.size:
        raise Disproved("the leaf's index is outside of the signed tree")
    if any(len(item) != 32 for item in proof):
        raise Disproved("a hash of the proof hasn't 32 bytes")
    position, last = index, head.size - 1
    digest = hashlib.sha256(b"\x00" + leaf).digest()
    for item in proof:
        if last == 0:
            raise Disproved("the proof is longer than the tree is high")
        if position & 1 or position == last:
            digest = hashlib.sha256(b"\x01" + item + digest).digest()
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            digest = hashlib.sha256(b"\x01" + digest + item).digest()
        position, last = position >> 1, last >> 1
    if last != 0 or digest != head.root:
        raise Disproved("the proof doesn't lead to the signed root: the leaf, its index or the proof was changed")
