"""audit.whole_path: a service's transactions, each with its event, until the log's index of each has come back.

Service transaction → outbox → relay → AppendEvents → index in the outbox, in several organizations at once: a counter
is a row of one producer in one organization. The floor commits one row of the same bytes, on 16 connections.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import asyncpg

from bench.log_mesh import event
from bench.measuring import Result, compare, resident_mib
from recoup_local.embedded.postgres import PostgresHandle, connect
from recoup_local.supervisor import LocalMesh
from services._mesh.clock import Clock
from services._mesh.config import load_settings
from services._mesh.database import Database
from services._mesh.uow import Store
from services.pricing.config import PricingSettings
from tests.support.mesh import soon

ORGANIZATIONS, WRITERS, EVENTS = 16, 16, 4000
FLOOR = f"single-row commits on {WRITERS} connections"


async def run(mesh: LocalMesh) -> Result:
    """Measure; beside it the memory of the producer and of the log."""
    settings = load_settings(PricingSettings, mesh.installation.config_file("pricing")).database
    assert settings is not None
    assert mesh.postgres is not None
    database = Database(settings, settings.user, settings.password_file, pool_size=WRITERS)
    handle = mesh.postgres
    store = Store(database, "pricing", Clock())
    try:

        async def subject() -> float:
            return await _whole_path(store, handle)

        async def floor() -> float:
            return await _floor(handle)

        result = await compare("audit.whole_path", "events/s", FLOOR, subject, floor)
    finally:
        await database.close()
    memory = {f"{name}'s memory after, MiB": resident_mib(mesh.pid(name)) for name in ("audit", "pricing")}
    return replace(result, facts=memory)


async def _whole_path(store: Store, handle: PostgresHandle) -> float:
    organizations = [uuid4() for _ in range(ORGANIZATIONS)]
    left = iter(range(EVENTS))

    async def writer(organization: UUID) -> None:
        for number in left:
            async with store.begin(organization) as work:
                work.emit("pricing.bench.write", f"bench/{number}", {"padding": "x" * 60})

    look = await connect(handle)
    try:
        began = time.perf_counter()
        await asyncio.gather(*(writer(organizations[place % ORGANIZATIONS]) for place in range(WRITERS)))
        await soon(lambda: _returned(look, organizations))
        return EVENTS / (time.perf_counter() - began)
    finally:
        await look.close()


async def _returned(look: asyncpg.Connection, organizations: Sequence[UUID]) -> bool | None:
    waiting = "SELECT FROM pricing.outbox WHERE organization_id = ANY($1) AND log_index IS NULL LIMIT 1"
    return True if await look.fetchrow(waiting, organizations) is None else None


async def _floor(handle: PostgresHandle) -> float:
    connections = [await connect(handle) for _ in range(WRITERS)]
    payload = event(uuid4(), 1).payload
    left = iter(range(EVENTS))

    async def writer(connection: asyncpg.Connection) -> None:
        for _ in left:
            await connection.execute("INSERT INTO bench_single VALUES ($1, $2)", uuid4(), payload)

    try:
        await connections[0].execute(
            "CREATE TABLE IF NOT EXISTS bench_single (id uuid PRIMARY KEY, payload bytea NOT NULL)"
        )
        began = time.perf_counter()
        await asyncio.gather(*(writer(connection) for connection in connections))
        return EVENTS / (time.perf_counter() - began)
    finally:
        for connection in connections:
            await connection.close()
