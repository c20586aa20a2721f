"""Sealed credentials, and all that keeps, opens and forgets them: scanner's API and worker, broker, identity's feed.

The parts are real, each on its own database role and with its own checks of grants; what they lack is mTLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import grpc.aio
from sqlalchemy import text

from recoup.broker.v1 import broker_service_pb2_grpc
from recoup.identity.v1 import credential_service_pb2_grpc, identity_service_pb2_grpc
from recoup.scanner.v1 import sealing_service_pb2_grpc
from services._mesh.claimed import ClaimedJob
from services._mesh.context import CallContext, entered
from services._mesh.feed import follow
from services._mesh.grants import METADATA_KEY, GrantVerifier
from services._mesh.job_rpc import leased
from services._mesh.jobs import JobDesk, Planner
from services._mesh.kms.interface import Binding, Kek, KeyService, Kms
from services._mesh.kms.opening import Sealer
from services._mesh.revocations import Revocation, Revocations
from services._mesh.uow import Store
from services.broker.model.key_cache import KeyCache
from services.broker.model.replay import UsedGrants
from services.broker.opening import Opener
from services.broker.rewrapping import Rewrapper
from services.broker.rpc import BrokerRpc
from services.broker.signing import Signer
from services.broker.usecases import Desk
from services.identity.rpc.credentials import CredentialRpc
from services.identity.rpc.identity import IdentityRpc
from services.scanner import sealing
from services.scanner.clients.feed import Feed
from services.scanner.clients.rewrapping import Keeper, Wrapper
from services.scanner.model.connection import Account, Connection, NewConnection
from services.scanner.model.kek import NamedKek, RegisteredKek
from services.scanner.model.rewrapping import REWRAP
from services.scanner.rpc.sealing import SealingRpc
from services.scanner.usecases import connections, rewrapping
from services.scanner.usecases.connecting import KeyRules
from services.scanner.usecases.credentials import REVOKE, CredentialPolicies
from services.scanner.usecases.keks import Keks, register_kek
from services.scanner.usecases.keys import KeyPolicies
from services.scanner.usecases.kinds import DELIVER
from services.scanner.usecases.rewrapping import Rewrapping
from tests.support.bills import Active
from tests.support.kms import RING, Ring
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, MovableClock, context, keys, served

BY_RULE = Kek(KeyService.FILE, f"{RING}/by-rule/1")
_UNUSED: Any = None


class Counted:
    """A key service that counts its calls."""

    def __init__(self, kms: Kms) -> None:
        self._kms, self.wraps, self.unwraps = kms, 0, 0

    async def wrap(self, kek: Kek, material: bytes, binding: Binding) -> bytes:
        """See Kms."""
        self.wraps += 1
        return await self._kms.wrap(kek, material, binding)

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Binding) -> bytes:
        """See Kms."""
        self.unwraps += 1
        return await self._kms.unwrap(kek, wrapped, binding)


@dataclass
class Sealing:
    """The parts. `kms` is the broker's, `ring` has the files that both sides' key services read."""

    clock: MovableClock
    ring: Ring
    kms: Counted
    api: Store
    worker: Store
    planner: Planner
    desk: JobDesk
    opener: Opener
    known: Revocations
    heard: list[Revocation]
    told: asyncio.Event
    identity: grpc.aio.Channel
    broker: grpc.aio.Channel
    scanner: grpc.aio.Channel
    keks: Keks
    organizations: Active

    async def connect(self, organization: UUID = ACME, kek: Kek = BY_RULE, name: str = "prod") -> Connection:
        """A connection with its sealed credential."""
        account = Account("1" * 12, f"arn:aws:iam::{'1' * 12}:role/scan", "")
        given = NewConnection(name, "AKIA" + "A" * 16, "s" * 40, (account,), ("us-east-1",))
        return await self.make(given, organization, kek)

    async def make(self, given: NewConnection, organization: UUID, kek: Kek) -> Connection:
        """Connect what is given."""

        async def under(_: UUID) -> Kek:
            return kek

        with entered(context(organization, "scanner.connection.create", rpc="scanner/CreateConnection")):
            sealed = await connections.seal_connection(self.api, Sealer(self.ring.sealing, under), given)
            async with self.api.begin() as work:
                return await connections.create_connection(work, self.planner, KeyRules("", True), sealed)

    async def envelope(self, credential_id: UUID, organization: UUID = ACME) -> bytes:
        """What stands in the credential's row."""
        async with self.api.read(organization) as connection:
            query = text("SELECT envelope FROM scanner.credentials WHERE credential_id = :id")
            return bytes((await connection.execute(query, {"id": credential_id})).scalar_one())

    async def jobs(self, kind: str, organization: UUID = ACME) -> list[UUID]:
        """The jobs of a kind that nobody finished."""
        async with self.api.read(organization) as connection:
            query = text("SELECT job_id FROM scanner.jobs WHERE kind = :kind AND status IN ('READY', 'LEASED')")
            return [row.job_id for row in await connection.execute(query, {"kind": kind})]

    async def claim(self, job_id: UUID, worker: str = "scanner-worker") -> ClaimedJob:
        """Lease a job to a worker."""
        with entered(context(None, peer=worker, peer_thumbprint="x5t")):
            return ClaimedJob(leased(await self.desk.claim(job_id)), self.worker, worker)

    async def revoke(self, job: ClaimedJob, feed: Feed | None = None) -> None:
        """Do the work of a claimed revocation."""
        with entered(job.context()):
            await sealing.revoke(feed or Feed(self.identity), job)

    async def register(self, version: int, organization: UUID = ACME) -> RegisteredKek:
        """A KEK of the organization's own, tried first, which takes the place of the one before."""
        named = NamedKek(KeyService.FILE, f"{RING}/acme", "local", str(version))
        with entered(context(organization, "scanner.kek.register", rpc="scanner/RegisterKek")):
            await self.keks.probe(named)
            async with self.api.begin() as work:
                return await register_kek(work, named)

    async def rotate(self, organization: UUID = ACME) -> int:
        """Begin a rotation; returns how many credentials it has to move."""
        with entered(context(organization, "scanner.kek.rotate", rpc="scanner/RotateKek")):
            newest = await rewrapping.find_newest(self.api)
            async with self.api.begin() as work:
                return await rewrapping.rotate_kek(work, self.planner, newest)

    async def rewrap(self, job: ClaimedJob) -> None:
        """Do one batch of a claimed rotation."""
        with entered(job.context()):
            tools = sealing.Rotating(Feed(self.identity), Keeper(self.scanner), Wrapper(self.broker))
            await sealing.move(tools, job)

    async def settle(self, job_id: UUID, organization: UUID = ACME) -> int:
        """Do a rotation to its end; returns how many leases it took."""
        leases = 0
        while job_id in await self.jobs(REWRAP, organization):
            await self.rewrap(await self.claim(job_id))
            leases += 1
        return leases

    async def events(self, action: str, organization: UUID = ACME) -> list[str]:
        """The events of an action, as they lie in the outbox."""
        async with self.api.read(organization) as connection:
            query = "SELECT convert_from(payload, 'UTF8') FROM scanner.outbox WHERE action = :action ORDER BY counter"
            return [row[0] for row in await connection.execute(text(query), {"action": action})]


@asynccontextmanager
async def sealing_parts(database: TestDatabase, folder: Path) -> AsyncIterator[Sealing]:
    """All parts, with the broker following identity's feed."""
    async with AsyncExitStack() as stack:
        clock = MovableClock()
        roles = [
            database.role(name) for name in ("scanner_api", "scanner_worker", "scanner_dispatcher", "identity_api")
        ]
        for role in roles:
            stack.push_async_callback(role.close)
        api, worker, dispatcher, identity = roles
        store, feed_store = Store(api, "scanner", clock), Store(identity, "identity", clock)
        key, trust = keys(folder, "scanner")
        ring, known, heard, told = Ring(folder), Revocations(clock), [], asyncio.Event()
        stack.callback(ring.threads.close)
        kms = Counted(ring.whole)
        opener = Opener(kms, KeyCache(clock.wall_seconds))

        def hear(entry: Revocation) -> None:
            opener.revoked(entry)
            heard.append(entry)
            told.set()

        known.on_entry = hear

        def verifier(audience: str, *kinds: str) -> GrantVerifier:
            return GrantVerifier(
                trust, known, clock, audience=audience, profile="local", issuers={"scanner": list(kinds)}
            )

        def add_identity(server: Any) -> None:
            credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(CredentialRpc(feed_store), server)
            rpc = IdentityRpc(_UNUSED, feed_store, clock, _UNUSED)
            identity_service_pb2_grpc.add_IdentityServiceServicer_to_server(rpc, server)

        def add_broker(server: Any) -> None:
            desk = Desk(opener, _UNUSED, UsedGrants(clock.wall_seconds() - 5), clock)
            rpc = BrokerRpc(desk, Rewrapper(kms, desk.used, clock), Signer(opener, desk.used, clock))
            broker_service_pb2_grpc.add_BrokerServiceServicer_to_server(rpc, server)

        def add_scanner(server: Any) -> None:
            sealing_service_pb2_grpc.add_SealingServiceServicer_to_server(SealingRpc(store, Rewrapping(store)), server)

        async def by_rule(_: UUID) -> Kek:
            return BY_RULE

        may = verifier("identity", REVOKE, REWRAP)
        identity_channel = await stack.enter_async_context(served(add_identity, _granted(may)))
        broker_channel = await stack.enter_async_context(
            served(add_broker, _granted(verifier("broker", REWRAP, DELIVER)))
        )
        scanner_channel = await stack.enter_async_context(served(add_scanner, _granted(verifier("scanner", REWRAP))))
        following = asyncio.create_task(follow(identity_channel, known))
        stack.callback(following.cancel)
        organizations = Active()
        identity_answers: Any = organizations  # It stands in.
        policies = {
            REVOKE: CredentialPolicies(store, clock).revoke,
            REWRAP: Rewrapping(store).policy,
            DELIVER: KeyPolicies(store, identity_answers, clock).deliver,
        }
        desk = JobDesk(
            store, dispatcher, key, trust, clock, policies, issuer="scanner", profile="local",
            workers={DELIVER: "notifier"},
        )  # fmt: skip
        yield Sealing(
            clock, ring, kms, store, Store(worker, "scanner", clock), Planner(key, "scanner", clock), desk,
            opener, known, heard, told, identity_channel, broker_channel, scanner_channel,
            Keks(store, ring.sealing, by_rule, Wrapper(broker_channel)), organizations,
        )  # fmt: skip


def _granted(grants: GrantVerifier) -> Callable[[Any], CallContext]:
    """Calls that come from the scanner's worker, with their grant verified as the mesh does."""

    def call_of(details: Any) -> CallContext:
        token = dict(details.invocation_metadata).get(METADATA_KEY)
        grant = grants.verify(token, "x5t") if token else None
        organization = grant.organization_id if grant else None
        owed = "scanner.kek.rewrap" if details.method.endswith("/StoreRewrapped") else ""
        return context(organization, owed, peer="scanner-worker", grant=grant, rpc=details.method)

    return call_of
