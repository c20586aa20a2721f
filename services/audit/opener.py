"""Opens the payloads of events that are read, and says which of them were erased: those that the log says so of.

Keys are looked up for each page and kept nowhere: a destroyed one opens nothing from that moment on, in any process.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from uuid import UUID

from services._mesh.database import Database, problem_of
from services.audit.kek import Kek, KeyBroken
from services.audit.model.alarms import Note, broken_key, only_log
from services.audit.model.entry_check import Content, Erased, PayloadRow, Unreadable, opened
from services.audit.model.events import CLEAR, SEALED, PayloadState, Recorded
from services.audit.model.sealing import SubjectKey, Unopenable, open_sealed
from services.audit.serving import Serving
from services.audit.store import keys as store
from services.audit.store.erasures import find_erased

log = logging.getLogger(__name__)


DESTROYED = "it was destroyed, and no erasure says so"


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of a page: as they stand, those that open, and those that were erased."""

    rows: Mapping[UUID, store.KeyRow]
    opened: Mapping[UUID, SubjectKey]
    erased: AbstractSet[UUID]

    def use(self, key_id: UUID | None) -> SubjectKey:
        """A key that wasn't erased. Raises Unopenable."""
        row = self.rows.get(key_id) if key_id else None
        if row is None:
            raise Unopenable("its key is gone, and nobody erased it")
        if not row.wrapped:
            raise Unopenable(f"of its key: {DESTROYED}")
        if (key := self.opened.get(row.key_id)) is None:
            raise Unopenable("its key doesn't open")
        return key


class Opener:
    """Opens events of one organization at a time.

    `database` is under the role that reads keys within one, `erasures` under one that reads erasures in the log's.
    """

    def __init__(
        self, database: Database, erasures: Database, kek: Kek, serving: Serving, note: Note = only_log
    ) -> None:
        self._database, self._erasures, self._kek, self._serving = database, erasures, kek, serving
        self._note = note

    async def open(self, events: Sequence[Recorded]) -> list[Recorded]:
        """The events of one organization with their payloads, or with the state that says why there is none.

        Raises Unavailable while keys can't be used.
        """
        sealed = [event for event in events if event.key_id is not None]
        if not sealed:
            return list(events)
        (organization_id,) = {event.organization_id for event in events}
        keys = await self._keys(organization_id, {event.key_id for event in sealed if event.key_id})
        return [_opened(event, keys) for event in events]

    async def _keys(self, organization_id: UUID, key_ids: set[UUID]) -> _Keys:
        if not key_ids:
            return _Keys({}, {}, set())
        rows = await self._rows(organization_id, key_ids)
        destroyed = [row for row in rows.values() if not row.wrapped]
        erased = await self._erased(organization_id, destroyed) if destroyed else set()
        alive = [row for row in rows.values() if row.wrapped]
        keys = _Keys(rows, await self._unwrapped(alive), erased)
        for row in destroyed:
            if row.key_id not in erased:
                self._note(broken_key(organization_id, row.key_id, DESTROYED))
        for row in alive:
            if row.key_id not in keys.opened:
                self._note(broken_key(organization_id, row.key_id))
        return keys

    async def _erased(self, organization_id: UUID, destroyed: Sequence[store.KeyRow]) -> set[UUID]:
        """Those that an erasure stands behind. Read after the keys: it is decided before it destroys any."""
        try:
            async with self._erasures.scoped(organization_id, read_only=True) as connection:
                named = [(row.key_id, row.erasure_id, row.subject_hash) for row in destroyed]
                return await find_erased(connection, named)
        except Exception as error:
            raise problem_of(error) or error from error

    async def _rows(self, organization_id: UUID, key_ids: set[UUID]) -> dict[UUID, store.KeyRow]:
        self._serving.require()
        try:
            async with self._database.scoped(organization_id, read_only=True) as connection:
                generation, rows = await store.find_keys(connection, key_ids)
        except Exception as error:
            raise problem_of(error) or error from error
        self._serving.holds(generation)
        return rows

    async def _unwrapped(self, rows: Sequence[store.KeyRow]) -> dict[UUID, SubjectKey]:
        """The keys that open, each by itself where not all of them do."""
        try:
            materials = await self._kek.unwrap([row.wrapped for row in rows], [row.context for row in rows])
        except KeyBroken:
            if len(rows) == 1:
                return {}
            return {key_id: key for row in rows for key_id, key in (await self._unwrapped([row])).items()}
        return {
            row.key_id: SubjectKey(row.organization_id, row.key_id, material)
            for row, material in zip(rows, materials, strict=True)
        }

    async def contents(self, organization_id: UUID, rows: Sequence[tuple[PayloadRow, UUID]]) -> list[Content]:
        """Payloads' rows of one organization, each with its event's id, for the self-check.

        Raises Unavailable while keys can't be used.
        """
        wanted = {row.key_id for row, _ in rows if row.format == SEALED and row.key_id is not None}
        keys = await self._keys(organization_id, wanted)
        return [_content(row, event_id, keys) for row, event_id in rows]


def _content(row: PayloadRow, event_id: UUID, keys: _Keys) -> Content:
    if row.format != SEALED:
        return opened(row.format, row.content)
    known = keys.rows.get(row.key_id) if row.key_id else None
    if known is None:
        return Unreadable("key_id", "there is no such key")
    if known.key_id in keys.erased:
        return Erased(known.subject_hash)
    if not known.wrapped:
        return Unreadable("key_id", DESTROYED)
    try:
        return opened(CLEAR, open_sealed(keys.use(known.key_id), event_id, row.content))
    except Unopenable as error:
        return Unreadable("content", str(error))


def _opened(event: Recorded, keys: _Keys) -> Recorded:
    if event.key_id is None:
        return event
    if event.key_id in keys.erased:
        return replace(event, state=PayloadState.ERASED, content=b"")
    try:
        content = open_sealed(keys.use(event.key_id), event.event_id, event.content)
        return replace(event, format=CLEAR, content=content)
    except Unopenable as error:
        log.error("security: the payload of event %s can't be read: %s", event.event_id, error)
        return replace(event, state=PayloadState.UNREADABLE, content=b"")
