"""Keys that organizations bring: tried before they are taken, one at a time, sealed under from then on, in the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from recoup.broker.v1 import broker_service_pb2_grpc
from recoup.scanner.v1 import kek_service_pb2 as pb
from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.envelope import open_envelope, parse
from services._mesh.errors import AlreadyExists, Invalid, Problem
from services._mesh.jobs import Planner
from services._mesh.kms.interface import Kek, KeyService, SecretContext
from services._mesh.kms.opening import KmsSettings, Sealer
from services._mesh.outbox import EventOwed
from services._mesh.pages import PageTokens
from services._mesh.uow import Store
from services.broker.model.replay import UsedGrants
from services.broker.rewrapping import Rewrapper
from services.broker.rpc import BrokerRpc
from services.scanner.clients.rewrapping import Wrapper
from services.scanner.model.kek import NamedKek
from services.scanner.rpc.keks import KekRpc
from services.scanner.usecases.keks import Keks
from tests.support.kms import RING, Ring
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, context, keys, serving

pytestmark = pytest.mark.services("scanner")
RULE = Kek(KeyService.FILE, f"{RING}/by-rule/1")


@dataclass
class Registered:
    """The scanner's RPCs of keys, on a file KMS of which this side only has what wraps."""

    store: Store
    ring: Ring
    keks: Keks
    rpc: KekRpc

    async def register(
        self, name: str = f"{RING}/acme", version: str = "1", organization: UUID = ACME, **more: Any
    ) -> pb.Kek:
        given = {"provider": pb.KEK_PROVIDER_FILE, "key_id": name, "region": "local", "key_version": version, **more}
        request = pb.RegisterKekRequest(organization_id=str(ACME), **given)
        with entered(context(ACME, "scanner.kek.register", rpc="scanner/RegisterKek")):
            return (await self.rpc.RegisterKek(request, None)).kek

    async def listed(self, organization: UUID = ACME, **more: Any) -> pb.ListKeksResponse:
        with entered(context(organization, rpc="scanner/ListKeks")):
            return await self.rpc.ListKeks(pb.ListKeksRequest(organization_id=str(organization), **more), None)

    async def events(self, organization: UUID = ACME) -> list[str]:
        async with self.store.read(organization) as connection:
            rows = await connection.execute(
                text("SELECT convert_from(payload, 'UTF8') FROM scanner.outbox ORDER BY counter")
            )
            return [row[0] for row in rows]


@pytest.fixture
async def registered(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Registered]:
    async def by_rule(_: UUID) -> Kek:
        return RULE

    unused: Any = None
    ring = Ring(tmp_path)
    role = database.role("scanner_api", pool_size=8)
    store = Store(role, "scanner", Clock())
    key, _ = keys(tmp_path, "scanner")
    rewrapper = Rewrapper(ring.whole, UsedGrants(0.0), Clock())

    def broker(server: Any) -> None:
        broker_service_pb2_grpc.add_BrokerServiceServicer_to_server(BrokerRpc(unused, rewrapper, unused), server)

    async with serving(broker, "scanner") as channel:
        keks = Keks(store, ring.sealing, by_rule, Wrapper(channel))
        rpc = KekRpc(store, keks, Planner(key, "scanner", Clock()), PageTokens(b"k" * 32))
        yield Registered(store, ring, keks, rpc)
    await role.close()
    ring.threads.close()


async def test_what_is_sealed_from_then_on_is_sealed_under_it(registered: Registered) -> None:
    sealer = Sealer(registered.ring.sealing, registered.keks.kek_in_use)
    secret = SecretContext(ACME, UUID(int=7), "aws.base_key")
    assert parse(await sealer.seal(b"x", secret)).kek == RULE
    made = [await registered.register(version=version) for version in ("1", "2")]
    assert [each.version for each in made] == [1, 2]
    envelope = await sealer.seal(b"x", secret)
    assert parse(envelope).kek == Kek(KeyService.FILE, f"{RING}/acme/2")
    assert await open_envelope(envelope, secret, registered.ring.whole) == b"x"
    # Nobody else's are sealed under it, and nobody else sees it.
    other = SecretContext(GLOBEX, UUID(int=7), "aws.base_key")
    assert parse(await sealer.seal(b"x", other)).kek == RULE
    assert not (await registered.listed(GLOBEX)).keks
    states = [(each.version, each.state) for each in (await registered.listed()).keks]
    assert states == [(2, pb.KEK_STATE_ACTIVE), (1, pb.KEK_STATE_SUPERSEDED)]
    first, second = await registered.events()
    assert f"FILE {RING}/acme/1 in local" in first
    assert f"FILE {RING}/acme/1 in local" in second
    assert f"FILE {RING}/acme/2 in local" in second


@pytest.mark.parametrize("state", ["DISABLED", "DENIED", "MISSING", "TIMEOUT"])
async def test_a_key_that_does_not_wrap_is_not_taken(registered: Registered, state: str) -> None:
    registered.ring.set_states({f"{RING}/acme/1": state})
    with pytest.raises(Problem) as refused:
        await registered.register()
    assert refused.value.metadata["cause"] == state
    assert not (await registered.listed()).keks
    assert not await registered.events()
    registered.ring.set_states({})
    assert (await registered.register()).version == 1


async def test_a_key_that_the_broker_can_not_unwrap_under_is_not_taken(registered: Registered, tmp_path: Path) -> None:
    """It wraps, so that whatever was sealed under it would be lost."""
    registered.ring.whole_file.write_text(json.dumps({
        **json.loads(registered.ring.whole_file.read_text()), "states": {f"{RING}/acme/1": "DENIED"}
    }))  # fmt: skip
    with pytest.raises(Problem) as refused:
        await registered.register()
    assert refused.value.metadata["cause"] == "DENIED"
    assert not (await registered.listed()).keks


ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd"
CRYPTO_KEY = "projects/acme/locations/europe-west3/keyRings/recoup/cryptoKeys/acme"


@pytest.mark.parametrize(
    ("provider", "key_id", "region", "version", "field"),
    [
        (pb.KEK_PROVIDER_AWS, "alias/acme", "eu-central-1", "", "key_id"),
        (pb.KEK_PROVIDER_AWS, f" {ARN}", "eu-central-1", "", "key_id"),
        (pb.KEK_PROVIDER_AWS, ARN, "us-east-1", "", "region"),
        (pb.KEK_PROVIDER_AWS, ARN, "eu-central-1", "1", "key_version"),
        (pb.KEK_PROVIDER_AZURE, "http://acme.vault.azure.net/keys/acme", "westeurope", "1", "key_id"),
        (pb.KEK_PROVIDER_AZURE, "https://acme.vault.azure.net/keys/acme/1", "westeurope", "1", "key_id"),
        (pb.KEK_PROVIDER_AZURE, "https://acme.vault.azure.net/keys/acme", "westeurope", "", "key_version"),
        (pb.KEK_PROVIDER_GOOGLE, CRYPTO_KEY, "us-east1", "1", "region"),
        (pb.KEK_PROVIDER_GOOGLE, CRYPTO_KEY, "europe-west3", "", "key_version"),
        (pb.KEK_PROVIDER_GOOGLE, f"{CRYPTO_KEY}/cryptoKeyVersions/1", "europe-west3", "1", "key_id"),
        (pb.KEK_PROVIDER_FILE, "acme", "local", "1", "key_id"),
    ],
)
async def test_a_name_that_is_none_says_which_field(
    registered: Registered, provider: int, key_id: str, region: str, version: str, field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        await registered.register(key_id, version, provider=provider, region=region)
    assert [each.field for each in refused.value.field_violations] == [field]


async def test_a_key_that_is_kept_for_another_organization_is_not_taken(registered: Registered) -> None:
    rule = KmsSettings(services=("file",), kek=f"{RING}/{{organization_id}}/1", file=registered.ring.whole_file)
    keks = Keks(registered.store, registered.ring.sealing, rule.own_kek, registered.keks._wrapper)
    with entered(context(ACME, rpc="scanner/RegisterKek")):
        for version in ("1", "2"):
            with pytest.raises(Invalid, match="kept for another organization; make one"):
                await keks.probe(NamedKek(KeyService.FILE, f"{RING}/{GLOBEX}", "local", version))
        for own in (str(ACME), "acme", f"{GLOBEX}"[:-1]):
            await keks.probe(NamedKek(KeyService.FILE, f"{RING}/{own}", "local", "2"))


async def test_one_registration_at_a_time_decides(registered: Registered) -> None:
    done = await asyncio.gather(*(registered.register(version=str(n)) for n in range(1, 7)))
    assert sorted(each.version for each in done) == list(range(1, 7))
    found = (await registered.listed(page_size=4)).keks
    assert [each.state for each in found] == [pb.KEK_STATE_ACTIVE, *[pb.KEK_STATE_SUPERSEDED] * 3]
    assert found[0].version == 6
    token = (await registered.listed(page_size=4)).next_page_token
    assert [each.version for each in (await registered.listed(page_size=4, page_token=token)).keks] == [2, 1]
    with pytest.raises(AlreadyExists):
        await registered.register(version="3")


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        ("UPDATE scanner.keks SET key_id = 'file:another/acme'", DBAPIError),
        (
            "INSERT INTO scanner.keks SELECT organization_id, gen_random_uuid(), 2, provider, 'x', region,"
            " key_version, state, created_at FROM scanner.keks",
            DBAPIError,
        ),
        ("UPDATE scanner.keks SET state = 'SUPERSEDED'", EventOwed),
    ],
)
async def test_the_data_refuses_another_name_a_second_active_key_and_silence(
    registered: Registered, statement: str, refusal: type[Exception]
) -> None:
    await registered.register()
    with pytest.raises(refusal):
        async with registered.store.begin(ACME) as work:
            await work.execute(text(statement))
