"""How a service's relay reaches the log: the append over mTLS, and the reconciler's comparison with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from uuid import UUID

import grpc
import grpc.aio
from sqlalchemy import text

from recoup.audit.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc
from services._mesh.database import Database, scope
from services._mesh.errors import from_rpc_error
from services._mesh.relay import Append, PendingEvent, digest_of

log = logging.getLogger(__name__)

APPEND_SECONDS = 10.0
RECONCILE_SECONDS = 30.0
_WINDOW = 5000

_ORGANIZATIONS = "SELECT organization_id, relayed FROM {schema}.outbox_counters WHERE relayed > 0"
_RELAYED = """
SELECT event_id FROM {schema}.outbox
WHERE organization_id = :organization_id AND counter BETWEEN :first AND :last ORDER BY counter
"""


def append_to(channel: grpc.aio.Channel) -> Append:
    """The append for a relay."""
    stub = audit_service_pb2_grpc.AuditServiceStub(channel)

    async def append(events: Sequence[PendingEvent]) -> Sequence[int]:
        request = audit_service_pb2.AppendEventsRequest(
            events=[
                audit_pb2.ProducedEvent(
                    event_id=str(event.event_id),
                    organization_id=str(event.organization_id),
                    producer_counter=event.counter,
                    payload=event.payload,
                )
                for event in events
            ]
        )
        try:
            answer = await stub.AppendEvents(request, timeout=APPEND_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "audit") from None
        return list(answer.indexes)

    return append


class Reconciler:
    """Compares what a service relayed with what the log holds, by count and digest, and names any difference."""

    def __init__(self, database: Database, schema: str, channel: grpc.aio.Channel) -> None:
        self._database, self._schema = database, schema
        self._stub = audit_service_pb2_grpc.AuditServiceStub(channel)
        self.missing: dict[UUID, list[str]] = {}

    async def run(self) -> None:
        """Compare until cancelled."""
        while True:
            await asyncio.sleep(RECONCILE_SECONDS)
            try:
                await self.round()
            except (grpc.aio.AioRpcError, OSError) as error:
                log.info("reconciling %s will be tried again: %s", self._schema, type(error).__name__)

    async def round(self) -> dict[UUID, list[str]]:
        """Compare the newest window of each organization; returns the event ids that differ, by organization."""
        async with self._database.unscoped() as connection:
            rows = (await connection.execute(text(_ORGANIZATIONS.format(schema=self._schema)))).all()
        self.missing = {}
        for row in rows:
            difference = await self._compare(row.organization_id, row.relayed)
            if difference:
                self.missing[row.organization_id] = difference
                log.error("security: %s and the log differ in the events %s", self._schema, ", ".join(difference[:10]))
        return self.missing

    async def _compare(self, organization_id: UUID, relayed: int) -> list[str]:
        first = max(1, relayed - _WINDOW + 1)
        async with self._database.unscoped() as connection:
            await scope(connection, organization_id)
            found = await connection.execute(
                text(_RELAYED.format(schema=self._schema)),
                {"organization_id": organization_id, "first": first, "last": relayed},
            )
            ours = [row.event_id for row in found]
        request = audit_service_pb2.SummarizeProducerRequest(
            organization_id=str(organization_id), from_counter=first, to_counter=relayed
        )
        theirs = await self._stub.SummarizeProducer(request, timeout=APPEND_SECONDS)
        expected = relayed - first + 1
        if theirs.count == len(ours) == expected and theirs.digest == digest_of(ours):
            return []
        request.include_event_ids = True
        named = set((await self._stub.SummarizeProducer(request, timeout=APPEND_SECONDS)).event_ids)
        different = sorted(named ^ {str(event_id) for event_id in ours})
        return different or [f"{expected - len(ours)} missing on both sides"]
