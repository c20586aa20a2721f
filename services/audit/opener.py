"""Opens the payloads of events that are read, and says which of them were erased.

Keys are looked up for each page and kept nowhere: a destroyed one opens nothing from that moment on, in any process.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from services._mesh.database import Database, problem_of
from services.audit.kek import Kek, KeyBroken
from services.audit.model.entry_check import Content, Erased, PayloadRow, Unreadable, opened
from services.audit.model.events import CLEAR, SEALED, PayloadState, Recorded
from services.audit.model.sealing import SubjectKey, Unopenable, open_sealed
from services.audit.serving import Serving
from services.audit.store import keys as store

log = logging.getLogger(__name__)


class Opener:
    """Opens events of one organization at a time. `database` is under the role that reads keys within one."""

    def __init__(self, database: Database, kek: Kek, serving: Serving) -> None:
        self._database, self._kek, self._serving = database, kek, serving

    async def open(self, events: Sequence[Recorded]) -> list[Recorded]:
        """The events of one organization with their payloads, or with the state that says why there is none.

        Raises Unavailable while keys can't be used.
        """
        sealed = [event for event in events if event.key_id is not None]
        if not sealed:
            return list(events)
        (organization_id,) = {event.organization_id for event in events}
        rows = await self._rows(organization_id, {event.key_id for event in sealed if event.key_id})
        keys = await self._unwrapped([row for row in rows.values() if row.wrapped])
        return [_opened(event, rows, keys) for event in events]

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
        found = await self._rows(organization_id, wanted) if wanted else {}
        keys = await self._unwrapped([row for row in found.values() if row.wrapped])
        return [_content(row, event_id, found, keys) for row, event_id in rows]


def _content(
    row: PayloadRow, event_id: UUID, found: Mapping[UUID, store.KeyRow], keys: Mapping[UUID, SubjectKey]
) -> Content:
    if row.format != SEALED:
        return opened(row.format, row.content)
    known = found.get(row.key_id) if row.key_id else None
    if known is None:
        return Unreadable("key_id", "there is no such key")
    if not known.wrapped:
        return Erased(known.subject_hash)
    try:
        if (key := keys.get(known.key_id)) is None:
            raise Unopenable("its key doesn't open")
        return opened(CLEAR, open_sealed(key, event_id, row.content))
    except Unopenable as error:
        return Unreadable("content", str(error))


def _opened(event: Recorded, rows: Mapping[UUID, store.KeyRow], keys: Mapping[UUID, SubjectKey]) -> Recorded:
    if event.key_id is None:
        return event
    row, key = rows.get(event.key_id), keys.get(event.key_id)
    if row is not None and not row.wrapped:
        return replace(event, state=PayloadState.ERASED, content=b"")
    try:
        if key is None:
            raise Unopenable("its key is gone, and nobody erased it")
        return replace(event, format=CLEAR, content=open_sealed(key, event.event_id, event.content))
    except Unopenable as error:
        log.error("security: the payload of event %s can't be read: %s", event.event_id, error)
        return replace(event, state=PayloadState.UNREADABLE, content=b"")
