"""What is decided about scans."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services._mesh.context import current
from services._mesh.ids import uuid7
from services._mesh.jobs import Planner
from services._mesh.uow import Store, UnitOfWork
from services.scanner.model.connection import (
    ConnectionState,
)
from services.scanner.model.reading import units_of
from services.scanner.store import connections, scans
from services.scanner.usecases.kinds import EVIDENCE_PAGE, SCAN, require_evidence_grant, require_scanned, wrong_state
from services.scanner.usecases.rotation_rules import require_young

_UNDER_WAY = frozenset({"QUEUED", "RUNNING"})
# Whoever was let in isn't shown more for longer than a passport is good for.
_LOOK_SECONDS, _MOST_LOOKS = 1.0, 300


async def start_scan(work: UnitOfWork, planner: Planner, connection_id: UUID) -> Any:
    """Start a scan of a connection's whole scope. Raises NotFound, WrongState, AlreadyExists, Denied."""
    current().require_whole_connections()
    found = await connections.get_connection(work.connection, connection_id, lock=True)
    if found.state is not ConnectionState.ACTIVE:
        raise wrong_state("scanned", found.state, "ACTIVE")
    require_scanned(found)
    await require_young(work, found)
    scan_id = uuid7()
    units = len(units_of([a.account_id for a in found.accounts], found.regions))
    await scans.insert_scan(work.connection, work.organization_id, scan_id, connection_id, units, work.now)
    await work.enqueue(planner.plan(work.organization_id, SCAN, scan_id, work.now))
    work.emit("scanner.scan.start", f"scans/{scan_id}", {"connection_id": str(connection_id)})
    return await scans.get_scan(work.connection, scan_id)


async def get_scan(reader: Store, scan_id: UUID) -> tuple[Any, Sequence[Any]]:
    """A scan and the completeness records that it has so far. Raises NotFound."""
    async with reader.read() as connection:
        return await scans.get_scan(connection, scan_id), await scans.list_units(connection, [scan_id])


async def watch_scan(reader: Store, scan_id: UUID) -> AsyncIterator[tuple[Any, Sequence[Any]]]:
    """A scan as it stands, and again each time that it got further, until it is over. Raises NotFound."""
    last = None
    for _ in range(_MOST_LOOKS):
        found = await get_scan(reader, scan_id)
        if found != last:
            last = found
            yield found
        if found[0].state not in _UNDER_WAY:
            return
        await asyncio.sleep(_LOOK_SECONDS)


async def list_scans(
    reader: Store, before: UUID | None, limit: int, connection_id: UUID | None
) -> list[tuple[Any, Sequence[Any]]]:
    """Scans, newest first; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        rows = await scans.list_scans(connection, before, limit + 1, connection_id)
        units = await scans.list_units(connection, [row.scan_id for row in rows])
    return [(row, [unit for unit in units if unit.scan_id == row.scan_id]) for row in rows]


async def list_evidence_scans(
    reader: Store, begins_at: datetime, ends_at: datetime, after: UUID | None
) -> list[tuple[Any, Sequence[Any]]]:
    """A page of a period's scans with their completeness records, oldest first. Raises Denied (GRANT_INVALID)."""
    require_evidence_grant()
    async with reader.read() as connection:
        rows = await scans.list_scans_between(connection, begins_at, ends_at, after, EVIDENCE_PAGE)
        return [(row, await scans.list_units(connection, [row.scan_id])) for row in rows]
