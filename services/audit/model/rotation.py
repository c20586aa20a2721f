"""Rotating the log's signing key: the new one joins, both sign for 30 days, the old one ends. Pure.

What changes is the manifest, which the offline root signs; where the old key ends is decided when it ends.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from services.audit.model.manifest import LOG, ListedKey, Manifest
from services.audit.model.notes import NoteInvalid, TreeHead
from services.audit.model.shards import place_of

OVERLAP = timedelta(days=30)


class CannotRotate(Exception):
    """The rotation can't be begun or ended now; says why, and when."""


def begin(manifest: Manifest, public: bytes, place: int) -> Manifest:
    """The manifest with a new log key, good from the size at `place` on, beside the one in force."""
    if len(manifest.in_force()) != 1:
        raise CannotRotate("a rotation is under way: end it first")
    if any(key.public == public for key in manifest.of(LOG)):
        raise CannotRotate("the new key is one of the log's already")
    return manifest.with_keys([*manifest.keys, ListedKey(LOG, public, place)])


def end(manifest: Manifest, place: int, begun_at: datetime, now: datetime) -> Manifest:
    """The manifest in which the older of the two keys in force ends: it signs no tree larger than that at `place`."""
    in_force = [key for key in manifest.of(LOG) if key.end is None]
    if len(in_force) != 2:
        raise CannotRotate("no rotation is under way")
    if now < begun_at + OVERLAP:
        raise CannotRotate(f"both keys sign for {OVERLAP.days} days: not before {begun_at + OVERLAP:%Y-%m-%dT%H:%MZ}")
    old, new = in_force
    if place < new.start:
        raise CannotRotate("the checkpoint is older than the new key")
    return manifest.with_keys(replace(key, end=place + 1) if key is old else key for key in manifest.keys)


def place_of_head(manifest: Manifest, head: TreeHead) -> int:
    """The place of a checkpoint's size in the manifest's log. Raises NoteInvalid."""
    name, shard = manifest.name, head.origin.removeprefix(f"{manifest.name}/")
    if head.origin == name:
        return place_of(0, head.size)
    if not head.origin.startswith(f"{name}/") or not shard.isdecimal() or str(int(shard)) != shard or shard == "0":
        raise NoteInvalid(f"{head.origin} isn't a tree of {name}")
    return place_of(int(shard), head.size)
