"""How old keys may get: reminded of once, refused by the broker itself from the limit on, well again when rotated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services._mesh import grants
from services._mesh.claimed import ClaimedJob
from services._mesh.context import entered
from services._mesh.errors import Invalid, Problem, Reason, Unavailable, WrongState
from services._mesh.grants import read_own_grant
from services._mesh.job_rpc import leased
from services._mesh.outages import Outages
from services.broker import usecases as broker
from services.broker.model.key_cache import KeyCache
from services.broker.model.replay import UsedGrants
from services.broker.opening import Opener
from services.scanner.model.connection import Connection
from services.scanner.model.rotation_rules import GRACE, RotationRules
from services.scanner.store import connections as store
from services.scanner.usecases import connections, rotation_rules, scanning
from services.scanner.usecases.kinds import CHECK, SCAN
from tests.support.kms import CarelessKms
from tests.support.postgres import TestDatabase
from tests.support.rotating import Rotations, rotations_on
from tests.support.things import ACME, GLOBEX, context

pytestmark = pytest.mark.services("scanner")
DAY, LIMIT = timedelta(days=1), datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
async def parts(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Rotations]:
    async with rotations_on(database, tmp_path) as made:
        yield made


async def say(parts: Rotations, remind: int, within: int) -> tuple[RotationRules, int]:
    with entered(context(ACME, "scanner.rotation_rules.set", rpc="scanner/SetRotationRules")):
        async with parts.api.begin() as work:
            return await rotation_rules.set_rotation_rules(work, remind, within)


async def scan(parts: Rotations, made: Connection) -> ClaimedJob:
    with entered(context(ACME, "scanner.scan.start", rpc="scanner/StartScan")):
        async with parts.api.begin() as work:
            await scanning.start_scan(work, parts.planner, made.connection_id)
    (job_id,) = await parts.jobs(SCAN)
    return await parts.claim(job_id)


async def opens(parts: Rotations, desk: broker.Desk, job: ClaimedJob) -> str:
    """What the broker makes of the job's grant: "opened" is that AWS was asked; else the reason."""
    found = job.credential("scan", "1" * 12)
    grant = read_own_grant(found.grant)
    assert grant.credential is not None
    async with parts.api.read(ACME) as connection:
        sealed = await store.get_envelope(connection, grant.credential.credential_id)
    with entered(context(None, grant=grant)):
        try:
            await broker.open_credential(desk, sealed)
        except Problem as problem:
            return problem.reason_name
    return "opened"


class Sts:
    """Stands in for AWS, which lets us in."""

    async def assume(self, *_: Any) -> Any:
        return None


def broker_desk(parts: Rotations) -> broker.Desk:
    opener = Opener(CarelessKms(), KeyCache(parts.clock.wall_seconds))
    return broker.Desk(opener, Sts(), UsedGrants(0.0), parts.clock)  # type: ignore[arg-type]  # It stands in.


async def check(parts: Rotations) -> None:
    """The daily check, as far as it is about the key's age: the cloud isn't reached from here."""
    for job_id in await parts.jobs(CHECK):
        job = await parts.claim(job_id)
        with entered(job.context()):
            async with job.begin() as work:
                found = await store.get_connection(work.connection, job.subject_id, lock=True)
                await rotation_rules.tell_age(work, found)
                await job.postpone(work, work.now + DAY)


async def test_the_broker_refuses_a_key_past_its_limit_whatever_goes_on_and_opens_the_next(parts: Rotations) -> None:
    made, desk = await parts.connect(), broker_desk(parts)
    job = await scan(parts, made)
    assert await opens(parts, desk, job) == "opened"
    rules, late = await say(parts, 20, 30)
    assert (late, rules.rotate_within_days) == (0, 30)
    parts.clock.ahead += 30 * DAY - timedelta(minutes=1)
    with entered(context(None, peer="scanner-worker", peer_thumbprint="x5t")):

        async def renewed() -> ClaimedJob:
            # The wall clock stands still, and so does the lease; the numbers of grants go by milliseconds.
            parts.clock.wall_ahead += timedelta(seconds=1)
            lease = await parts.desk.renew(job.job_id, job.fence)
            job.take(leased(lease))
            return job

        assert await opens(parts, desk, await renewed()) == "opened"
        before_the_limit = await renewed()
        held = before_the_limit.credentials
        parts.clock.ahead += timedelta(minutes=1)
        # Neither a grant from before the limit nor one from after it.
        assert read_own_grant(held[0].grant).credential is not None
        assert await opens(parts, desk, before_the_limit) == "CREDENTIAL_TOO_OLD"
        assert await opens(parts, desk, await renewed()) == "CREDENTIAL_TOO_OLD"
        with pytest.raises(Unavailable) as refused:
            grant = replace(read_own_grant((await renewed()).credentials[0].grant), kind=CHECK)
            with entered(context(None, grant=grant)):
                await broker.probe_credential(desk, b"")
        assert refused.value.reason == Reason.ERROR_REASON_CREDENTIAL_TOO_OLD
        # Jobs wait for it, told once, and go on when it was rotated.
        outages = Outages()
        assert [outages.begin(ACME, refused.value) for _ in range(2)] == [True, False]
        await parts.rotate(made)
        await parts.step()
        await parts.step()
        assert await opens(parts, desk, await renewed()) == "opened"


async def test_somebody_is_told_once_of_each_and_nothing_is_begun_past_the_limit(parts: Rotations) -> None:
    made = await parts.connect()
    await parts.connect(key="")
    await say(parts, 20, 30)
    both = ["remind", "expire"]
    for days, events in ((19, []), (1, ["remind"]), (9, ["remind"]), (1, both), (5, both)):
        parts.clock.ahead += days * DAY
        await check(parts)
        assert await parts.events() == events
    found = await parts.get(made)
    assert "older than the organization allows" in found.problem
    for begin in (connections.check_connection, connections.verify_connection, scanning.start_scan):
        with entered(context(ACME, rpc="scanner/Begin")), pytest.raises(WrongState) as refused:
            async with parts.api.begin() as work:
                await begin(work, parts.planner, made.connection_id)
        assert refused.value.reason == Reason.ERROR_REASON_CREDENTIAL_TOO_OLD
        assert "recoup credential rotate" in refused.value.message
    # A limit that is put off is told of again when it comes.
    await say(parts, 20, 60)
    await scan(parts, found)
    parts.clock.ahead += 30 * DAY
    await check(parts)
    assert (await parts.events())[2:] == ["expire"]
    # Rotated, it begins anew.
    await parts.rotate(made)
    await parts.step()
    await parts.step()
    assert (await parts.get(made)).problem == ""
    parts.clock.ahead += DAY
    await check(parts)
    assert (await parts.events())[3:] == ["rotate", "probe", "promote"]


async def test_a_tighter_limit_leaves_a_week_and_who_says_nothing_is_never_refused(parts: Rotations) -> None:
    made = await parts.connect()
    parts.clock.ahead += 400 * DAY
    with entered(context(ACME)):
        assert await rotation_rules.get_rotation_rules(parts.api) == RotationRules(90, 0, None)
    await scan(parts, made)
    rules, late = await say(parts, 30, 90)
    assert late == 1
    assert rules.enforced_from is not None
    parts.clock.ahead += GRACE - timedelta(hours=1)
    with entered(context(ACME)):
        async with parts.api.begin() as work:
            await rotation_rules.require_young(work, made)
    # Said again, or made looser, it gives no more time.
    for within in (90, 100):
        assert (await say(parts, 30, within))[0].enforced_from == rules.enforced_from
    parts.clock.ahead += timedelta(hours=1)
    with entered(context(ACME)), pytest.raises(WrongState):
        async with parts.api.begin() as work:
            await rotation_rules.require_young(work, made)
    with entered(context(GLOBEX)):
        assert (await rotation_rules.get_rotation_rules(parts.api)).rotate_within_days == 0
    for remind, within in ((90, 90), (0, 10)):
        with pytest.raises(Invalid) as refused:
            await say(parts, remind, within)
        assert "remind_after_days: must be from 1 to less than rotate_within_days" in refused.value.message
    # Switched off, nothing is refused; switched on again, it gives no more time.
    off = (await say(parts, 0, 0))[0]
    assert (off.rotate_within_days, off.enforced_from, off.refused_from(LIMIT)) == (0, None, None)
    with entered(context(ACME)):
        async with parts.api.begin() as work:
            await rotation_rules.require_young(work, made)
    assert (await say(parts, 30, 100))[0].enforced_from == rules.enforced_from
    with entered(context(ACME)), pytest.raises(WrongState):
        async with parts.api.begin() as work:
            await rotation_rules.require_young(work, made)


def test_a_limit_is_part_of_the_signed_grant() -> None:
    claims = grants._scope_claims(
        grants.CredentialScope(credential_id=ACME, purpose="scan", account="1", refused_from=LIMIT, statements=())
    )
    assert grants._scope(claims).refused_from == LIMIT
    del claims["refused_from"]
    assert grants._scope(claims).refused_from is None
