"""Reads a stored checkpoint's note more strictly than C2SP asks: whoever isn't known has no line in it. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from services.audit.model.manifest import LOG, ListedKey, Manifest
from services.audit.model.notes import Note, NoteInvalid, TreeHead, VerifierKey, is_signed_by
from services.audit.model.shards import place_of


def log_keys(manifest: str, current: VerifierKey) -> list[ListedKey]:
    """The keys that sign checkpoints: those of the key manifest; of a first version's, the one in force."""
    try:
        return Manifest.parse(Note.parse(manifest).text).of(LOG)
    except NoteInvalid:
        return [ListedKey(LOG, current.public)]


def read_stored_note(note: str, keys: Sequence[ListedKey], shard: int) -> TreeHead:
    """The head of a shard's tree that keys of the log signed that are good there, and nobody else did.

    Raises NoteInvalid.
    """
    parsed = Note.parse(note)
    head = TreeHead.parse(parsed.text)
    if head.text() != parsed.text:
        raise NoteInvalid("the note has more than a checkpoint's three lines")
    good = [key for key in keys if key.covers(place_of(shard, head.size))]
    named = [VerifierKey(head.origin, key.public) for key in good]
    for line in parsed.lines:
        key = next((each for each in named if (each.name, each.key_id) == (line.name, line.key_id)), None)
        if key is None:
            raise NoteInvalid(f"a signature is of a key that isn't the log's at this size ({line.name})")
        if not is_signed_by(key.public, line.signature, parsed.text.encode()):
            raise NoteInvalid("a signature is wrong")
    return head
