"""Who disables a connection fills the revocation feed, in the same transaction; the broker forgets within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from services._mesh.context import entered
from services._mesh.errors import Denied, Unavailable, WrongState
from services._mesh.kms.interface import SecretContext
from services._mesh.revocations import RevocationKind
from services.scanner.clients.feed import Feed
from services.scanner.model.connection import CREDENTIAL_PURPOSE, Connection
from services.scanner.usecases import connections
from services.scanner.usecases.credentials import REVOKE, revoke_credential
from tests.support.postgres import TestDatabase
from tests.support.sealing import Sealing, sealing_parts
from tests.support.things import ACME, context

pytestmark = pytest.mark.services("scanner", "identity")


@pytest.fixture
async def parts(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Sealing]:
    async with sealing_parts(database, tmp_path) as made:
        yield made


async def disable(parts: Sealing, made: Connection) -> None:
    with entered(context(ACME, "scanner.connection.disable", rpc="scanner/DisableConnection")):
        async with parts.api.begin() as work:
            await connections.disable_connection(work, parts.planner, made.connection_id, made.etag)


async def test_a_disabled_connection_leaves_the_brokers_cache_within_seconds(parts: Sealing) -> None:
    made = await parts.connect()
    envelope = await parts.envelope(made.credential_id)
    secret = SecretContext(ACME, made.credential_id, CREDENTIAL_PURPOSE)
    for _ in range(2):
        await parts.opener.open(envelope, secret)
    assert parts.kms.unwraps == 1
    await disable(parts, made)
    (job_id,) = await parts.jobs(REVOKE)

    # A worker that dies before or after it told leaves the row: it is told again, which changes nothing.
    died = await parts.claim(job_id)
    away = grpc.aio.insecure_channel("127.0.0.1:1")
    with pytest.raises(Unavailable):
        await parts.revoke(died, Feed(away))
    await away.close()
    await Feed(parts.identity).revoked(died.grant, died.subject_id)
    assert await parts.jobs(REVOKE) == [job_id]
    parts.clock.wall_ahead += (died.lease_until - parts.clock.wall_now()) * 1.1
    await parts.revoke(await parts.claim(job_id))
    assert not await parts.jobs(REVOKE)

    async with asyncio.timeout(10):
        await parts.told.wait()
    assert {(each.kind, each.key) for each in parts.heard} == {(RevocationKind.CREDENTIAL, str(made.credential_id))}
    assert parts.known.is_revoked(RevocationKind.CREDENTIAL, str(made.credential_id), parts.clock.wall_seconds() + 60)
    await parts.opener.open(envelope, secret)
    assert parts.kms.unwraps == 2


async def test_what_is_in_use_is_not_revoked_and_a_grant_is_for_one(parts: Sealing) -> None:
    made, other = await parts.connect(), await parts.connect()
    async with parts.api.begin(ACME, context(ACME)) as work:
        await revoke_credential(work, parts.planner, made.credential_id)
    (job_id,) = await parts.jobs(REVOKE)
    with pytest.raises(WrongState) as refused:
        await parts.claim(job_id)
    assert "in use" in refused.value.message

    await disable(parts, other)
    claimed = await parts.claim(next(each for each in await parts.jobs(REVOKE) if each != job_id))
    feed = Feed(parts.identity)
    with pytest.raises(Denied):
        await feed.revoked(claimed.grant, made.credential_id)
    with pytest.raises(Denied):
        await feed.resealed(claimed.grant, [other.credential_id])
    assert not parts.heard
