"""Rotations of credentials on a real database, with a cloud and a revocation feed that do as a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from services._mesh.claimed import ClaimedJob
from services._mesh.context import entered
from services._mesh.errors import Reason, Unavailable
from services._mesh.grants import Grant, read_own_grant
from services._mesh.job_rpc import leased
from services._mesh.jobs import JobDesk, Planner
from services._mesh.kms.interface import Kek
from services._mesh.kms.opening import Sealer
from services._mesh.uow import Store
from services.scanner import rotating as working
from services.scanner.model.connection import (
    Account,
    Connection,
    ConnectionState,
    NewConnection,
    PermissionCheck,
    RoleCheck,
)
from services.scanner.model.given import NewSecret
from services.scanner.model.reading import APIS, Coverage, Outcome, Unit
from services.scanner.model.rotation import ROTATE, Rotation
from services.scanner.policies.aws import READS
from services.scanner.store import connections as store
from services.scanner.store import rotations
from services.scanner.usecases import connections, rotating
from services.scanner.usecases.connecting import KeyRules
from services.scanner.usecases.kinds import CHECK, SCAN
from services.scanner.usecases.policies import Policies
from tests.support.bills import Active
from tests.support.kms import KEK, CarelessKms
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, MovableClock, context, keys

ROLE = f"arn:aws:iam::{'1' * 12}:role/RecoupScan"
RULES = KeyRules("arn:aws:iam::222222222222:role/broker", static_keys=True)


@dataclass
class Cloud:
    """What the customer's account says to a credential that is tried. `refused` and `unread` name permissions."""

    refused: set[str] = field(default_factory=set)
    unread: dict[str, Outcome] = field(default_factory=dict)
    role: str = "ALLOWED"
    asked_with: list[str] = field(default_factory=list)

    async def look(self, job: ClaimedJob, of: Connection) -> tuple[list[RoleCheck], list[PermissionCheck]]:
        self.asked_with.append(job.credential("verify", "1" * 12).credential_id)
        checks = [
            PermissionCheck(ROLE, "scan", "us-east-1", each, "REFUSED" if each in self.refused else "ALLOWED", "Denied")
            for each in READS
        ]
        return [RoleCheck(ROLE, "REFUSED", "REFUSED", self.role, "AccessDenied")], checks

    async def read(self, job: ClaimedJob, of: Connection) -> list[Coverage]:
        self.asked_with.append(job.credential("scan", "1" * 12).credential_id)
        units = [Unit("1" * 12, "us-east-1", api) for api in APIS]
        return [Coverage(unit, self.unread.get(unit.api, Outcome.COMPLETE)) for unit in units]


@dataclass
class Feed:
    """The revocation feed, which takes what identity would take."""

    is_away: bool = False
    told: list[UUID] = field(default_factory=list)

    async def revoked(self, grant: str, credential_id: UUID) -> None:
        given: Grant = read_own_grant(grant)
        assert "identity" in given.audience
        assert str(credential_id) in given.plan.split(".")
        if self.is_away:
            raise Unavailable(Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE, "away", {"dependency": "identity"})
        self.told.append(credential_id)


@dataclass
class Rotations:
    """The scanner's API and worker, as far as they rotate."""

    clock: MovableClock
    api: Store
    worker: Store
    planner: Planner
    desk: JobDesk
    sealer: Sealer
    cloud: Cloud
    feed: Feed

    async def connect(self, organization: UUID = ACME, key: str = "AKIA" + "A" * 16, act: str = "") -> Connection:
        """A connection that was verified; `act` is its role for acting."""
        given = NewConnection("prod", key, "s" * 40 if key else "", (Account("1" * 12, ROLE, act),), ("us-east-1",))
        with entered(context(organization, "scanner.connection.create", rpc="scanner/CreateConnection")):
            sealed = await connections.seal_connection(self.api, self.sealer, given)
            async with self.api.begin() as work:
                made = await connections.create_connection(work, self.planner, RULES, sealed)
                return await store.mark_connection(
                    work.connection, made.connection_id, state=ConnectionState.ACTIVE.value, verified_at=work.now
                )

    async def rotate(self, made: Connection, key: str = "AKIA" + "B" * 16, organization: UUID = ACME) -> Rotation:
        """Begin a rotation to another key."""
        with entered(context(organization, "scanner.credential.rotate", rpc="scanner/RotateCredential")):
            given = await rotating.seal_candidate(
                self.api, self.sealer, made.connection_id, NewSecret(key, "t" * 40 if key else "")
            )
            async with self.api.begin() as work:
                return await rotating.rotate_credential(work, self.planner, RULES, given)

    async def cancel(self, made: Connection, organization: UUID = ACME) -> Rotation:
        """Give the rotation up."""
        with entered(context(organization, "scanner.credential.cancel", rpc="scanner/CancelRotation")):
            async with self.api.begin() as work:
                return await rotating.cancel_rotation(work, made.connection_id)

    async def disable(self, made: Connection, organization: UUID = ACME) -> None:
        """Switch the connection off."""
        found = await self.get(made)
        with entered(context(organization, "scanner.connection.disable", rpc="scanner/DisableConnection")):
            async with self.api.begin() as work:
                await connections.disable_connection(work, self.planner, made.connection_id, found.etag)

    async def claim(self, job_id: UUID) -> ClaimedJob:
        """Lease a job to the scanner's worker."""
        with entered(context(None, peer="scanner-worker", peer_thumbprint="x5t")):
            return ClaimedJob(leased(await self.desk.claim(job_id)), self.worker, "scanner-worker")

    async def jobs(self, kind: str = ROTATE, organization: UUID = ACME) -> list[UUID]:
        """The jobs of a kind that nobody finished."""
        query = "SELECT job_id FROM scanner.jobs WHERE kind = :kind AND status IN ('READY', 'LEASED')"
        return [row.job_id for row in await self.rows(query, organization, kind=kind)]

    async def step(self, organization: UUID = ACME) -> None:
        """Do the next step of the one rotation whose job isn't over."""
        (job_id,) = await self.jobs(organization=organization)
        await self.work(await self.claim(job_id))

    async def work(self, job: ClaimedJob) -> None:
        """Do the step of a claimed rotation."""
        with entered(job.context()):
            await working.rotate(self.cloud, self.feed, job)  # type: ignore[arg-type]  # It stands in.

    async def get(self, made: Connection) -> Connection:
        """The connection as it is now."""
        async with self.api.read(made.organization_id) as connection:
            return await store.get_connection(connection, made.connection_id)

    async def newest(self, made: Connection) -> Rotation:
        """Its newest rotation."""
        async with self.api.read(made.organization_id) as connection:
            found = await rotations.find_newest(connection, made.connection_id)
            assert found is not None
            return found

    async def sealed(self, organization: UUID = ACME) -> set[UUID]:
        """The credentials that there are."""
        return {
            row.credential_id for row in await self.rows("SELECT credential_id FROM scanner.credentials", organization)
        }

    async def events(self, organization: UUID = ACME) -> list[str]:
        """What became of credentials, in order, in a word each."""
        query = "SELECT action FROM scanner.outbox WHERE action LIKE 'scanner.credential.%' ORDER BY counter"
        return [row.action.rpartition(".")[2] for row in await self.rows(query, organization)]

    async def rows(self, query: str, organization: UUID = ACME, **values: Any) -> list[Any]:
        """What the API sees."""
        async with self.api.read(organization) as connection:
            return list(await connection.execute(text(query), values))


@asynccontextmanager
async def rotations_on(database: TestDatabase, folder: Path) -> AsyncIterator[Rotations]:
    """The scanner at work on a database that has its migrations."""
    clock, roles = MovableClock(), [database.role(f"scanner_{name}") for name in ("api", "worker", "dispatcher")]
    api, worker, dispatcher = roles
    key, trust = keys(folder, "scanner")
    reader, active = Store(api, "scanner", clock), Active()
    policies = Policies(reader, active)  # type: ignore[arg-type]
    kinds = {
        ROTATE: rotating.RotationPolicies(reader, active).rotate,  # type: ignore[arg-type]  # It stands in.
        SCAN: policies.scan,
        CHECK: policies.check,
    }
    desk = JobDesk(
        reader, dispatcher, key, trust, clock, kinds, issuer="scanner", profile="local", on_dead=working.give_up
    )

    async def kek(_: UUID) -> Kek:
        return KEK

    yield Rotations(
        clock, reader, Store(worker, "scanner", clock), Planner(key, "scanner", clock), desk,
        Sealer(CarelessKms(), kek), Cloud(), Feed(),
    )  # fmt: skip
    for role in roles:
        await role.close()
