"""Checks signed notes and tree heads, and reads inclusion proofs (C2SP signed-note, tlog-checkpoint, tlog-proof)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from recoup_verify.documents import CannotTell, Disproved, decode
from recoup_verify.tree import MAX_HASHES

_ALGORITHM = b"\x01"
_DASH = "\u2014 "
_PROOF = "c2sp.org/tlog-proof@v1"
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
        key = Key(name, raw[1:])
        genuine = bool(name) and raw[:1] == _ALGORITHM and len(key.public) == 32 and key.key_id.hex() == key_id
    except (ValueError, Disproved) as error:
        raise CannotTell("this isn't a verifier key: <name>+<id>+<base64>") from error
    if not genuine:
        raise CannotTell("this isn't an Ed25519 verifier key")
    return key


def key_of_origin(key: Key, origin: str) -> Key:
    """The key as it signs the tree of this origin: a later shard `<name>/<k>` has one of its own, and the same key."""
    shard = whole_number(origin.removeprefix(f"{key.name}/")) if origin.startswith(f"{key.name}/") else None
    return Key(origin, key.public) if shard else key


def is_signed_by(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the 32 bytes of an Ed25519 key verify the signature."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True)
class Head:
    """A tree head that the key signed."""

    origin: str
    size: int
    root: bytes


def verified_note(note: str, key: Key, what: str) -> str:
    """The text of a note that `key` signed, alone. Raises Disproved."""
    body, separator, signatures = note.rpartition("\n\n")
    if not separator or signatures.count("\n") != 1 or not signatures.endswith("\n"):
        raise Disproved(f"{what} isn't a note with one signature line")
    body += "\n"
    name, _, encoded = signatures.rstrip("\n").removeprefix(_DASH).partition(" ")
    raw = decode(encoded, f"{what}'s signature")
    if not signatures.startswith(_DASH) or name != key.name or raw[:4] != key.key_id:
        raise Disproved(f"{what} isn't signed by the key that you gave")
    if not is_signed_by(key.public, raw[4:], body.encode()):
        raise Disproved(f"{what}'s signature is wrong: its text was changed, or another key signed it")
    return body


def verified_head(note: str, key: Key, what: str = "the checkpoint") -> Head:
    """The tree head in a note that `key` signed, alone. Raises Disproved."""
    lines = verified_note(note, key, what).split("\n")
    size = whole_number(lines[1]) if len(lines) == 4 else None
    if size is None or lines[0] != key.name or lines[3]:
        raise Disproved(f"{what}'s text isn't a tree head of this log")
    root = decode(lines[2], f"{what}'s root")
    if len(root) != 32 or size == 0:
        raise Disproved(f"{what}'s root or size can't be")
    return Head(lines[0], size, root)


def whole_number(text: str) -> int | None:
    """A number from 0 to 2^63 - 1 in its one spelling, or None."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        return None
    number = int(text)
    return number if str(number) == text and number < 2**63 else None


@dataclass(frozen=True)
class Inclusion:
    """A C2SP tlog-proof: where the leaf stands, and how to come from there to the head, which isn't verified yet."""

    index: int
    hashes: Sequence[bytes]
    note: str


def parse_proof(text: str) -> Inclusion:
    """Read a tlog-proof in its one spelling, without an extra line. Raises Disproved."""
    top, separator, note = text.partition("\n\n")
    first, _, rest = top.partition("\n")
    numbered, *hashes = rest.split("\n")
    index = whole_number(numbered.removeprefix("index "))
    if not separator or first != _PROOF or not numbered.startswith("index ") or index is None:
        raise Disproved("the proof isn't a tlog-proof")
    if len(hashes) > MAX_HASHES:
        raise Disproved("the proof is longer than any tree is high")
    return Inclusion(index, [decode(item, "a hash of the proof") for item in hashes], note)
