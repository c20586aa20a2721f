"""The key manifest (verifier/FORMAT.md, recoup-keys/v2): which keys are good for which part of the log, and witnesses.

The offline root signs it, and each of the log's keys in force agrees. Pure.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from services.audit.model.cosigning import WitnessKey
from services.audit.model.notes import (
    Note,
    NoteInvalid,
    Signer,
    VerifierKey,
    decode_base64,
    is_signed_by,
    parse_size,
)
from services.audit.model.shards import SHARD_SIZE, place_of, split

VERSION = "recoup-keys/v2"
LOG, RECEIPT, EVIDENCE = "log", "receipt", "evidence"
_OPEN = "-"


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key, its use, and the places from `start` to before `end` that it is good for (None: no end yet)."""

    use: str
    public: bytes
    start: int = 0
    end: int | None = None

    def covers(self, place: int) -> bool:
        """Whether it is good there: of a log's key a tree's size, of the others a leaf."""
        return self.start <= place and (self.end is None or place < self.end)

    def line(self) -> str:
        """Its line, with the newline."""
        end = _OPEN if self.end is None else _spelled(self.end)
        return f"{self.use} ed25519 {base64.b64encode(self.public).decode()} {_spelled(self.start)} {end}\n"

    @classmethod
    def parse(cls, line: str) -> ListedKey:
        """Read a line. Raises NoteInvalid."""
        words = line.split(" ")
        if len(words) != 5 or words[1] != "ed25519":
            raise NoteInvalid(f"a line of the key manifest can't be: {line}")
        public, start = decode_base64(words[2], "a key of the manifest"), _place(words[3])
        end = None if words[4] == _OPEN else _place(words[4])
        if len(public) != 32 or (end is not None and end <= start):
            raise NoteInvalid(f"a line of the key manifest can't be: {line}")
        return cls(words[0], public, start, end)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the manifest of the log `name` says."""

    name: str
    root: VerifierKey
    keys: Sequence[ListedKey]
    witnesses: Sequence[WitnessKey] = ()
    quorum: int = 0

    def of(self, use: str) -> list[ListedKey]:
        """The keys of a use, in their order."""
        return [key for key in self.keys if key.use == use]

    def in_force(self) -> list[VerifierKey]:
        """The log's keys without an end."""
        return [VerifierKey(self.name, key.public) for key in self.of(LOG) if key.end is None]

    def text(self) -> str:
        """The text that is signed."""
        keys = "".join(key.line() for use in (LOG, RECEIPT, EVIDENCE) for key in self.of(use))
        witnesses = "".join(f"witness {witness.text()}\n" for witness in self.witnesses)
        return f"{self.name}/keys\n{VERSION}\nroot {self.root.text()}\n{keys}{witnesses}quorum {self.quorum}\n"

    def with_keys(self, keys: Iterable[ListedKey]) -> Manifest:
        """The same with other keys."""
        return replace(self, keys=tuple(keys))

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """Read a manifest's text. Raises NoteInvalid."""
        top, version, *lines = [*text.split("\n"), "", ""][:-2] or ["", ""]
        if version != VERSION or not top.endswith("/keys") or text[-1:] != "\n":
            raise NoteInvalid(f"this isn't a key manifest of {VERSION}")
        name, said = top.removesuffix("/keys"), [line.partition(" ") for line in lines if line]
        roots = [VerifierKey.parse(rest) for use, _, rest in said if use == "root"]
        quorums = [parse_size(rest) for use, _, rest in said if use == "quorum"]
        keys = [ListedKey.parse(f"{use} {rest}") for use, _, rest in said if use in (LOG, RECEIPT, EVIDENCE)]
        witnesses = [WitnessKey.parse(rest) for use, _, rest in said if use == "witness"]
        if len(roots) != 1 or len(quorums) != 1 or roots[0].name != f"{name}/root":
            raise NoteInvalid("the key manifest names one root, <name>/root, and one quorum")
        found = cls(name, roots[0], tuple(keys), tuple(witnesses), quorums[0] if quorums[0] is not None else -1)
        if any(len({*parts}) != len(witnesses) for parts in zip(*((w.name, w.public) for w in witnesses), strict=True)):
            raise NoteInvalid("the key manifest names a witness twice: each has one name and one key")
        if found.text() != text or not 0 <= found.quorum <= len(witnesses) or not found.of(LOG):
            raise NoteInvalid("the key manifest isn't spelled as one is, or can't be")
        return found


def signed_manifest(note: str, root: VerifierKey) -> Manifest:
    """The manifest in a note that the root signed. Raises NoteInvalid."""
    parsed = Note.parse(note)
    by_root = [line.signature for line in parsed.lines if (line.name, line.key_id) == (root.name, root.key_id)]
    if not by_root or not all(is_signed_by(root.public, each, parsed.text.encode()) for each in by_root):
        raise NoteInvalid("the key manifest isn't signed by the root")
    found = Manifest.parse(parsed.text)
    if found.root != root:
        raise NoteInvalid("the key manifest names another root than the one that signed it")
    return found


def sign_manifest(manifest: Manifest, signers: Iterable[Signer]) -> str:
    """The note of a manifest, signed by the root or by log keys, in this order."""
    text = manifest.text()
    return f"{text}\n" + "".join(Note.parse(signer.sign(text)).lines[0].text() for signer in signers)


def agreed(note: str, signers: Iterable[Signer]) -> str:
    """A manifest that the root signed, with the lines of the log's keys in force after the root's."""
    parsed = Note.parse(note)
    lines = [Note.parse(signer.sign(parsed.text)).lines[0].text() for signer in signers]
    return f"{parsed.text}\n{parsed.lines[0].text()}" + "".join(lines)


def find_policy(note: str) -> tuple[Sequence[WitnessKey], int]:
    """The witnesses of a manifest, whoever signed it, and how many of them must cosign; none in version 1."""
    try:
        found = Manifest.parse(Note.parse(note).text)
    except NoteInvalid:
        return (), 0
    return found.witnesses, found.quorum


def _spelled(place: int) -> str:
    shard, number = split(place)
    return f"{shard}:{number}"


def _place(text: str) -> int:
    shard, _, number = text.partition(":")
    found = parse_size(shard), parse_size(number)
    if found[0] is None or found[1] is None or found[1] >= SHARD_SIZE:
        raise NoteInvalid(f"{text} isn't a place of the log")
    return place_of(found[0], found[1])
