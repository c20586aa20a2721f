"""Who appends while the nemesis is about: producers of their own, services' transactions, people, and a replayer."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import grpc.aio
import httpx

from recoup.audit.v1 import audit_pb2, audit_service_pb2_grpc
from recoup.audit.v1 import audit_service_pb2 as pb
from recoup_local.embedded.postgres import PostgresHandle, connect
from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh
from services._mesh.uow import Store
from tests.support.log import event
from tests.support.nemesis.history import Acknowledged, Answered, Committed, History

CALL_SECONDS = 5.0
PAUSE_SECONDS = 0.1
# What a call fails with while its other side is away; anything else is a fault that the test must show.
_AWAY = (OSError, TimeoutError, grpc.aio.AioRpcError, httpx.HTTPError, asyncpg.PostgresError, asyncpg.InterfaceError)


@dataclass
class Load:
    """Everybody who appends, until told to stop; then each finishes what it began."""

    history: History
    random: Random
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    tried: int = 0
    failed: int = 0

    def start(self, *work: Callable[[], Coroutine[Any, Any, None]]) -> list[asyncio.Task[None]]:
        """Start a task for each."""
        return [asyncio.create_task(each()) for each in work]

    async def rest(self) -> None:
        """A moment between two calls."""
        await asyncio.sleep(self.random.uniform(0, 2 * PAUSE_SECONDS))


class Producer:
    """Appends under a process's certificate in organizations of its own: also twice, and also the later before the
    earlier. What isn't acknowledged is sent until it is."""

    def __init__(self, load: Load, name: str, channels: Sequence[grpc.aio.Channel], organizations: int = 4) -> None:
        self._load, self._name = load, name
        self._stubs = [audit_service_pb2_grpc.AuditServiceStub(channel) for channel in channels]
        self._counters = {uuid4(): 0 for _ in range(organizations)}
        self._kept: list[list[audit_pb2.ProducedEvent]] = []

    async def run(self) -> None:
        """Append until told to stop."""
        while not self._load.stopping.is_set():
            batches = [self._batch() for _ in range(self._load.random.choice((1, 1, 2, 3)))]
            if self._load.random.random() < 0.3:
                batches.reverse()
            if self._kept and self._load.random.random() < 0.3:
                batches.append(self._load.random.choice(self._kept))
            for batch in batches:
                await self._until_taken(batch)
                self._kept = [*self._kept[-50:], batch]
            await self._load.rest()

    def _batch(self) -> list[audit_pb2.ProducedEvent]:
        organization = self._load.random.choice(list(self._counters))
        batch = []
        for _ in range(self._load.random.randint(1, 20)):
            self._counters[organization] += 1
            made = event(self._counters[organization], organization, f"{self._name}.nemesis.append")
            batch.append(_message(made.event_id, made.organization_id, made.producer_counter, made.payload))
        return batch

    async def _until_taken(self, batch: Sequence[audit_pb2.ProducedEvent]) -> None:
        while True:
            self._load.tried += 1
            stub = self._load.random.choice(self._stubs)
            try:
                answer = await stub.AppendEvents(pb.AppendEventsRequest(events=batch), timeout=CALL_SECONDS)
            except grpc.aio.AioRpcError:
                self._load.failed += 1
                await self._load.rest()
                continue
            for each, index in zip(batch, answer.indexes, strict=True):
                self._load.history.acknowledged.append(
                    Acknowledged(
                        self._name, UUID(each.organization_id), each.producer_counter, UUID(each.event_id), index
                    )
                )
            return


class Transactions:
    """A service's transactions, each with an event, in organizations of their own; its process relays them."""

    def __init__(self, load: Load, store: Store, organizations: int = 8) -> None:
        self._load, self._store = load, store
        self._organizations = [uuid4() for _ in range(organizations)]

    async def run(self) -> None:
        """Commit until told to stop. Whether one that failed was committed isn't known, and isn't recorded."""
        while not self._load.stopping.is_set():
            organization = self._load.random.choice(self._organizations)
            self._load.tried += 1
            try:
                async with asyncio.timeout(CALL_SECONDS), self._store.begin(organization) as work:
                    event_id = work.emit(f"{self._store.schema}.nemesis.write", "things/1")
                self._load.history.committed.append(Committed(self._store.schema, organization, event_id))
            except Exception:
                self._load.failed += 1
            await self._load.rest()


class Administrator:
    """Somebody who renames their organization at the edge, again and again, each time under a request id."""

    def __init__(self, load: Load, mesh: LocalMesh, organization: str) -> None:
        self._load, self._mesh, self._token = load, mesh, mesh.token(organization, "Admin")
        self._organization = organization_id(organization)
        self._path = f"/v1/organizations/{self._organization}"

    async def run(self) -> None:
        """Rename until told to stop; what failed is tried again as the same request."""
        trusted = ssl.create_default_context(cafile=str(self._mesh.installation.ca.cert_file))
        headers = {"authorization": f"Bearer {self._token}"}
        async with httpx.AsyncClient(
            base_url=self._mesh.gateway_url, verify=trusted, headers=headers, timeout=CALL_SECONDS
        ) as client:
            while not self._load.stopping.is_set():
                request_id, name = str(uuid4()), f"Renamed {self._load.random.randint(1, 10**6)}"
                with contextlib.suppress(*_AWAY):
                    await self._rename(client, name, request_id)
                await self._load.rest()

    async def _rename(self, client: httpx.AsyncClient, name: str, request_id: str) -> None:
        self._load.tried += 1
        read = await client.get(self._path)
        if read.status_code != 200:
            self._load.failed += 1
            return
        body = {"displayName": name, "etag": read.json()["organization"]["etag"]}
        for _ in range(3):
            answer = await client.patch(self._path, json=body, headers={"idempotency-key": request_id})
            if answer.status_code == 200:
                action = "identity.organization.update"
                self._load.history.answered.append(Answered(self._organization, action, request_id))
                return
            self._load.failed += 1
            await self._load.rest()


class Replayer:
    """Appends what a producer's outbox holds, relayed or not, in any order: duplicates that race with the relay."""

    def __init__(self, load: Load, name: str, channel: grpc.aio.Channel, handle: PostgresHandle) -> None:
        self._load, self._name, self._handle = load, name, handle
        self._stub = audit_service_pb2_grpc.AuditServiceStub(channel)

    async def run(self) -> None:
        """Replay until told to stop."""
        while not self._load.stopping.is_set():
            with contextlib.suppress(*_AWAY):
                await self._replay()
            await asyncio.sleep(0.3)

    async def _replay(self) -> None:
        connection = await connect(self._handle)
        try:
            rows = await connection.fetch(
                "SELECT event_id, organization_id, counter, payload"
                f" FROM {self._name}.outbox ORDER BY event_id DESC LIMIT 40"
            )
        finally:
            await connection.close()
        events = [_message(*row) for row in rows]
        self._load.random.shuffle(events)
        answer = await self._stub.AppendEvents(pb.AppendEventsRequest(events=events), timeout=CALL_SECONDS)
        for each, index in zip(events, answer.indexes, strict=True):
            self._load.history.acknowledged.append(
                Acknowledged(self._name, UUID(each.organization_id), each.producer_counter, UUID(each.event_id), index)
            )


def _message(event_id: UUID, organization_id: UUID, counter: int, payload: bytes) -> audit_pb2.ProducedEvent:
    return audit_pb2.ProducedEvent(
        event_id=str(event_id), organization_id=str(organization_id), producer_counter=counter, payload=payload
    )
