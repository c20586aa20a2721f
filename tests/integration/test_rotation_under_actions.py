"""A connection's key is rotated while actions run: each session is of the key that was in use when it was granted.

The scanner, actions and the broker at work on one database, each by its own use cases and grants; AWS is stood in for.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from services._mesh.claimed import ClaimedJob
from services._mesh.context import entered
from services._mesh.credentials import CredentialInUse
from services._mesh.errors import Denied, NotFound
from services._mesh.grants import GrantVerifier
from services._mesh.job_rpc import leased
from services._mesh.revocations import Revocation, RevocationKind, Revocations
from services._mesh.trust import TrustStore
from services.actions.model.action import Whole
from services.actions.usecases import requests
from services.actions.usecases.policies import Policies
from services.actions.usecases.requests import EXECUTE
from services.broker import usecases as broker
from services.broker.clients import CloudSession
from services.broker.model.base_key import BaseKey
from services.broker.model.key_cache import KeyCache
from services.broker.model.replay import UsedGrants
from services.broker.opening import Opener
from services.scanner.model.rotation import DRAIN, RotationState
from services.scanner.usecases import connections, rotating
from tests.integration.test_actions import ANN, Active, Office, by
from tests.integration.test_fail_closed import Side, side
from tests.support.kms import CarelessKms
from tests.support.postgres import TestDatabase
from tests.support.rotating import Rotations, rotations_on
from tests.support.things import ACME, context

pytestmark = pytest.mark.services("scanner", "actions")
OLD, NEW = "AKIA" + "A" * 16, "AKIA" + "B" * 16
ACCOUNT, ACT = "1" * 12, f"arn:aws:iam::{'1' * 12}:role/RecoupAct"


@dataclass
class Keeper:
    """The scanner as the API of actions sees it, by its own use case."""

    parts: Rotations

    async def in_use(self, organization_id: UUID, credential_id: UUID) -> CredentialInUse:
        return CredentialInUse(*await rotating.resolve_credential(self.parts.api, organization_id, credential_id))


@dataclass
class Sts:
    """AWS, which lets us in; it keeps which key asked."""

    asked: list[str] = field(default_factory=list)

    async def assume(self, base: BaseKey, role_arn: str, *_: Any) -> CloudSession:
        assert role_arn == ACT
        self.asked.append(base.access_key_id)
        return CloudSession("ASIA", "s", "t", datetime.now(UTC))


@dataclass
class Scene:
    """Actions on the resources of one connection, and the broker that their worker goes to."""

    parts: Rotations
    side: Side
    office: Office
    verifier: GrantVerifier
    desk: broker.Desk
    sts: Sts

    async def approved(self, resource: str, credential_id: UUID) -> Whole:
        """An action whose plan names a credential."""
        given = self.office.gathered(resource)
        given = replace(given, scope=replace(given.scope, credential_id=credential_id))
        with entered(by(ANN, "actions.action.request")) as call:
            async with self.side.api.begin(ACME, call) as work:
                made = await requests.request_action(work, self.side.planner, given)
        return await self.office.approve(made)

    async def claim(self, made: Whole) -> ClaimedJob:
        query = "SELECT job_id FROM actions.jobs WHERE kind = :kind AND subject_id = :subject"
        async with self.side.api.read(ACME) as connection:
            values = {"kind": EXECUTE, "subject": made.action.action_id}
            job_id = (await connection.execute(text(query), values)).scalar_one()
        with entered(context(None, peer="actions-worker", peer_thumbprint="x5t")):
            return ClaimedJob(leased(await self.side.desk.claim(job_id)), self.side.worker, "actions-worker")

    async def renew(self, job: ClaimedJob) -> ClaimedJob:
        self.forward(timedelta(seconds=1))
        with entered(context(None, peer="actions-worker", peer_thumbprint="x5t")):
            job.take(leased(await self.side.desk.renew(job.job_id, job.fence)))
        return job

    async def opened_with(self, job: ClaimedJob) -> str:
        """The key that the broker assumes the role with, for a worker that shows its lease's grant."""
        held = job.credential("act", ACCOUNT)
        grant = self.verifier.verify(held.grant, "x5t")
        with entered(context(ACME, grant=grant)):
            sealed = await connections.fetch_sealed_credential(self.parts.api, UUID(held.credential_id))
        with entered(context(None, grant=grant)):
            await broker.open_credential(self.desk, sealed)
        return self.sts.asked[-1]

    def forward(self, by: timedelta) -> None:
        for clock in (self.parts.clock, self.side.clock):
            clock.ahead += by
            clock.wall_ahead += by


@pytest.fixture
async def scene(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Scene]:
    async with rotations_on(database, tmp_path) as parts:

        def policy(api: Any) -> Any:
            planner: Any = None  # Nobody's standing changes here, so that no job is planned by it.
            return Policies(api, planner, Active(), Keeper(parts), parts.clock).execute  # type: ignore[arg-type]

        async with side(database, tmp_path, "actions", EXECUTE, policy) as made:
            office = Office(database, made.clock, made.api, made.worker, made.planner)
            opener, revocations = Opener(CarelessKms(), KeyCache(made.clock.wall_seconds)), Revocations(made.clock)
            revocations.on_entry = opener.revoked
            verifier = GrantVerifier(
                TrustStore(tmp_path), revocations, made.clock, audience="broker", profile="local",
                issuers={"actions": (EXECUTE,)},
            )  # fmt: skip
            told = parts.feed.revoked

            async def publish(grant: str, credential_id: UUID) -> None:
                await told(grant, credential_id)
                entry = Revocation(1, RevocationKind.CREDENTIAL, str(credential_id), made.clock.wall_seconds())
                revocations.apply([entry], 1)

            parts.feed.revoked = publish  # type: ignore[method-assign]
            sts: Any = Sts()
            desk = broker.Desk(opener, sts, UsedGrants(0.0), made.clock)
            yield Scene(parts, made, office, verifier, desk, sts)


async def test_actions_go_on_while_their_key_is_rotated(scene: Scene) -> None:
    parts = scene.parts
    made = await parts.connect(act=ACT)
    first, second, third = [await scene.approved(f"vol-{n}", made.credential_id) for n in range(3)]
    running, waiting = await scene.claim(first), await scene.claim(second)
    assert await scene.opened_with(running) == OLD
    begun = await parts.rotate(made)
    await parts.step()
    # Tried, and not in use yet.
    assert await scene.opened_with(await scene.renew(running)) == OLD
    await parts.step()
    assert (await parts.newest(made)).state is RotationState.DRAINING
    # What was granted before opens as it was granted; a renewal or a claim gets the one in use, whatever the plan says.
    assert await scene.opened_with(waiting) == OLD
    assert await scene.opened_with(await scene.renew(running)) == NEW
    late = await scene.claim(third)
    assert third.action.credential_id == made.credential_id
    assert late.credential("act", ACCOUNT).credential_id == str(begun.candidate_id)
    assert await scene.opened_with(late) == NEW
    last = scene.verifier.verify(waiting.credentials[0].grant, "x5t")
    # Nothing is destroyed while a grant for it may be in anybody's hands; then the feed is told, and it is gone.
    assert begun.replaced_id in await parts.sealed()
    assert last.expires_at <= scene.side.clock.wall_seconds() + DRAIN.total_seconds()
    scene.forward(DRAIN)
    await parts.step()
    assert (await parts.newest(made)).state is RotationState.DONE
    assert await parts.sealed() == {begun.candidate_id}
    with pytest.raises(Denied):
        await scene.opened_with(waiting)
    with entered(context(ACME, grant=last)), pytest.raises(NotFound):
        await connections.fetch_sealed_credential(parts.api, begun.replaced_id)
    for job in (running, waiting, late):
        assert await scene.opened_with(await scene.renew(job)) == NEW
    async with scene.side.api.read(ACME) as connection:
        failures = "SELECT coalesce(sum(failures), 0) FROM actions.jobs WHERE status <> 'DEAD'"
        assert (await connection.execute(text(failures))).scalar_one() == 0
    assert await parts.events() == ["rotate", "probe", "promote", "revoke"]
