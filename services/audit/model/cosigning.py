"""Witness cosignatures (C2SP tlog-cosignature, `cosignature/v1` with Ed25519) and the witness's one rule. Pure.

A cosignature says: at this time, this was the largest tree of this log that the witness had seen, and it continues
every smaller one that it saw.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.model.notes import (
    Note,
    NoteInvalid,
    SignatureLine,
    is_signed_by,
    key_id,
    parse_vkey,
    vkey_text,
)

_COSIGNATURE = b"\x04"
_LENGTH = 8 + 64


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """A key that cosignatures are checked with: the witness's name and 32 bytes."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """How signature lines name the key."""
        return key_id(self.name, _COSIGNATURE, self.public)

    def text(self) -> str:
        """The key as a vkey, with the algorithm of cosignatures."""
        return vkey_text(self.name, _COSIGNATURE, self.public)

    @classmethod
    def parse(cls, text: str) -> WitnessKey:
        """Read a vkey. Raises NoteInvalid."""
        return cls(*parse_vkey(text, _COSIGNATURE))


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A cosignature that was checked: when it was made (seconds since 1970), and its line with the newline."""

    witness: WitnessKey
    at: int
    line: str


class Cosigner:
    """Cosigns checkpoints under a witness's name. Its key never leaves it."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.witness = WitnessKey(name, key.public_key().public_bytes_raw())

    def cosign(self, checkpoint: str, at: int) -> str:
        """The signature line over a checkpoint's text, with its newline."""
        signature = struct.pack(">Q", at) + self._key.sign(signed_message(checkpoint, at))
        return SignatureLine(self.witness.name, self.witness.key_id, signature).text()


def signed_message(checkpoint: str, at: int) -> bytes:
    """What a cosignature signs: a header, the time, and the checkpoint's text without its signatures."""
    return f"cosignature/v1\ntime {at}\n{checkpoint}".encode()


def check_cosignature(checkpoint: str, line: SignatureLine, witness: WitnessKey) -> Cosignature:
    """A line as what `witness` cosigned. Raises NoteInvalid."""
    if (line.name, line.key_id) != (witness.name, witness.key_id):
        raise NoteInvalid("the cosignature is another witness's")
    if len(line.signature) != _LENGTH:
        raise NoteInvalid("the cosignature hasn't the length of one")
    (at,) = struct.unpack(">Q", line.signature[:8])
    if at >= 2**63 or not is_signed_by(witness.public, line.signature[8:], signed_message(checkpoint, at)):
        raise NoteInvalid("the cosignature is wrong")
    return Cosignature(witness, at, line.text())


def find_cosignature(note: str, lines: str, witness: WitnessKey) -> Cosignature:
    """What `witness` said of a signed checkpoint, among the lines of an answer. Raises NoteInvalid.

    Lines of keys that we don't know are ignored, as C2SP asks.
    """
    checkpoint = Note.parse(note).text
    for line in Note.parse(f"{checkpoint}\n{lines}").lines:
        if (line.name, line.key_id) == (witness.name, witness.key_id):
            return check_cosignature(checkpoint, line, witness)
    raise NoteInvalid("the witness's answer has no cosignature of its key")


def with_cosignatures(note: str, lines: Iterable[str]) -> str:
    """A signed checkpoint with cosignature lines after those of the log."""
    return note + "".join(lines)
