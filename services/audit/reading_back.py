"""Reads a closed shard's archive back, object by object, and compares all of it with the signed head.

It trusts nothing of the database but the head: the tree is rebuilt from the entries in the archive.
"""

from __future__ import annotations

from services._mesh.storage import Missing, Storage
from services.audit.model.archive import (
    ArchiveDiffers,
    Rebuilding,
    bundle_object,
    checkpoint_object,
    is_of_note,
    tile_object,
)
from services.audit.model.events import Checkpoint
from services.audit.model.notes import NoteInvalid, TreeHead
from services.audit.model.tiles import WIDTH, Tile, read_bundle


async def read_back(storage: Storage, origin: str, head: Checkpoint) -> int:
    """Check the archive of a tree against its signed head; returns how many objects were read.

    Raises ArchiveDiffers that names the first object which isn't what it must be, StorageFailed.
    """
    tree, objects = Rebuilding(), 1
    kept = await _read(storage, checkpoint_object(origin, head.size))
    if not is_of_note(kept, head.note) or _head_of(head.note) != TreeHead(origin, head.size, head.root):
        raise ArchiveDiffers(f"{checkpoint_object(origin, head.size)} isn't the signed head")
    for first in range(0, head.size, WIDTH):
        name = bundle_object(origin, Tile(0, first // WIDTH, min(WIDTH, head.size - first)))
        for entry in _entries(name, await _read(storage, name), min(WIDTH, head.size - first)):
            for tile, octets in tree.add(entry):
                await _compare(storage, tile_object(origin, tile), octets)
                objects += 1
        objects += 1
    for tile, octets in tree.rest():
        await _compare(storage, tile_object(origin, tile), octets)
        objects += 1
    if tree.root() != head.root:
        raise ArchiveDiffers(f"the entries of {origin} give the root {tree.root().hex()}, not {head.root.hex()}")
    return objects


def _head_of(note: str) -> TreeHead | None:
    try:
        return TreeHead.parse(note.partition("\n\n")[0] + "\n")
    except NoteInvalid:
        return None


def _entries(name: str, content: bytes, count: int) -> list[bytes]:
    try:
        entries = read_bundle(content)
    except ValueError as error:
        raise ArchiveDiffers(f"{name}: {error}") from error
    if len(entries) != count:
        raise ArchiveDiffers(f"{name} holds {len(entries)} entries instead of {count}")
    return entries


async def _compare(storage: Storage, name: str, octets: bytes) -> None:
    if await _read(storage, name) != octets:
        raise ArchiveDiffers(f"{name} isn't what the entries below it give")


async def _read(storage: Storage, name: str) -> bytes:
    try:
        return await storage.get(name)
    except Missing as error:
        raise ArchiveDiffers(f"{name} is missing") from error
