"""A log with its evidence service for tests: real database, real gRPC, real files; receipts and scans are given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from recoup.audit.v1.evidence_service_pb2_grpc import add_EvidenceServiceServicer_to_server
from services._mesh.context import entered
from services._mesh.database import Database
from services._mesh.grants import Grant
from services._mesh.ids import uuid7
from services._mesh.jobs import Planner
from services._mesh.pages import PageTokens
from services._mesh.threads import BoundedThreads
from services._mesh.uow import Store, UnitOfWork
from services.audit import exports
from services.audit.checkpointer import Checkpointer
from services.audit.clients_evidence import Log, Peers
from services.audit.evidence_files import EvidenceFolder
from services.audit.evidence_key import EvidenceKey
from services.audit.heads import HeadPublisher
from services.audit.model.events import Produced
from services.audit.model.evidence.documents import Scope
from services.audit.model.evidence.export import EXPORT_EVIDENCE, Export
from services.audit.model.manifest import EVIDENCE, LOG, ListedKey, Manifest, sign_manifest
from services.audit.model.notes import Signer
from services.audit.rpc_evidence import EvidenceRpc
from services.audit.sequencer import Sequencer
from services.audit.store import exports as rows
from services.audit.working import exporting
from services.audit.working.exporting import Tools
from tests.support import log
from tests.support.postgres import TestDatabase
from tests.support.sharded_log import ROOT, ShardedLog
from tests.support.things import MovableClock, context, keys, serving

DAY0 = datetime(2026, 1, 1, tzinfo=UTC)
AUDITOR = UUID(int=77)


class Given:
    """Receipts, scans and connections as their services would give them."""

    def __init__(self) -> None:
        self.scans_, self.connections_ = list[dict[str, Any]](), list[dict[str, Any]]()

    async def receipts(self, grant: Any, export: Export) -> AsyncIterator[Any]:
        """None: what makes a receipt is tested with the whole mesh."""
        nothing: list[Any] = []
        for each in nothing:
            yield each

    async def scans(self, grant: Any, export: Export) -> AsyncIterator[dict[str, Any]]:
        """The scans given."""
        for each in self.scans_:
            yield each

    async def connections(self, grant: Any, export: Export) -> AsyncIterator[dict[str, Any]]:
        """The connections given."""
        for each in self.connections_:
            yield each


class Leased:
    """A job whose lease nobody takes away."""

    def __init__(self, store: Store, export_id: UUID) -> None:
        self._store, self.subject_id, self.organization_id = store, export_id, log.ACME
        self.job_id, self.fence, self.attempt, self.grant = uuid7(), 1, 1, "grant"
        self.finished = False

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[UnitOfWork]:
        """A unit of work of the worker."""
        async with self._store.begin(self.organization_id) as work:
            yield work

    async def finish(self, work: UnitOfWork) -> None:
        """The job is done."""
        self.finished = True


@dataclass
class Evidence:
    """A log that signs its heads, an API that serves evidence, and its worker."""

    database: TestDatabase
    clock: MovableClock
    sequencer: Sequencer
    checkpointer: Checkpointer
    api: Store
    worker: Store
    planner: Planner
    tools: Tools
    given: Given
    verifier_key: str
    root_key: str
    export_id: list[UUID]
    folder: Path
    sequencing: Database
    counters: dict[tuple[str, UUID], int] = field(default_factory=dict)

    async def append(self, count: int, organization: UUID = log.ACME, **changes: Any) -> list[UUID]:
        """Append events of identity, one a minute from day 0 on, unless they say otherwise."""
        made = []
        for _ in range(count):
            key = ("identity", organization)
            self.counters[key] = number = self.counters.get(key, 0) + 1
            at = DAY0 + timedelta(minutes=number)
            said = {"occurred_at": at.isoformat(timespec="microseconds").replace("+00:00", "Z"), **changes}
            made.append(log.event(number, organization, **said))
        await exports_append(self.sequencer, made)
        return [each.event_id for each in made]

    async def start(self, scope: Scope | None = None, begins: datetime = DAY0, days: int = 30) -> Export:
        """Ask for a bundle of all that was appended, as an auditor."""
        await self.checkpointer.catch_up()
        with entered(context(log.ACME, "audit.evidence.start", actor=f"user:{AUDITOR}", role="AUDITOR")) as call:
            async with self.api.begin(log.ACME, call) as work:
                return await exports.start_evidence_export(
                    work, self.planner, scope or Scope(), begins, begins + timedelta(days=days)
                )

    async def publish_heads(self) -> None:
        """Have the organization heads published in the log."""
        async with self._relaying():
            await HeadPublisher(self.sequencing, self.api, self.checkpointer, self.clock, 60.0).publish()

    @asynccontextmanager
    async def _relaying(self) -> AsyncIterator[None]:
        relaying = asyncio.create_task(self._relay())
        try:
            yield
        finally:
            relaying.cancel()
            await asyncio.gather(relaying, return_exceptions=True)

    async def make(self, export: Export) -> Export:
        """Have the worker make it; how it stands afterwards."""
        self.export_id[:] = [export.export_id]
        job = Leased(self.worker, export.export_id)
        async with self._relaying():
            await exporting.export_evidence(self.tools, job)  # type: ignore[arg-type]
        assert job.finished
        return await self.read(export.export_id)

    async def read(self, export_id: UUID) -> Export:
        """How an export stands."""
        async with self.api.read(log.ACME) as connection:
            return await rows.get_export(connection, export_id)

    async def _relay(self) -> None:
        """Append what audit's own outbox holds, as its relay does."""
        superuser = await self.database.superuser()
        done: set[UUID] = set()
        try:
            while True:
                found = await superuser.fetch("SELECT * FROM audit.outbox ORDER BY organization_id, counter")
                fresh = [row for row in found if row["event_id"] not in done]
                for row in fresh:
                    made = Produced(row["event_id"], row["organization_id"], row["counter"], bytes(row["payload"]))
                    await exports_append(self.sequencer, [made], "audit")
                    done.add(row["event_id"])
                await asyncio.sleep(0.02)
        finally:
            await superuser.close()


async def exports_append(sequencer: Sequencer, made: Sequence[Any], producer: str = "identity") -> None:
    """Append events of a producer."""
    from services.audit import usecases

    for start in range(0, len(made), 1000):
        await usecases.append_events(sequencer, producer, made[start : start + 1000])


def _grant(export_id: UUID) -> Grant:
    return Grant(
        issuer="audit", audience=("audit",), presenter="x", organization_id=log.ACME, kind=EXPORT_EVIDENCE,
        subject=str(export_id), job_id=uuid7(), fence=1, number=1, issued_at=0, expires_at=1,
    )  # fmt: skip


@asynccontextmanager
async def running(database: TestDatabase, folder: Path, over: ShardedLog | None = None) -> AsyncIterator[Evidence]:
    """All of it, on one database; `over` is the log that it has already."""
    clock = over.clock if over else MovableClock()
    if over is None:
        clock.ahead = DAY0 + timedelta(days=40) - datetime.now(UTC)
    (signing, _) = keys(folder, "audit")
    vouching = Ed25519PrivateKey.generate()
    signer = Signer(log.LOG, log.KEY)
    listed = [ListedKey(LOG, log.KEY.public_key().public_bytes_raw()),
              ListedKey(EVIDENCE, vouching.public_key().public_bytes_raw())]  # fmt: skip
    manifest = Manifest(log.LOG, ROOT.verifier_key, listed)
    note = sign_manifest(manifest, [ROOT, signer])
    key_file = folder / "evidence.key"
    key_file.write_bytes(vouching.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key_file.chmod(0o600)
    bundles = folder / "bundles"
    bundles.mkdir()
    roles = [database.role(name) for name in ("audit_sequencer", "audit_api", "audit_worker")]
    sequencing, api, worker = roles
    threads = BoundedThreads(4, "evidence")
    async with AsyncExitStack() as stack:
        sequencer = await stack.enter_async_context(log.sequencer(database, clock=clock))
        checkpointer = await stack.enter_async_context(log.checkpointer(database, sequencer, folder, ROOT.verifier_key))

        async def key_manifest() -> str:
            return note

        store, evidence = Store(api, "audit", clock), EvidenceFolder(bundles, threads)
        planner, pages = Planner(signing, "audit", clock), PageTokens(bytes(32))
        opener = await stack.enter_async_context(log.opener(database))
        key = EvidenceKey(key_file)
        rpc = EvidenceRpc(store, opener, planner, pages, checkpointer, key_manifest, key, evidence, log.LOG)
        export_id: list[UUID] = []
        channel = await stack.enter_async_context(
            serving(
                lambda server: add_EvidenceServiceServicer_to_server(rpc, server),
                "audit-worker",
                lambda: {"organization_id": log.ACME, "grant": _grant(export_id[0])},
            )
        )
        given = Given()
        tools = Tools(Peers(Log(channel), given, given), evidence, threads)  # type: ignore[arg-type]
        yield Evidence(
            database, clock, sequencer, checkpointer, store, Store(worker, "audit", clock), planner, tools, given,
            signer.verifier_key.text(), manifest.root.text(), export_id, bundles, sequencing,
            {("identity", log.ACME): 2 * over.counters} if over else {},
        )  # fmt: skip
    for role in roles:
        await role.close()
    threads.close()
