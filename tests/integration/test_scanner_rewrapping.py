"""A KEK's rotation: moved in batches that survive a kill at any step, told to the broker, retired when empty."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from recoup.identity.v1 import identity_pb2, identity_service_pb2, identity_service_pb2_grpc
from recoup.scanner.v1 import secrets_service_pb2 as pb
from services._mesh import failpoints
from services._mesh.context import entered
from services._mesh.envelope import open_envelope, parse, rewrap
from services._mesh.errors import Denied, Unavailable, WrongState
from services._mesh.kms.interface import EnvelopeBroken, Kek, KeyService, SecretContext
from services._mesh.revocations import RevocationKind
from services.scanner.clients.rewrapping import Keeper, Wrapper
from services.scanner.model.cloud import Identity, Provider
from services.scanner.model.connection import CREDENTIAL_PURPOSE, Connection, NewConnection
from services.scanner.model.kek import KekState, RegisteredKek
from services.scanner.model.rewrapping import BATCH, REWRAP, Moved, Sealed, SealedBatch
from services.scanner.rpc.secrets_posture import SecretsRpc
from services.scanner.usecases import rewrapping
from services.scanner.usecases.keks import count_uses
from tests.support.kms import RING
from tests.support.postgres import TestDatabase
from tests.support.sealing import BY_RULE, Sealing, sealing_parts
from tests.support.things import ACME, GLOBEX, Uncounted, context

pytestmark = pytest.mark.services("scanner", "identity")
STEPS = ("fetched", "told", "wrapped", "stored")


class Killed(BaseException):
    """The process is gone: nothing after this line runs."""


@pytest.fixture
async def parts(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Sealing]:
    async with sealing_parts(database, tmp_path) as made:
        yield made


def secret(made: Connection) -> SecretContext:
    return SecretContext(made.organization_id, made.credential_id, CREDENTIAL_PURPOSE)


async def test_a_credential_of_another_cloud_moves_under_its_own_purpose(parts: Sealing) -> None:
    identity = Identity({"tenant_id": "t", "client_id": "c"}, {"client_secret": "s" * 40})
    made = await parts.make(NewConnection("acme", "", "", (), (), Provider.AZURE, identity), ACME, BY_RULE)
    await parts.register(1)
    await parts.rotate()
    (job_id,) = await parts.jobs(REWRAP)
    await parts.settle(job_id)
    envelope = await parts.envelope(made.credential_id)
    assert parse(envelope).kek.reference == f"{RING}/acme/1"
    opened = await open_envelope(envelope, SecretContext(ACME, made.credential_id, "azure.credential"), parts.kms)
    assert b"client_secret" in opened
    with pytest.raises(EnvelopeBroken):
        await open_envelope(envelope, secret(made), parts.kms)


async def keks_of(parts: Sealing, made: list[Connection]) -> set[str]:
    found = [parse(await parts.envelope(each.credential_id, each.organization_id)).kek for each in made]
    return {each.reference for each in found}


async def retire(parts: Sealing, version: int) -> RegisteredKek:
    with entered(context(ACME, "scanner.kek.retire", rpc="scanner/RetireKek")):
        async with parts.api.begin() as work:
            return await rewrapping.retire_kek(work, version)


async def test_everything_moves_by_one_unwrap_and_one_wrap_whatever_is_killed(
    parts: Sealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [await parts.connect() for _ in range(BATCH + 3)]
    other = await parts.connect(GLOBEX)
    before = {each.credential_id: await parts.envelope(each.credential_id) for each in made}
    await parts.register(1)
    assert await parts.rotate() == len(made)
    (job_id,) = await parts.jobs(REWRAP)
    # What a worker that was killed has cost is counted apart.
    for step in STEPS:

        def reach(name: str, step: str = step) -> None:
            if name == f"rewrap.{step}":
                raise Killed

        monkeypatch.setattr(failpoints, "_reached", reach)
        lost = await parts.claim(job_id)
        with pytest.raises(Killed):
            await parts.rewrap(lost)
        assert await parts.jobs(REWRAP) == [job_id]
        for each in made:  # Whatever is under which key, it opens.
            await open_envelope(await parts.envelope(each.credential_id), secret(each), parts.ring.whole)
        parts.clock.wall_ahead += (lost.lease_until - parts.clock.wall_now()) * 1.1
    monkeypatch.setattr(failpoints, "_reached", lambda _name: None)
    await parts.settle(job_id)
    assert await keks_of(parts, made) == {f"{RING}/acme/1"}
    assert await keks_of(parts, [other]) == {f"{RING}/by-rule/1"}
    for each in made:
        old, new = parse(before[each.credential_id]), parse(await parts.envelope(each.credential_id))
        assert (old.commitment, old.nonce, old.sealed) == (new.commitment, new.nonce, new.sealed)
    async with asyncio.timeout(10):
        while len({each.key for each in parts.heard}) < len(made):
            parts.told.clear()
            await parts.told.wait()
    assert {each.kind for each in parts.heard} == {RevocationKind.RESEALED}
    # A version that doesn't know the kind goes on, with something in its place that takes nothing from anybody.
    watching = identity_service_pb2_grpc.IdentityServiceStub(parts.identity).WatchRevocations(
        identity_service_pb2.WatchRevocationsRequest()
    )
    piece = await watching.read()
    watching.cancel()
    assert [each.seq for each in piece.revocations] == [each.seq for each in parts.heard]
    assert {(each.kind, each.key.partition("/")[0]) for each in piece.revocations} == {
        (identity_pb2.REVOCATION_KIND_TOKEN, "resealed")
    }
    # It takes no trust: grants for these credentials go on.
    assert not parts.known.is_revoked(RevocationKind.CREDENTIAL, str(made[0].credential_id), 0.0)
    assert len(await parts.events("scanner.kek.settle")) == 1

    # Undisturbed, each costs one call each way.
    await parts.register(2)
    await parts.rotate()
    (job_id,) = await parts.jobs(REWRAP)
    parts.kms.wraps = parts.kms.unwraps = 0
    assert await parts.settle(job_id) == 4  # Two batches, what is told of the second, and the end.
    assert (parts.kms.unwraps, parts.kms.wraps) == (len(made), len(made))
    assert (await retire(parts, 1)).state is KekState.RETIRED


async def test_a_key_is_retired_only_when_nothing_is_under_it_and_the_error_names_what_is(parts: Sealing) -> None:
    first = Kek(KeyService.FILE, f"{RING}/acme/1")
    await parts.register(1)
    made = [await parts.connect(kek=first) for _ in range(2)]
    with pytest.raises(WrongState) as refused:
        await retire(parts, 1)
    assert "ACTIVE" in refused.value.message
    await parts.register(2)
    parts.ring.set_states({first.reference: "DISABLED"})
    await parts.rotate()
    (job_id,) = await parts.jobs(REWRAP)
    await parts.settle(job_id)
    with entered(context(ACME)):
        uses = await count_uses(parts.api)
    assert (dict(uses.by_reference), uses.by_rule, uses.stuck) == ({first.reference: 2}, 0, 2)
    parts.clock.ahead += timedelta(days=91)
    with entered(context(ACME)):
        rpc = SecretsRpc(parts.api, Uncounted(), parts.clock)  # type: ignore[arg-type]  # It stands in.
        asked = pb.GetSecretsPostureRequest(organization_id=str(ACME))
        posture = await rpc.GetSecretsPosture(asked, None)
    assert (posture.credentials_total, posture.unrotated, posture.stuck) == (2, 2, 2)
    newest = f"{RING}/acme/2"
    assert [(e.kek, e.credentials, e.version) for e in posture.keks] == [(first.reference, 2, 1), (newest, 0, 2)]
    assert [(e.connection_id, e.age_days, e.problem) for e in posture.credentials] == [
        (str(each.connection_id), 91, "its key is DISABLED") for each in made
    ]
    with entered(context(GLOBEX)):
        assert not (await rpc.GetSecretsPosture(pb.GetSecretsPostureRequest(), None)).credentials_total
    with pytest.raises(WrongState) as refused:
        await retire(parts, 1)
    assert "2 credentials are sealed under it" in refused.value.message
    assert f"connection {made[0].connection_id} (its key is DISABLED)" in refused.value.message

    # The key is enabled again: the next rotation tries what was stuck.
    parts.ring.set_states({})
    assert await parts.rotate() == 2
    (job_id,) = await parts.jobs(REWRAP)
    await parts.settle(job_id)
    assert (await retire(parts, 1)).state is KekState.RETIRED
    with pytest.raises(Exception, match="retired at the same moment"):
        await parts.connect(kek=first)


@pytest.mark.parametrize("state", ["TIMEOUT", "DENIED", "MISSING"])
async def test_a_key_service_that_is_away_is_waited_for(parts: Sealing, state: str) -> None:
    made = await parts.connect()
    await parts.register(1)
    await parts.rotate()
    (job_id,) = await parts.jobs(REWRAP)
    parts.ring.set_states({f"{RING}/acme/1": state})
    claimed = await parts.claim(job_id)
    with pytest.raises(Unavailable):  # Of which no job dies.
        await parts.rewrap(claimed)
    assert await keks_of(parts, [made]) == {f"{RING}/by-rule/1"}


async def test_what_the_grant_does_not_say_is_not_done(parts: Sealing) -> None:
    made, foreign = await parts.connect(), await parts.connect(GLOBEX)
    await parts.register(1)
    await parts.rotate()
    (job_id,) = await parts.jobs(REWRAP)
    claimed = await parts.claim(job_id)
    keeper, wrapper = Keeper(parts.scanner), Wrapper(parts.broker)
    with entered(claimed.context()):
        batch = await keeper.fetch(claimed.grant)
        assert [each.credential_id for each in batch.credentials] == [made.credential_id]
        # Another KEK than the grant's, such as one of whoever asks.
        elsewhere = SealedBatch(Kek(KeyService.FILE, f"{RING}/mine/1"), batch.credentials, (), 0)
        with pytest.raises(Denied):
            await wrapper.moved(claimed.grant, elsewhere)
        # Another organization's credential isn't opened under this one's context.
        sealed = await parts.envelope(foreign.credential_id, GLOBEX)
        theirs = SealedBatch(batch.kek, [Sealed(foreign.credential_id, sealed, CREDENTIAL_PURPOSE)], (), 0)
        (stuck,) = await wrapper.moved(claimed.grant, theirs)
        assert stuck.problem
        assert not stuck.envelope
        # One grant, one call.
        with pytest.raises(Denied):
            await wrapper.moved(claimed.grant, batch)
        # Another payload, or what was made from something else, isn't put in its place.
        before = await parts.envelope(made.credential_id)
        new = await rewrap(before, secret(made), batch.kek, parts.ring.whole)
        of = hashlib.sha256(before).digest()
        changed = new[:-1] + bytes([new[-1] ^ 1])
        for digest, envelope in ((b"x" * 32, new), (of, changed), (of, before)):
            await keeper.store(claimed.grant, [Moved(made.credential_id, digest, envelope, "")], ())
            assert await parts.envelope(made.credential_id) == before
        await keeper.store(claimed.grant, [Moved(made.credential_id, of, new, "")], ())
        assert await parts.envelope(made.credential_id) == new
