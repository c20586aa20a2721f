"""The log for tests: its one sequencer on a real database, and events as producers make them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import rfc8785

from services._mesh.clock import Clock
from services.audit.model.actors import actor_hash
from services.audit.model.alarms import Note, only_log
from services.audit.model.events import Produced
from services.audit.sequencer import Sequencer
from tests.support.postgres import TestDatabase

LOG = "recoup-test.local.invalid/log"
ACTORS = actor_hash(bytes(range(32)))
ACME, GLOBEX = UUID(int=1), UUID(int=2)


def event(counter: int, organization: UUID = ACME, action: str = "identity.member.add", **changes: object) -> Produced:
    """An event of identity, but for what is changed in its payload."""
    event_id = uuid4()
    content: dict[str, Any] = {
        "v": 1,
        "event_id": str(event_id),
        "organization_id": str(organization),
        "action": action,
        "target": "members/1",
        "result": "OK",
        "actor": "user:1",
        "responsible_person": "",
        "role": "ADMIN",
        "occurred_at": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "request_id": "r",
        "trace_id": "",
        "authority": f"passport:{uuid4()}",
        "metadata": {},
        **changes,
    }
    return Produced(event_id, organization, counter, rfc8785.dumps(content))


@asynccontextmanager
async def sequencer(
    database: TestDatabase, note: Note = only_log, clock: Clock | None = None
) -> AsyncIterator[Sequencer]:
    """A sequencer in force, and its task."""
    role = database.role("audit_sequencer")
    made = Sequencer(role, clock or Clock(), LOG, ACTORS, note)
    await made.take_over()
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await role.close()
