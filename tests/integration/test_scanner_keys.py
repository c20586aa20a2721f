"""The organization's own keys: shown once, two at most live, ended for good, moved with its KEK, signed with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import grpc.aio
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from recoup.broker.v1 import broker_service_pb2, broker_service_pb2_grpc
from recoup.scanner.v1 import key_service_pb2 as pb
from recoup.scanner.v1 import secrets_service_pb2
from services._mesh.claimed import ClaimedJob
from services._mesh.context import entered
from services._mesh.envelope import open_envelope, parse
from services._mesh.errors import AlreadyExists, Denied, Exhausted, Invalid, NotFound, WrongState, from_rpc_error
from services._mesh.grants import CredentialScope, metadata, read_own_grant
from services._mesh.kms.interface import EnvelopeBroken, SecretContext
from services._mesh.kms.opening import Sealer
from services._mesh.outbox import EventOwed
from services._mesh.pages import PageTokens
from services.broker.signing import Message, signature
from services.scanner.model.key import KeyPurpose, content
from services.scanner.model.rewrapping import REWRAP
from services.scanner.rpc.keys import KeyRpc
from services.scanner.rpc.secrets_posture import SecretsRpc
from services.scanner.usecases import connections, rewrapping
from services.scanner.usecases import keys as usecases
from services.scanner.usecases.credentials import REVOKE
from services.scanner.usecases.kinds import DELIVER
from tests.support.kms import RING
from tests.support.postgres import TestDatabase
from tests.support.sealing import Sealing, sealing_parts
from tests.support.things import ACME, GLOBEX, Uncounted, context

pytestmark = pytest.mark.services("scanner", "identity")
MESSAGE_ID, BODY = "msg_1", b'{"type":"finding.opened"}'


@dataclass
class Keyed:
    """The scanner's RPCs of keys beside the parts of sealing."""

    parts: Sealing
    rpc: KeyRpc

    async def call(self, name: str, request: Any, organization: UUID = ACME) -> Any:
        noun = {"CreateKey": "create", "RotateKey": "rotate", "RevokeKey": "revoke", "ListKeys": ""}[name]
        action = f"scanner.key.{noun}" if noun else ""
        with entered(context(organization, action, rpc=f"scanner/{name}")):
            return await getattr(self.rpc, name)(request, None)

    async def create(self, organization: UUID = ACME, **more: Any) -> pb.CreateKeyResponse:
        given = {"purpose": pb.KEY_PURPOSE_WEBHOOK, "name": "slack", **more}
        return await self.call(
            "CreateKey", pb.CreateKeyRequest(organization_id=str(organization), **given), organization
        )

    async def rotate(self, key_id: str, overlap_hours: int = 24, **more: Any) -> pb.RotateKeyResponse:
        request = pb.RotateKeyRequest(organization_id=str(ACME), key_id=key_id, overlap_hours=overlap_hours, **more)
        return await self.call("RotateKey", request)

    async def revoke(self, key_id: str, organization: UUID = ACME) -> pb.Key:
        request = pb.RevokeKeyRequest(organization_id=str(organization), key_id=key_id)
        return (await self.call("RevokeKey", request, organization)).key

    async def states(self, organization: UUID = ACME) -> list[tuple[str, str]]:
        found = await self.call("ListKeys", pb.ListKeysRequest(organization_id=str(organization)), organization)
        return [(each.key_id, pb.KeyState.Name(each.state).removeprefix("KEY_STATE_")) for each in found.keys]

    async def delivery(self, key_id: str) -> ClaimedJob:
        """A claimed job of the notifier's, as whoever plans deliveries would make one."""
        planner, subject = self.parts.planner, UUID(key_id)
        async with self.parts.api.begin(ACME, context(ACME)) as work:
            await work.cancel_jobs(DELIVER, subject)
            await work.enqueue(planner.plan(ACME, DELIVER, subject, work.now - timedelta(seconds=1)))
        (job_id,) = await self.parts.jobs(DELIVER)
        return await self.parts.claim(job_id, "notifier")

    async def signatures(self, job: ClaimedJob) -> tuple[int, list[str]]:
        """What the notifier would do: each live key's envelope fetched, and signed with by the broker."""
        stub, at = broker_service_pb2_grpc.BrokerServiceStub(self.parts.broker), int(time.time())
        made = []
        for each in job.credentials:
            with entered(context(ACME, peer="notifier", grant=read_own_grant(each.grant))):
                sealed = await connections.fetch_sealed_credential(self.parts.api, UUID(each.credential_id))
            request = broker_service_pb2.SignWebhookRequest(
                sealed_key=sealed, webhook_id=MESSAGE_ID, timestamp=at, body=BODY
            )
            try:
                answer = await stub.SignWebhook(request, metadata=metadata(each.grant), timeout=20)
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, "broker") from None
            made.append(answer.signature)
        return at, made

    async def heard(self, key_id: str) -> None:
        """Wait until the broker was told of a key's end."""
        async with asyncio.timeout(10):
            while key_id not in {each.key for each in self.parts.heard}:
                self.parts.told.clear()
                await self.parts.told.wait()


@pytest.fixture
async def keyed(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Keyed]:
    async with sealing_parts(database, tmp_path) as parts:
        sealer = Sealer(parts.ring.sealing, parts.keks.kek_in_use)
        yield Keyed(parts, KeyRpc(parts.api, parts.planner, sealer, PageTokens(b"k" * 32)))


def expected(secret: str, at: int) -> str:
    return signature(bytearray(content(KeyPurpose.WEBHOOK, secret)), Message(MESSAGE_ID, at, BODY))


async def test_a_generated_key_is_shown_once_and_is_nowhere_else(keyed: Keyed) -> None:
    request_id = str(uuid4())
    made = await keyed.create(request_id=request_id)
    assert made.secret.startswith("whsec_")
    again = await keyed.create(request_id=request_id)
    assert (again.key, again.secret) == (made.key, "")
    key_id, secret = UUID(made.key.key_id), content(KeyPurpose.WEBHOOK, made.secret)
    envelope = await keyed.parts.envelope(key_id)
    assert await open_envelope(envelope, SecretContext(ACME, key_id, "webhook.key"), keyed.parts.ring.whole) == secret
    for other in ("ai.key", "aws.base_key"):
        with pytest.raises(EnvelopeBroken):
            await open_envelope(envelope, SecretContext(ACME, key_id, other), keyed.parts.ring.whole)
    async with keyed.parts.api.read(ACME) as connection:
        for table in ("organization_keys", "credentials", "outbox", "idempotency"):
            dumped = str((await connection.execute(text(f"SELECT t::text FROM scanner.{table} AS t"))).all())
            assert dumped != "[]"
            for written in (made.secret, made.secret.encode().hex(), secret.hex()):
                assert written not in dumped
    # A name is of one active key; a given key isn't shown; another organization has nothing to do with it.
    with pytest.raises(AlreadyExists):
        await keyed.create()
    assert not (await keyed.create(purpose=pb.KEY_PURPOSE_AI, secret="sk-test-0123456789")).secret
    assert await keyed.states(GLOBEX) == []
    for attempt in (keyed.revoke(made.key.key_id, GLOBEX), keyed.rotate(str(uuid4()))):
        with pytest.raises(NotFound):
            await attempt
    for wrong in ({"purpose": pb.KEY_PURPOSE_AI, "name": "b"}, {"secret": "whsec_x", "name": "c"}):
        with pytest.raises(Invalid) as refused:
            await keyed.create(**wrong)
        assert [each.field for each in refused.value.field_violations] == ["secret"]
    (created, _) = await keyed.parts.events("scanner.key.create")
    assert '"state":"ACTIVE"' in created


async def test_every_live_key_signs_and_an_ended_one_does_not(keyed: Keyed) -> None:
    old = await keyed.create()
    at, signed = await keyed.signatures(await keyed.delivery(old.key.key_id))
    assert signed == [expected(old.secret, at)]
    new = await keyed.rotate(old.key.key_id)
    assert await keyed.states() == [(old.key.key_id, "RETIRING"), (new.key.key_id, "ACTIVE")]
    both = await keyed.delivery(old.key.key_id)
    at, signed = await keyed.signatures(both)
    assert signed == [expected(new.secret, at), expected(old.secret, at)]
    keyed.parts.organizations.active = False
    with pytest.raises(NotFound):  # Nothing is signed for an organization that is suspended.
        await keyed.delivery(old.key.key_id)
    keyed.parts.organizations.active = True
    # Two at most; and the old one isn't followed again.
    for each in (new.key.key_id, old.key.key_id):
        with pytest.raises(WrongState):
            await keyed.rotate(each)

    # Its time is over: it ends by itself, and the broker hears of it.
    held = await keyed.delivery(old.key.key_id)
    (ending,) = await keyed.parts.jobs(REVOKE)
    with pytest.raises(WrongState):
        await keyed.parts.claim(ending)
    keyed.parts.clock.ahead += timedelta(hours=25)
    await keyed.parts.revoke(await keyed.parts.claim(ending))
    await keyed.heard(old.key.key_id)
    assert await keyed.states() == [(old.key.key_id, "REVOKED"), (new.key.key_id, "ACTIVE")]
    assert len(await keyed.parts.events("scanner.key.end")) == 1
    # A grant from before is good for the new one alone.
    with pytest.raises(NotFound):
        await keyed.signatures(held)
    at, signed = await keyed.signatures(await keyed.delivery(old.key.key_id))
    assert signed == [expected(new.secret, at)]


async def test_a_revoked_key_is_gone_at_once_whoever_holds_what_of_it(keyed: Keyed) -> None:
    made = await keyed.create()
    job = await keyed.delivery(made.key.key_id)
    sealed = await keyed.parts.envelope(UUID(made.key.key_id))
    assert (await keyed.revoke(made.key.key_id)).state == pb.KEY_STATE_REVOKED
    with pytest.raises(WrongState):
        await keyed.revoke(made.key.key_id)
    with pytest.raises(NotFound):
        await keyed.signatures(job)
    (telling,) = await keyed.parts.jobs(REVOKE)
    await keyed.parts.revoke(await keyed.parts.claim(telling))
    await keyed.heard(made.key.key_id)
    # Who kept the envelope and the grant has nothing: the broker knows that it is revoked.
    stub = broker_service_pb2_grpc.BrokerServiceStub(keyed.parts.broker)
    request = broker_service_pb2.SignWebhookRequest(
        sealed_key=sealed, webhook_id=MESSAGE_ID, timestamp=int(time.time()), body=BODY
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.SignWebhook(request, metadata=metadata(job.credentials[0].grant), timeout=20)
    assert isinstance(from_rpc_error(refused.value, "broker"), Denied)
    with pytest.raises(WrongState):
        await keyed.delivery(made.key.key_id)
    # The name is free again, and no overlap at all is one way to rotate.
    new = await keyed.create()
    later = await keyed.rotate(new.key.key_id, 0)
    assert [state for _, state in await keyed.states()] == ["REVOKED", "REVOKED", "ACTIVE"]
    assert later.replaced.state == pb.KEY_STATE_REVOKED


async def test_the_notifier_claims_deliveries_and_nothing_else(keyed: Keyed) -> None:
    made, connection = await keyed.create(), await keyed.parts.connect()
    async with keyed.parts.api.begin(ACME, context(ACME)) as work:
        planner = keyed.parts.planner
        await work.enqueue(planner.plan(ACME, DELIVER, UUID(made.key.key_id), work.now - timedelta(seconds=1)))
        await work.enqueue(planner.plan(ACME, REVOKE, connection.connection_id, work.now - timedelta(seconds=1)))
    (delivery,), (revocation,) = await keyed.parts.jobs(DELIVER), await keyed.parts.jobs(REVOKE)
    for job_id, worker in ((delivery, "scanner-worker"), (revocation, "notifier")):
        with pytest.raises(Denied):
            await keyed.parts.claim(job_id, worker)
    job = await keyed.parts.claim(delivery, "notifier")
    # Nor is a grant for a delivery good for a connection's credential, or the other way round.
    for kind, credential_id in (("deliver_webhook", connection.credential_id), ("scan", UUID(made.key.key_id))):
        scope = CredentialScope(credential_id=credential_id, purpose="x", account="1")
        asked = replace(read_own_grant(job.credentials[0].grant), kind=kind, credential=scope)
        with entered(context(ACME, peer="notifier", grant=asked)), pytest.raises(NotFound):
            await connections.fetch_sealed_credential(keyed.parts.api, credential_id)


async def test_keys_move_with_their_kek_and_keep_it(keyed: Keyed) -> None:
    parts = keyed.parts
    await parts.register(1)
    webhook, ai = await keyed.create(), await keyed.create(purpose=pb.KEY_PURPOSE_AI, secret="sk-test-0123456789")
    ids = [UUID(webhook.key.key_id), UUID(ai.key.key_id)]
    await parts.register(2)
    with entered(context(ACME, "scanner.kek.retire")), pytest.raises(WrongState) as refused:
        async with parts.api.begin() as work:
            await rewrapping.retire_kek(work, 1)
    assert f"key {ids[0]}" in refused.value.message
    await parts.rotate()
    (job_id,) = await parts.jobs(REWRAP)
    await parts.settle(job_id)
    assert {parse(await parts.envelope(each)).kek.reference for each in ids} == {f"{RING}/acme/2"}
    at, signed = await keyed.signatures(await keyed.delivery(webhook.key.key_id))
    assert signed == [expected(webhook.secret, at)]

    await parts.connect()
    parts.clock.ahead += timedelta(days=91)
    with entered(context(ACME)):
        rpc = SecretsRpc(parts.api, Uncounted(), parts.clock)  # type: ignore[arg-type]  # It stands in.
        asked = secrets_service_pb2.GetSecretsPostureRequest()
        posture = await rpc.GetSecretsPosture(asked, None)
    assert [(each.purpose, each.credentials, each.unrotated) for each in posture.purposes] == [
        ("ai.key", 1, 1), ("aws.base_key", 1, 1), ("webhook.key", 1, 1),
    ]  # fmt: skip
    assert {(each.purpose, bool(each.connection_id)) for each in posture.credentials} == {
        ("ai.key", False), ("aws.base_key", True), ("webhook.key", False),
    }  # fmt: skip


async def test_there_is_an_end_to_how_many(keyed: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usecases, "MAX_ACTIVE", 2)
    for number in range(2):
        await keyed.create(name=f"receiver-{number}")
    with pytest.raises(Exhausted):
        await keyed.create(name="receiver-2")
    found = await keyed.call("ListKeys", pb.ListKeysRequest(organization_id=str(ACME), page_size=1))
    rest = pb.ListKeysRequest(organization_id=str(ACME), page_size=1, page_token=found.next_page_token)
    assert [each.name for each in (await keyed.call("ListKeys", rest)).keys] == ["receiver-1"]


UNSEEN = (
    "UPDATE scanner.organization_keys SET purpose = 'ai.key'",
    "UPDATE scanner.organization_keys SET state = 'RETIRING'",
    "UPDATE scanner.credentials SET purpose = 'aws.base_key'",
    "UPDATE scanner.organization_keys SET state = 'REVOKED', ends_at = now()",
    "DELETE FROM scanner.credentials",
)


async def test_the_data_refuses_another_purpose_an_endless_end_and_silence(keyed: Keyed) -> None:
    await keyed.create()
    for statement in UNSEEN:
        with pytest.raises((DBAPIError, EventOwed)):
            async with keyed.parts.api.begin(ACME) as work:
                await work.execute(text(statement))
