"""How sealed credentials stand: ages, last use, rotations, limits and failures, for an organization and summed up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from recoup.scanner.v1 import secrets_service_pb2 as pb
from services._mesh.context import entered
from services._mesh.grants import CredentialScope, read_own_grant
from services._mesh.metrics import Metrics
from services.scanner.model.connection import Connection
from services.scanner.model.posture import DecryptFailure, DecryptFailures
from services.scanner.rpc.secrets_posture import SecretsRpc
from services.scanner.secrets_watch import SecretsWatch
from services.scanner.store import connections as store
from services.scanner.usecases import connections, rotation_rules
from tests.support.postgres import TestDatabase
from tests.support.rotating import Rotations, rotations_on
from tests.support.things import ACME, GLOBEX, Uncounted, context

pytestmark = pytest.mark.services("scanner")
DAY = timedelta(days=1)


@pytest.fixture
async def parts(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Rotations]:
    async with rotations_on(database, tmp_path) as made:
        yield made


class Counted:
    """Stands in for the broker's counts."""

    def __init__(self, found: DecryptFailures) -> None:
        self._found = found

    async def find(self, organization_id: UUID) -> DecryptFailures:
        assert organization_id == ACME
        return self._found


async def use(parts: Rotations, made: Connection) -> None:
    """Fetch the credential in use, as a worker does before the broker opens it."""
    found = await parts.get(made)
    await parts.rotate(made, "AKIA" + "Z" * 16)
    (job_id,) = await parts.jobs()
    grant = read_own_grant((await parts.claim(job_id)).grant)
    scope = CredentialScope(credential_id=found.credential_id, purpose="scan", account="1" * 12)
    given = context(ACME, grant=type(grant)(**{n: getattr(grant, n) for n in grant.__slots__} | {"credential": scope}))
    with entered(given):
        assert await connections.fetch_sealed_credential(parts.api, found.credential_id)


async def test_each_credential_shows_its_age_use_rotation_and_limit_and_nothing_more(parts: Rotations) -> None:
    made = await parts.connect()
    keyless = await parts.connect(key="")
    with entered(context(ACME, "scanner.rotation_rules.set", rpc="scanner/SetRotationRules")):
        async with parts.api.begin() as work:
            await rotation_rules.set_rotation_rules(work, 20, 60)
    parts.clock.ahead += 30 * DAY
    await use(parts, made)
    now = parts.clock.now()
    failed = DecryptFailures(now, (DecryptFailure("KMS_UNAVAILABLE", 3, now),))

    async def posture() -> pb.GetSecretsPostureResponse:
        with entered(context(ACME)):
            rpc = SecretsRpc(parts.api, Counted(failed), parts.clock)  # type: ignore[arg-type]  # It stands in.
            return await rpc.GetSecretsPosture(pb.GetSecretsPostureRequest(organization_id=str(ACME)), None)

    found = await posture()
    standing = {each.credential_id: each for each in found.credentials}
    first, other = standing[str(made.credential_id)], standing[str(keyless.credential_id)]
    (tried,) = [each for each in found.credentials if each.standing == pb.CREDENTIAL_STANDING_TRIED]
    assert (first.standing, other.standing) == (pb.CREDENTIAL_STANDING_IN_USE, pb.CREDENTIAL_STANDING_IN_USE)
    assert abs(first.last_used_at.seconds - now.timestamp()) < 60
    assert not first.HasField("rotated_at")
    assert first.remind_at.seconds - first.created_at.seconds == 20 * 86_400
    assert first.refused_from.seconds - first.created_at.seconds == 60 * 86_400
    # Where there is no secret, nothing of it gets old.
    assert (other.HasField("remind_at"), other.HasField("refused_from"), other.HasField("last_used_at")) == (False,) * 3
    assert (found.credentials_total, found.unrotated) == (3, 1)
    assert (found.rules.remind_after_days, found.rules.rotate_within_days) == (20, 60)
    assert [(each.reason, each.count) for each in found.decrypt_failures] == [("KMS_UNAVAILABLE", 3)]
    (kek,) = found.keks
    assert (kek.credentials, kek.last_used_at.seconds, kek.version) == (3, first.last_used_at.seconds, 0)

    parts.clock.wall_ahead += timedelta(seconds=70)
    await parts.step()
    await parts.step()
    found = await posture()
    standing = {each.credential_id: each for each in found.credentials}
    assert standing[tried.credential_id].standing == pb.CREDENTIAL_STANDING_IN_USE
    assert standing[tried.credential_id].HasField("rotated_at")
    assert standing[str(made.credential_id)].standing == pb.CREDENTIAL_STANDING_REPLACED
    await parts.disable(made)
    assert str(made.connection_id) not in {each.connection_id for each in (await posture()).credentials}
    with entered(context(ACME)):
        rpc = SecretsRpc(parts.api, Uncounted(), parts.clock)  # type: ignore[arg-type]
        away = await rpc.GetSecretsPosture(pb.GetSecretsPostureRequest(organization_id=str(ACME)), None)
    assert not away.HasField("decrypt_failures_since")


async def test_all_organizations_are_summed_up_and_none_is_named(parts: Rotations, database: TestDatabase) -> None:
    mine = await parts.connect()
    theirs = await parts.connect(GLOBEX)
    await parts.connect(GLOBEX, key="")
    metrics, relay = Metrics(), database.role("scanner_relay")
    watch = SecretsWatch(relay, parts.api, parts.clock, metrics)
    with entered(context(ACME, "scanner.rotation_rules.set", rpc="scanner/SetRotationRules")):
        async with parts.api.begin() as work:
            await rotation_rules.set_rotation_rules(work, 20, 60)

    async def shown() -> dict[str, float]:
        await watch.look()
        lines = [line.rpartition(" ") for line in metrics.render().splitlines() if line.startswith("recoup_secrets")]
        return {name.removeprefix("recoup_secrets_"): float(value) for name, _, value in lines}

    def counts(held: int, unrotated: int, too_old: int) -> dict[str, float]:
        states = {"held": held, "stuck": 0, "too_old": too_old, "unrotated": unrotated}
        return {f'credentials{{state="{state}"}}': float(count) for state, count in states.items()}

    assert counts(3, 0, 0).items() <= (await shown()).items()
    parts.clock.ahead += 61 * DAY
    found = await shown()
    assert counts(3, 1, 1).items() <= found.items()
    assert 61 <= found["oldest_days"] < 62
    assert found["rotation_open_seconds"] == 0
    parts.clock.ahead += 30 * DAY
    await parts.rotate(mine)
    parts.clock.ahead += DAY
    found = await shown()
    assert counts(4, 2, 1).items() <= found.items()
    assert 86_400 <= found["rotation_open_seconds"] < 86_500
    await parts.disable(mine)
    assert counts(2, 1, 0).items() <= (await shown()).items()
    # What was accepted and has something wrong since; what is switched off has not.
    assert "recoup_connections_drifted 0" in metrics.render()
    with entered(context(GLOBEX, "scanner.connection.drift", rpc="scanner/CheckConnection")):
        async with parts.api.begin() as work:
            await store.mark_connection(work.connection, theirs.connection_id, problem="it lacks a permission")
            work.emit("scanner.connection.drift", f"connections/{theirs.connection_id}")
    await shown()
    assert "recoup_connections_drifted 1" in metrics.render()
    assert str(GLOBEX) not in metrics.render()
    await relay.close()
