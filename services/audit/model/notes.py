"""Signed notes and checkpoints (C2SP signed-note and tlog-checkpoint), with Ed25519.

A note is a text that ends in a newline, an empty line, and signature lines "— <name> <base64(key id ‖ signature)>".
Signatures of keys that we don't know are ignored, so that keys can be rotated and witnesses added.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ED25519 = b"\x01"
_SEPARATOR = "\n\n"
_DASH = "\u2014 "


class NoteInvalid(Exception):
    """The note isn't one, or isn't signed by the key."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A key that notes are checked with: its name and 32 bytes."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The first four bytes of SHA-256(name ‖ newline ‖ algorithm ‖ key): a hint, not a proof."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def text(self) -> str:
        """The key as a vkey: "<name>+<key id in hexadecimal>+<base64(algorithm ‖ key)>"."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read a vkey. Raises NoteInvalid."""
        try:
            name, key_id, encoded = text.strip().split("+", 2)
            raw = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raise NoteInvalid("this isn't a verifier key") from None
        key = cls(name, raw[1:])
        if raw[:1] != _ED25519 or len(key.public) != 32 or key.key_id.hex() != key_id or not name:
            raise NoteInvalid("this isn't an Ed25519 verifier key")
        return key


class Signer:
    """Signs notes under a name. Its key never leaves it."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.verifier_key = VerifierKey(name, key.public_key().public_bytes_raw())

    def sign(self, body: str) -> str:
        """The signed note of `body`, which must end in a newline."""
        if not body.endswith("\n"):
            raise ValueError("a note's text ends in a newline")
        signature = base64.b64encode(self.verifier_key.key_id + self._key.sign(body.encode())).decode()
        return f"{body}\n{_DASH}{self.verifier_key.name} {signature}\n"


def verify(note: str, key: VerifierKey) -> str:
    """The text of a note that `key` signed. Raises NoteInvalid."""
    body, separator, signatures = note.rpartition(_SEPARATOR)
    if not separator or not signatures.endswith("\n"):
        raise NoteInvalid("this isn't a signed note")
    body += "\n"
    for line in signatures.splitlines():
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error):
            raise NoteInvalid("a signature line can't be read") from None
        if not line.startswith(_DASH) or name != key.name or raw[:4] != key.key_id:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(raw[4:], body.encode())
        except InvalidSignature:
            raise NoteInvalid("the signature is wrong") from None
        return body
    raise NoteInvalid("the note isn't signed by this key")


@dataclass(frozen=True, slots=True)
class TreeHead:
    """A tree's origin, size and root: the text of a checkpoint."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The checkpoint's text (C2SP tlog-checkpoint)."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> TreeHead:
        """Read a checkpoint's text. Raises NoteInvalid."""
        lines = text.split("\n")
        try:
            origin, size, root = lines[0], lines[1], base64.b64decode(lines[2], validate=True)
        except (IndexError, ValueError, binascii.Error):
            raise NoteInvalid("this isn't a checkpoint") from None
        if not origin or not size.isdecimal() or str(int(size)) != size or len(root) != 32:
            raise NoteInvalid("this isn't a checkpoint")
        return cls(origin, int(size), root)
