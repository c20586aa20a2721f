"""A credential's rotation, step by step: what each failure and each kill leaves, and what goes on meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.exc import ProgrammingError

from services._mesh import failpoints
from services._mesh.context import entered
from services._mesh.errors import Conflict, Denied, Invalid, NotFound, Unavailable, WrongState
from services._mesh.grants import read_own_grant
from services.identity.usecases import credentials as publishing
from services.scanner.model.connection import ConnectionState
from services.scanner.model.given import NewSecret
from services.scanner.model.reading import Outcome
from services.scanner.model.rotation import DRAIN, PATIENCE, PAUSE, RotationState
from services.scanner.store.connections import get_envelope
from services.scanner.store.rotations import destroy_credential
from services.scanner.usecases import rotating, scanning
from services.scanner.usecases.kinds import SCAN
from tests.support.postgres import TestDatabase
from tests.support.rotating import Rotations, rotations_on
from tests.support.things import ACME, GLOBEX, context

pytestmark = pytest.mark.services("scanner")
OLD, NEW = "AKIA" + "A" * 16, "AKIA" + "B" * 16
STEPS = ("probed", "accepted", "read", "promoted", "told", "done")


class Killed(BaseException):
    """The process is gone: nothing after this line runs."""


@pytest.fixture
async def parts(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Rotations]:
    async with rotations_on(database, tmp_path) as made:
        yield made


def drain(parts: Rotations) -> None:
    parts.clock.wall_ahead += DRAIN
    parts.clock.ahead += DRAIN


async def test_the_new_one_is_tried_read_with_put_into_use_and_the_old_one_destroyed(parts: Rotations) -> None:
    made = await parts.connect()
    begun = await parts.rotate(made)
    assert await parts.sealed() == {begun.replaced_id, begun.candidate_id}
    await parts.step()
    assert (await parts.newest(made)).state is RotationState.READING
    assert (await parts.get(made)).credential_id == begun.replaced_id
    await parts.step()
    found, promoted = await parts.newest(made), await parts.get(made)
    assert found.state is RotationState.DRAINING
    assert f"when the rotation is DONE, deactivate the access key {OLD}" in found.advice
    assert (promoted.credential_id, promoted.access_key_id) == (begun.candidate_id, NEW)
    assert (promoted.state, promoted.problem) == (ConnectionState.ACTIVE, "")
    assert set(parts.cloud.asked_with) == {str(begun.candidate_id)}
    assert await parts.sealed() == {begun.replaced_id, begun.candidate_id}
    # Time of the injected clock alone ends no grant.
    parts.clock.ahead += 2 * DRAIN
    await parts.step()
    assert (await parts.newest(made)).state is RotationState.DRAINING
    assert not parts.feed.told
    drain(parts)
    await parts.step()
    done = await parts.newest(made)
    assert (done.state, done.told) == (RotationState.DONE, True)
    assert done.advice.startswith(f"deactivate the access key {OLD} (aws iam update-access-key --status Inactive")
    assert parts.feed.told == [begun.replaced_id]
    assert await parts.sealed() == {begun.candidate_id}
    assert await parts.events() == ["rotate", "probe", "promote", "revoke"]
    assert not await parts.jobs()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("permission", "refuses ec2:DescribeVolumes (Denied): Allow ec2:DescribeVolumes in the policy of RecoupScan"),
        ("role", "refuses us (AccessDenied). Let the base user assume it"),
        ("reading", "ec2:DescribeImages in 111111111111/us-east-1: DENIED"),
    ],
)
async def test_one_that_does_not_do_is_destroyed_and_the_one_before_stays(
    parts: Rotations, what: str, said: str
) -> None:
    made = await parts.connect()
    if what == "permission":
        parts.cloud.refused.add("ec2:DescribeVolumes")
    elif what == "role":
        parts.cloud.role = "REFUSED"
    else:
        parts.cloud.unread["ec2:DescribeImages"] = Outcome.DENIED
    begun = await parts.rotate(made)
    await parts.step()
    if what == "reading":
        await parts.step()
    failed = await parts.newest(made)
    assert failed.state is RotationState.FAILED
    assert said in failed.problem
    assert failed.problem.endswith("The credential before stays in use.")
    assert f"deactivate the access key {NEW}" in failed.advice
    assert (await parts.get(made)) == made
    assert await parts.sealed() == {begun.replaced_id}
    await parts.step()
    assert parts.feed.told == [begun.candidate_id]
    assert (await parts.events())[-2:] == ["fail", "revoke"]
    # It is no obstacle to the next one.
    parts.cloud.refused, parts.cloud.unread, parts.cloud.role = set(), {}, "ALLOWED"
    await parts.rotate(made)
    await parts.step()
    await parts.step()
    assert (await parts.newest(made)).state is RotationState.DRAINING


async def test_a_cloud_that_does_not_answer_is_asked_for_a_day_and_told_of_once(parts: Rotations) -> None:
    made = await parts.connect()
    parts.cloud.role = "UNREACHABLE"
    begun = await parts.rotate(made)
    for _ in range(3):
        await parts.step()
        parts.clock.ahead += PAUSE
    assert await parts.events() == ["rotate", "wait"]
    assert "AWS didn't answer" in (await parts.newest(made)).problem
    parts.clock.ahead += PATIENCE
    await parts.step()
    assert (await parts.newest(made)).state is RotationState.FAILED
    assert await parts.sealed() == {begun.replaced_id}


async def test_a_kill_at_any_step_loses_nothing(parts: Rotations, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await parts.connect()
    begun = await parts.rotate(made)
    for step in STEPS:

        def reach(name: str, step: str = step) -> None:
            if name == f"rotate.{step}":
                raise Killed

        monkeypatch.setattr(failpoints, "_reached", reach)
        (job_id,) = await parts.jobs()
        lost = await parts.claim(job_id)
        with pytest.raises(Killed):
            await parts.work(lost)
        assert (await parts.get(made)).credential_id in await parts.sealed()
        parts.clock.wall_ahead += timedelta(seconds=70)
        if step in ("promoted", "told"):
            drain(parts)
    assert not await parts.jobs()
    assert (await parts.newest(made)).state is RotationState.DONE
    assert set(parts.feed.told) == {begun.replaced_id}
    assert await parts.sealed() == {begun.candidate_id}
    assert await parts.events() == ["rotate", "probe", "promote", "revoke"]


async def test_work_in_flight_keeps_what_it_was_granted_and_gets_the_new_one_when_it_renews(parts: Rotations) -> None:
    made = await parts.connect()
    with entered(context(ACME, "scanner.scan.start", rpc="scanner/StartScan")):
        async with parts.api.begin() as work:
            await scanning.start_scan(work, parts.planner, made.connection_id)
    (scan_id,) = await parts.jobs(SCAN)
    scan = await parts.claim(scan_id)
    begun = await parts.rotate(made)
    await parts.step()
    await parts.step()

    async def opens(credential_id: str) -> bool:
        async with parts.api.read(ACME) as connection:
            try:
                return bool(await get_envelope(connection, UUID(credential_id)))
            except NotFound:
                return False

    held = scan.credential("scan", "1" * 12)
    assert held.credential_id == str(begun.replaced_id)
    assert await opens(held.credential_id)
    with entered(context(None, peer="scanner-worker", peer_thumbprint="x5t")):
        renewed = await parts.desk.renew(scan.job_id, scan.fence)
    assert {scope.credential_id for scope, _ in renewed.credential_grants} == {begun.candidate_id}
    # The credential before lives as long as what was granted for it.
    grant = read_own_grant(held.grant)
    parts.clock.wall_ahead += timedelta(seconds=grant.expires_at - parts.clock.wall_seconds())
    parts.clock.ahead += DRAIN
    await parts.step()
    assert await opens(held.credential_id)
    drain(parts)
    await parts.step()
    assert not await opens(held.credential_id)
    # Plans and bill sources that name the one before are carried out with the one in use; who isn't rotated is itself.
    assert await rotating.resolve_credential(parts.api, ACME, begun.replaced_id) == (begun.candidate_id, None)
    assert await rotating.resolve_credential(parts.api, ACME, begun.candidate_id) == (begun.candidate_id, None)
    assert await rotating.resolve_credential(parts.api, GLOBEX, begun.replaced_id) == (begun.replaced_id, None)
    again = await parts.rotate(made, "AKIA" + "C" * 16)
    await parts.step()
    await parts.step()
    for earlier in (begun.replaced_id, begun.candidate_id):
        assert await rotating.resolve_credential(parts.api, ACME, earlier) == (again.candidate_id, None)


async def test_one_at_a_time_and_the_way_out_is_to_give_it_up(parts: Rotations) -> None:
    made, other = await parts.connect(), await parts.connect()
    begun = await parts.rotate(made)
    with pytest.raises(WrongState) as refused:
        await parts.rotate(made, "AKIA" + "C" * 16)
    assert "recoup credential cancel" in refused.value.message
    assert len(await parts.sealed()) == 3
    (job_id,) = await parts.jobs()
    running = await parts.claim(job_id)
    cancelled = await parts.cancel(made)
    assert cancelled.state is RotationState.CANCELLED
    assert await parts.sealed() == {made.credential_id, other.credential_id}
    # A worker that was at it finds that it is over, and tells with its next lease.
    await parts.work(running)
    await parts.step()
    assert parts.feed.told == [begun.candidate_id]
    assert await parts.events() == ["rotate", "cancel", "revoke"]
    for words in ("is CANCELLED, so there is nothing to give up", "in use already"):
        with pytest.raises(WrongState) as refused:
            await parts.cancel(made)
        assert words in refused.value.message
        if words.startswith("is"):
            await parts.rotate(made)
            await parts.step()
            await parts.step()
    with pytest.raises(WrongState, match="never rotated"):
        await parts.cancel(other)
    with pytest.raises(NotFound):
        await parts.cancel(made, GLOBEX)
    with pytest.raises(NotFound):
        await parts.rotate(made, organization=GLOBEX)


async def test_what_cannot_be_rotated_is_refused_and_leaves_nothing(parts: Rotations) -> None:
    made = await parts.connect()
    for key, rule in ((OLD, "must be another key"), (f" {NEW}", "has a blank"), ("short", "must be 16 to 128")):
        with pytest.raises(Invalid, match=rule):
            await parts.rotate(made, key)
    # A candidate that was sealed before somebody else's rotation came into use isn't for this connection any more.
    with entered(context(ACME, "scanner.credential.rotate", rpc="scanner/RotateCredential")):
        late = await rotating.seal_candidate(
            parts.api, parts.sealer, made.connection_id, NewSecret("AKIA" + "C" * 16, "t" * 40)
        )
    await parts.rotate(made)
    await parts.step()
    await parts.step()
    drain(parts)
    await parts.step()
    with entered(context(ACME, "scanner.credential.rotate", rpc="scanner/RotateCredential")):
        with pytest.raises(Conflict):
            async with parts.api.begin() as work:
                await rotating.rotate_credential(work, parts.planner, rotating.KeyRules("", True), late)
    await parts.disable(made)
    with pytest.raises(WrongState, match="DISABLED"):
        await parts.rotate(made, OLD)
    assert await parts.sealed() == set()


async def test_disabling_the_connection_gives_it_up_and_destroys_what_was_sealed(parts: Rotations) -> None:
    made, other = await parts.connect(), await parts.connect()
    begun = await parts.rotate(made)
    await parts.disable(made)
    assert (await parts.newest(made)).state is RotationState.CANCELLED
    assert await parts.sealed() == {other.credential_id}
    await parts.step()
    assert parts.feed.told == [begun.candidate_id]


async def test_to_no_key_and_back_says_what_to_do_with_the_trust_policy(parts: Rotations) -> None:
    made = await parts.connect()
    for key, advice in (("", f"deactivate the access key {OLD}"), (NEW, "take the principal that the broker has")):
        await parts.rotate(made, key)
        await parts.step()
        await parts.step()
        drain(parts)
        await parts.step()
        assert advice in (await parts.newest(made)).advice
    assert (await parts.get(made)).access_key_id == NEW


async def test_a_feed_that_is_away_is_waited_for_and_a_dead_job_leaves_nothing_open(parts: Rotations) -> None:
    made = await parts.connect()
    begun = await parts.rotate(made)
    await parts.step()
    await parts.step()
    drain(parts)
    parts.feed.is_away = True
    (job_id,) = await parts.jobs()
    for _ in range(6):
        with pytest.raises(Unavailable):
            await parts.work(await parts.claim(job_id))
        assert begun.replaced_id in await parts.sealed()
        parts.clock.wall_ahead += timedelta(seconds=70)
    with pytest.raises(WrongState):  # Five workers died with it.
        await parts.claim(job_id)
    done = await parts.newest(made)
    assert done.state is RotationState.DONE
    assert "couldn't be told" in done.problem
    assert await parts.sealed() == {begun.candidate_id}


async def test_the_feed_takes_a_rotations_two_credentials_and_no_other(parts: Rotations) -> None:
    made, other = await parts.connect(), await parts.connect()
    begun = await parts.rotate(made)
    (job_id,) = await parts.jobs()
    grant = read_own_grant((await parts.claim(job_id)).grant)
    assert "identity" not in grant.audience
    kind = publishing.RevocationKind.CREDENTIAL
    for each, is_allowed in ((begun.replaced_id, True), (begun.candidate_id, True), (other.credential_id, False)):
        assert publishing._allows(grant, kind, [each]) is is_allowed
    assert not publishing._allows(grant, kind, [begun.replaced_id, begun.candidate_id])
    with entered(context(ACME, grant=grant)), pytest.raises(Denied):
        await publishing.publish_credentials(parts.api, kind, [other.credential_id])


async def test_the_worker_itself_drops_only_what_a_rotation_put_out_of_use(parts: Rotations) -> None:
    """Whoever has the worker's login can't take the credentials of others from their connections."""
    made, other = await parts.connect(), await parts.connect()

    async def drops(credential_id: UUID) -> bool:
        """Whether the database lets the worker drop it, by the refusal's own words."""
        said = ""
        with entered(context(ACME, "scanner.credential.revoke")):
            try:
                async with parts.worker.begin() as work:
                    await destroy_credential(work.connection, credential_id)
                    work.emit("scanner.credential.revoke", "connections/x")
            except ProgrammingError as refused:
                said = str(refused.orig)
        assert not said or "the worker drops only what is out of use" in said
        return not said

    assert not await drops(other.credential_id)
    begun = await parts.rotate(made)
    for each in (begun.replaced_id, begun.candidate_id):
        assert not await drops(each)
    await parts.step()
    await parts.step()
    assert not await drops(begun.candidate_id)  # In use.
    assert not await drops(other.credential_id)
    assert await parts.sealed() == {begun.replaced_id, begun.candidate_id, other.credential_id}
    assert await drops(begun.replaced_id)
