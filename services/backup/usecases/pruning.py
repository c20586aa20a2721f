"""Deletes old backups, and lets the KEKs go that only these needed.

A backup is deleted manifest first and beginning last: killed at any moment, it is either whole, or an attempt without a
manifest, which the next run deletes. What holds up one, such as a lock of the storage, holds up no other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from services._mesh.failpoints import reach
from services._mesh.storage import StorageLocked
from services.backup.model.manifest import Header
from services.backup.store.registry import Known
from services.backup.usecases.creating import Tell
from services.backup.usecases.keeping import Keep


@dataclass(frozen=True, slots=True)
class Rule:
    """Which backups stay in any case: so many of the newest, and all that are no older than `age`."""

    keep: int
    age: timedelta


class Pruner:
    """`known` are the backups on record, the newest first, and `source` is what attempts call our databases."""

    def __init__(
        self, keep: Keep, known: Sequence[Known], source: str, forget: Callable[[UUID], Awaitable[None]], tell: Tell
    ) -> None:
        self._keep, self._known, self._source = keep, known, source
        self._forget, self._tell = forget, tell

    async def prune(self, rule: Rule, now: datetime, resume: timedelta, *, dry_run: bool) -> dict[str, Any]:
        """Delete what the rule lets go; says what was deleted and what was kept, with why."""
        whole = {UUID(Header.of_name(name)[0]): name for name in await self._keep.list_names()}
        # What is on record and was deleted by other means is none of the newest, and proves nothing.
        there = [each for each in self._known if each.backup_id in whole]
        deleted, kept = list[dict[str, str]](), list[dict[str, str]]()

        async def note(name: str, why: str, delete: Callable[[str], Awaitable[str]]) -> None:
            if not why and not dry_run:
                why = await delete(name)
            backup_id, begun_at = Header.of_name(name)
            said = {"backup_id": backup_id, "begun_at": begun_at.isoformat()}
            if why:
                kept.append({**said, "why": why})
            else:
                deleted.append(said)

        for backup_id, name in whole.items():
            await note(name, _why_kept(backup_id, there, rule, now), self._delete)
        for attempt in await self._left_behind(now - resume):
            await note(attempt.name, "", self._delete_rest)
        return {"deleted": deleted, "kept": kept, "dry_run": dry_run}

    async def _left_behind(self, before: datetime) -> list[Header]:
        """Attempts of ours that nobody goes on with."""
        known = {each.backup_id for each in self._known}
        return [
            each
            for each in await self._keep.list_unfinished()
            if each.begun_at < before and (each.source == self._source or each.backup_id in known)
        ]

    async def _delete(self, name: str) -> str:
        """Delete a whole backup; why it stays, where it does."""
        try:
            await self._keep.delete_manifest(name)
        except StorageLocked as locked:
            return f"the storage keeps it ({locked})"
        reach("backup.unmade")
        return await self._delete_rest(name)

    async def _delete_rest(self, name: str) -> str:
        backup_id, _ = Header.of_name(name)
        try:
            parts = await self._keep.delete_rest(name)
        except StorageLocked as locked:
            return f"it is no backup any more, but the storage keeps some of it ({locked})"
        self._tell(f"deleted {backup_id}: {parts} parts")
        # Only now: until all of it is gone, somebody may still need its KEKs to open it.
        await self._forget(UUID(backup_id))
        return ""


def _why_kept(backup_id: UUID, there: Sequence[Known], rule: Rule, now: datetime) -> str:
    """Why a backup stays; empty where it may go. `there` are those on record, the newest first."""
    places = [each.backup_id for each in there]
    if backup_id not in places:
        return "it isn't on record here"
    place = places.index(backup_id)
    if place < rule.keep:
        return "it is among the newest"
    if backup_id == next((each.backup_id for each in there if each.verified_at is not None), None):
        return "it is the newest that was verified"
    if now - there[place].taken_at <= rule.age:
        return "it is young enough"
    return ""
