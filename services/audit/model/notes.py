"""Signed notes and checkpoints (C2SP signed-note and tlog-checkpoint), with Ed25519.

A note is a text that ends in a newline, an empty line, and signature lines "— <name> <base64(key id ‖ signature)>".
Signatures of keys that we don't know are ignored, so that keys can be rotated and witnesses added.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_ED25519 = b"\x01"
_SEPARATOR = "\n\n"
_DASH = "\u2014 "
# C2SP asks for 16 at least; one of ML-DSA is 5 kB.
MAX_SIGNATURES = 32
_NAME = re.compile(r"[^\s+]{1,255}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


class NoteInvalid(Exception):
    """The note isn't one, or isn't signed by the key."""


def key_id(name: str, algorithm: bytes, public: bytes) -> bytes:
    """The first four bytes of SHA-256(name ‖ newline ‖ algorithm ‖ key): a hint, not a proof."""
    return hashlib.sha256(name.encode() + b"\n" + algorithm + public).digest()[:4]


def vkey_text(name: str, algorithm: bytes, public: bytes) -> str:
    """A key as a vkey: "<name>+<key id in hexadecimal>+<base64(algorithm ‖ key)>"."""
    return f"{name}+{key_id(name, algorithm, public).hex()}+{base64.b64encode(algorithm + public).decode()}"


def parse_vkey(text: str, algorithm: bytes) -> tuple[str, bytes]:
    """The name and the 32 bytes of a vkey of this algorithm. Raises NoteInvalid."""
    try:
        name, hinted, encoded = text.strip().split("+", 2)
    except ValueError:
        raise NoteInvalid("this isn't a verifier key") from None
    raw = decode_base64(encoded, "the verifier key")
    public = raw[1:]
    if raw[:1] != algorithm or len(public) != 32 or not _NAME.fullmatch(name):
        raise NoteInvalid("this isn't an Ed25519 verifier key of this kind")
    if key_id(name, algorithm, public).hex() != hinted:
        raise NoteInvalid("the verifier key's id isn't that of its name and key")
    return name, public


def decode_base64(text: str, what: str) -> bytes:
    """Base64 in its one spelling. Raises NoteInvalid."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise NoteInvalid(f"{what} isn't base64") from None
    if base64.b64encode(raw).decode() != text:
        raise NoteInvalid(f"{what} isn't canonical base64")
    return raw


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A key that notes are checked with: its name and 32 bytes."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """How signature lines name the key."""
        return key_id(self.name, _ED25519, self.public)

    def text(self) -> str:
        """The key as a vkey."""
        return vkey_text(self.name, _ED25519, self.public)

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read a vkey. Raises NoteInvalid."""
        return cls(*parse_vkey(text, _ED25519))

    def named(self, name: str) -> VerifierKey:
        """The same key under another name: a log's key signs for its shards under each one's own origin."""
        return VerifierKey(name, self.public)


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature line of a note, not checked: whose it claims to be, and the bytes after the key id."""

    name: str
    key_id: bytes
    signature: bytes

    def text(self) -> str:
        """The line as it stands in a note, with its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"

    @classmethod
    def parse(cls, line: str) -> SignatureLine:
        """Read a line without its newline. Raises NoteInvalid."""
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        if not line.startswith(_DASH) or not _NAME.fullmatch(name):
            raise NoteInvalid("a signature line can't be read")
        raw = decode_base64(encoded, "a signature line")
        if len(raw) < 5:
            raise NoteInvalid("a signature line is too short")
        return cls(name, raw[:4], raw[4:])


@dataclass(frozen=True, slots=True)
class Note:
    """A note in its parts; nothing of it is checked."""

    text: str
    lines: Sequence[SignatureLine]

    @classmethod
    def parse(cls, note: str) -> Note:
        """Take a note apart. Raises NoteInvalid."""
        body, separator, signatures = note.rpartition(_SEPARATOR)
        if not separator or not signatures.endswith("\n") or _CONTROL.search(note):
            raise NoteInvalid("this isn't a signed note")
        lines = signatures[:-1].split("\n")
        if len(lines) > MAX_SIGNATURES:
            raise NoteInvalid(f"a note has at most {MAX_SIGNATURES} signatures")
        return cls(body + "\n", [SignatureLine.parse(line) for line in lines])


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
    parsed = Note.parse(note)
    signatures = [line.signature for line in parsed.lines if (line.name, line.key_id) == (key.name, key.key_id)]
    if not signatures:
        raise NoteInvalid("the note isn't signed by this key")
    if not all(is_signed_by(key.public, signature, parsed.text.encode()) for signature in signatures):
        raise NoteInvalid("the signature is wrong")
    return parsed.text


def is_signed_by(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the 32 bytes of an Ed25519 key verify the signature."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


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
        origin, size, encoded, *_ = [*text.split("\n"), "", ""]
        number, root = parse_size(size), decode_base64(encoded, "the checkpoint's root")
        # Extension lines may follow, none of them empty; the text ends in a newline.
        if not origin or number is None or len(root) != 32 or not text.endswith("\n") or "\n\n" in text:
            raise NoteInvalid("this isn't a checkpoint")
        return cls(origin, number, root)


def parse_size(text: str) -> int | None:
    """A tree's size in its one decimal spelling, or None."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 19):
        return None
    number = int(text)
    return number if str(number) == text and number < 2**63 else None
