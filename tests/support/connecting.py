"""Connections on a test's own database and an emulated AWS behind its proxy, with what the broker and the worker do.

Stood in for are identity and the calls between processes: who may open what is the mesh tests' business.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from recoup_local.cloud import PAYER_ACCOUNT, ProxyControl
from recoup_local.cloud.aws_clients import AwsClients
from recoup_local.cloud.estate.roles import BaseUser
from recoup_local.cloud.launch import CloudEndpoints
from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.claimed import ClaimedJob
from services._mesh.clock import Clock, monotonic
from services._mesh.clouds import CloudToken
from services._mesh.context import entered
from services._mesh.grants import read_own_grant
from services._mesh.job_rpc import leased
from services._mesh.jobs import JobDesk, Planner
from services._mesh.kms.interface import Kek
from services._mesh.kms.opening import Sealer
from services._mesh.threads import BoundedThreads
from services._mesh.uow import Store
from services.broker import usecases as broker
from services.broker.clients import Sts
from services.broker.model.key_cache import KeyCache
from services.broker.model.replay import UsedGrants
from services.broker.opening import Opener
from services.scanner import checking
from services.scanner.clients.clouds import CloudReader
from services.scanner.model.cloud import Provider
from services.scanner.model.connection import Account, Connection, NewConnection, RoleCheck
from services.scanner.model.rotation import ROTATE
from services.scanner.policies.aws import plan_roles
from services.scanner.store import connections as store
from services.scanner.usecases import connections
from services.scanner.usecases.connecting import KeyRules
from services.scanner.usecases.kinds import CHECK, SCAN, VERIFY
from services.scanner.usecases.policies import Policies
from services.scanner.usecases.rotating import RotationPolicies
from services.scanner.working import Tools
from tests.support.bills import Active
from tests.support.kms import KEK, CarelessKms
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, MovableClock, context, keys

# Token services by what a credential is sealed for, and readers by their cloud.
Others = tuple[Mapping[str, broker.TokenGiver], Mapping[Provider, CloudReader]]

REGION = "us-east-1"
SCAN_ARN = f"arn:aws:iam::{PAYER_ACCOUNT}:role/RecoupScan"
ACT_ARN = f"arn:aws:iam::{PAYER_ACCOUNT}:role/RecoupAct"


@dataclass
class Cloud:
    """An emulated AWS with a base user that may assume the roles."""

    endpoints: CloudEndpoints
    clients: AwsClients
    control: ProxyControl
    base: BaseUser

    def install(self, external_id: str, *chosen: str, without: str = "") -> None:
        """Make the planned roles, as a customer does, and leave one permission out."""
        for role in plan_roles(self.base.arn, external_id, chosen):
            policy = json.dumps(role.policy).replace(f'"{without}"', '"ec2:DescribeTags"') if without else role.policy
            self.put(role.name, role.trust_policy, json.loads(policy) if isinstance(policy, str) else policy)

    def put(self, name: str, trust: dict[str, Any], policy: dict[str, Any] | None = None) -> None:
        """Make a role, or change it."""
        iam = self.clients.client("iam", PAYER_ACCOUNT)
        try:
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        except iam.exceptions.EntityAlreadyExistsException:
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(trust))
        if policy is not None:
            iam.put_role_policy(RoleName=name, PolicyName="Access", PolicyDocument=json.dumps(policy))

    def remove(self) -> None:
        """Take the roles away."""
        iam = self.clients.client("iam", PAYER_ACCOUNT)
        for name in ("RecoupScan", "RecoupAct"):
            try:
                iam.delete_role_policy(RoleName=name, PolicyName="Access")
                iam.delete_role(RoleName=name)
            except iam.exceptions.NoSuchEntityException:
                pass


class Peers:
    """The keeper and the broker as the worker sees them, in this process, under the same grants."""

    def __init__(self, api: Store, desk: broker.Desk, planner: Planner) -> None:
        self._api, self._desk, self._planner = api, desk, planner

    async def expire(self, grant: str) -> None:
        """Give up the grant's connection, by the scanner's own use case."""
        given = read_own_grant(grant)
        with entered(context(given.organization_id, "scanner.connection.expire", grant=given)) as call:
            async with self._api.begin(given.organization_id, call) as work:
                await connections.expire_connection(work, self._planner)

    async def fetch_sealed(self, grant: str, credential_id: str) -> bytes:
        """The sealed credential, from the scanner's own use case."""
        given = read_own_grant(grant)
        with entered(context(given.organization_id, grant=given)):
            return await connections.fetch_sealed_credential(self._api, UUID(credential_id))

    async def open(self, grant: str, credential_id: str) -> AwsCredentials:
        """A session, from the broker's own use case."""
        sealed = await self.fetch_sealed(grant, credential_id)
        with entered(context(None, grant=read_own_grant(grant))):
            opened = await broker.open_credential(self._desk, sealed)
        assert isinstance(opened, broker.Opened)
        made = opened.session
        return AwsCredentials(made.access_key_id, made.secret_access_key, made.session_token)

    async def open_token(self, grant: str, credential_id: str) -> CloudToken:
        """A token, from the broker's own use case."""
        sealed = await self.fetch_sealed(grant, credential_id)
        with entered(context(None, grant=read_own_grant(grant))):
            opened = await broker.open_credential(self._desk, sealed)
        assert isinstance(opened, CloudToken)
        return opened

    async def probe(self, grant: str, sealed: bytes) -> RoleCheck:
        """How a role answers, from the broker's own use case."""
        with entered(context(None, grant=read_own_grant(grant))):
            found = await broker.probe_credential(self._desk, sealed)
        return RoleCheck(
            found.role_arn, found.without_external_id, found.with_wrong_external_id, found.with_external_id,
            found.error_code,
        )  # fmt: skip


@dataclass
class Office:
    """The scanner's API and worker on one database and one emulated AWS."""

    database: TestDatabase
    clock: MovableClock
    cloud: Cloud
    api: Store
    worker: Store
    planner: Planner
    desk: JobDesk
    tools: Tools
    sealer: Sealer
    rules: KeyRules

    async def connect(self, *, act: bool = True, **changes: Any) -> Connection:
        account = Account(PAYER_ACCOUNT, SCAN_ARN, ACT_ARN if act else "")
        facts: dict[str, Any] = {
            "display_name": "acme",
            "access_key_id": self.cloud.base.access_key_id,
            "secret_access_key": self.cloud.base.secret_access_key,
            "accounts": (account,),
            "regions": (REGION,),
        }
        return await self.make(NewConnection(**{**facts, **changes}))

    async def make(self, given: NewConnection) -> Connection:
        """Connect what is given."""
        with entered(context(ACME, "scanner.connection.create")) as call:
            sealed = await connections.seal_connection(self.api, self.sealer, given, self.rules.issuer)
            async with self.api.begin(ACME, call) as work:
                return await connections.create_connection(work, self.planner, self.rules, sealed)

    async def verify(self, made: Connection) -> Connection:
        """Ask for a verification, and run it."""
        with entered(context(ACME, "scanner.connection.verify")) as call:
            async with self.api.begin(ACME, call) as work:
                await connections.verify_connection(work, self.planner, made.connection_id)
        return await self.run(made, VERIFY)

    async def run(self, made: Connection, kind: str = CHECK) -> Connection:
        """Run the connection's job of a kind, as it is due now."""
        job = await self.claim(made.connection_id, kind)
        handler = checking.verify if kind == VERIFY else checking.check
        with entered(job.context()):
            await handler(self.tools, job)
        return await self.get(made)

    async def claim(self, subject_id: UUID, kind: str) -> ClaimedJob:
        """Lease a subject's job of a kind to the worker."""
        ready = "SELECT job_id FROM scanner.jobs WHERE subject_id = $1 AND kind = $2 AND status = 'READY'"
        job_id, *_ = await self.fetch(ready, subject_id, kind)
        with entered(context(None, peer="scanner-worker", peer_thumbprint="x5t")):
            return ClaimedJob(leased(await self.desk.claim(job_id)), self.worker, "scanner-worker")

    async def get(self, made: Connection) -> Connection:
        async with self.api.read(ACME) as connection:
            return await store.get_connection(connection, made.connection_id)

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        """The first column of what a superuser sees."""
        superuser = await self.database.superuser()
        rows = await superuser.fetch(statement, *arguments)
        await superuser.close()
        return [row[0] for row in rows]

    async def events(self) -> list[str]:
        """What was done to connections, in order, in a word each."""
        found = await self.fetch("SELECT action FROM scanner.outbox ORDER BY counter")
        return [action.rpartition(".")[2] for action in found]


def refused(found: Connection) -> dict[str, str]:
    """The permissions that aren't allowed, with what came of them."""
    return {c.permission: c.outcome for c in found.permission_checks if c.outcome != "ALLOWED"}


def of(checks: Sequence[Any], use: str) -> set[str]:
    """The permissions that were probed for a use."""
    return {check.permission for check in checks if check.use == use}


@asynccontextmanager
async def opened(
    database: TestDatabase, cloud: Any, folder: Path, others: Callable[[BoundedThreads], Others] = lambda _: ({}, {})
) -> AsyncIterator[Office]:
    """The scanner at work on a database that has its migrations. `others` are the parts of other clouds than AWS."""
    clock, kms = MovableClock(), CarelessKms()
    api, worker, dispatch = (database.role(f"scanner_{name}") for name in ("api", "worker", "dispatcher"))
    threads, key_and_trust = BoundedThreads(8, "test"), keys(folder, "scanner")
    key, trust = key_and_trust
    store_of_api = Store(api, "scanner", clock)
    policies = Policies(store_of_api, Active())  # type: ignore[arg-type]  # It stands in.
    rotate = RotationPolicies(store_of_api, Active()).rotate  # type: ignore[arg-type]
    kinds = {VERIFY: policies.verify, CHECK: policies.check, SCAN: policies.scan, ROTATE: rotate}
    desk = JobDesk(store_of_api, dispatch, key, trust, clock, kinds, issuer="scanner", profile="local")
    settings, (tokens, clouds) = AwsSettings(cloud.endpoints.url if cloud else ""), others(threads)
    opener = Opener(kms, KeyCache(monotonic))
    broker_desk = broker.Desk(opener, Sts(threads, settings), UsedGrants(0.0), Clock(), tokens)
    planner = Planner(key, "scanner", clock)
    peers: Any = Peers(store_of_api, broker_desk, planner)
    unused: Any = None

    async def kek(_: UUID) -> Kek:
        return KEK

    yield Office(
        database, clock, cloud, store_of_api, Store(worker, "scanner", clock), planner, desk,
        Tools(peers, peers, unused, threads, settings, peers, clouds=clouds), Sealer(kms, kek),
        KeyRules(static_keys=True),
    )  # fmt: skip
    threads.close()
    for role in (api, worker, dispatch):
        await role.close()
