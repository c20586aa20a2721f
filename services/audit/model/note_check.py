"""Reads a stored checkpoint's note more strictly than C2SP asks: whoever isn't known has no line in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from services.audit.model.cosigning import WitnessKey, check_cosignature
from services.audit.model.faults import Fault
from services.audit.model.manifest import LOG, ListedKey, Manifest
from services.audit.model.notes import Note, NoteInvalid, SignatureLine, TreeHead, VerifierKey, is_signed_by
from services.audit.model.shards import place_of


@dataclass(frozen=True, slots=True)
class Held:
    """What is held outside of the log's database: its keys, and the note that was signed last (empty: not known)."""

    keys: Sequence[ListedKey]
    note: str = ""


@dataclass(frozen=True, slots=True)
class CosignatureRow:
    """A stored cosignature; `size` within its shard."""

    size: int
    witness: str
    line: str
    cosigned_at: datetime


def find_cosignature_fault(row: CosignatureRow, start: int, note: str | None) -> Fault | None:
    """What is wrong with a cosignature; `note` is the checkpoint of its size, `start` the place of its shard."""
    place = start + row.size - 1
    if note is None:
        return Fault(place, "cosignatures.place", "no checkpoint has this size")
    try:
        witness, line = WitnessKey.parse(row.witness), SignatureLine.parse(row.line.removesuffix("\n"))
        said = check_cosignature(Note.parse(note).text, line, witness)
    except NoteInvalid as error:
        return Fault(place, "cosignatures.line", str(error))
    if (said.witness.text(), said.line) != (row.witness, row.line):
        return Fault(place, "cosignatures.line", "it isn't spelled as one is")
    if row.cosigned_at != datetime.fromtimestamp(said.at, UTC):
        return Fault(place, "cosignatures.cosigned_at", "the cosignature says otherwise")
    return None


def cosignature_faults(start: int, notes: Mapping[int, str], cosigned: Sequence[CosignatureRow]) -> list[Fault]:
    """The faults of cosignatures, given the notes of the checkpoints by their sizes."""
    found = (find_cosignature_fault(row, start, notes.get(row.size)) for row in cosigned)
    return [fault for fault in found if fault is not None]


def log_keys(manifest: str, current: VerifierKey) -> list[ListedKey]:
    """The keys that sign checkpoints: those of the key manifest; of a first version's, the one in force."""
    try:
        return Manifest.parse(Note.parse(manifest).text).of(LOG)
    except NoteInvalid:
        return [ListedKey(LOG, current.public)]


def read_stored_note(note: str, keys: Sequence[ListedKey], shard: int) -> TreeHead:
    """The head of a shard's tree that a key of the log signed that is good there, and nobody but the log's keys did.

    A head that was signed in the moment in which a key ended carries that key's line, too. Raises NoteInvalid.
    """
    parsed = Note.parse(note)
    head = TreeHead.parse(parsed.text)
    if head.text() != parsed.text:
        raise NoteInvalid("the note has more than a checkpoint's three lines")
    signers = []
    for line in parsed.lines:
        named = (key for key in keys if VerifierKey(line.name, key.public).key_id == line.key_id)
        key = next(named, None) if line.name == head.origin else None
        if key is None:
            raise NoteInvalid(f"a signature is of a key that isn't the log's ({line.name})")
        if not is_signed_by(key.public, line.signature, parsed.text.encode()):
            raise NoteInvalid("a signature is wrong")
        signers.append(key.public)
    if not any(key.public in signers and key.covers(place_of(shard, head.size)) for key in keys):
        raise NoteInvalid("no key signed it that is the log's at this size")
    return head
