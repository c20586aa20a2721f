"""One suite for all key services: what each must refuse, say and bear. AWS against moto too, which has fewer states."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import boto3
import pytest

from services._mesh.envelope import open_envelope, rewrap, seal
from services._mesh.errors import Problem, Unavailable
from services._mesh.kms.aws import AwsKms
from services._mesh.kms.interface import EnvelopeBroken, Kek, KeyService, Kms
from services._mesh.kms.opening import KeyServices, KmsSettings
from services._mesh.threads import BoundedThreads
from tests.support.key_services.aws import aws_kms
from tests.support.key_services.azure import azure_kms
from tests.support.key_services.files import file_kms
from tests.support.key_services.google import google_kms
from tests.support.key_services.keeper import DEADLINE_SECONDS, SHORT_SECONDS, Keeper
from tests.support.kms import context

REGION = "eu-central-1"
SERVICES = ("file", "aws", "aws-moto", "azure", "google")
OTHERS = (
    context(organization_id=UUID(int=9)),
    context(credential_id=UUID(int=9)),
    context(purpose="webhook.key"),
)


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """An AWS identity of the process, as the SDK finds it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")


def moto_keeper(url: str, threads: BoundedThreads) -> Keeper:
    client = boto3.client("kms", region_name=REGION, endpoint_url=url)
    one, two = (Kek(KeyService.AWS, client.create_key()["KeyMetadata"]["Arn"]) for _ in range(2))
    elsewhere = Kek(KeyService.AWS, one.reference.replace(REGION, "us-east-1"))
    return Keeper(one, two, elsewhere, lambda seconds: AwsKms(threads, seconds, [REGION], url), lambda _: None)


@pytest.fixture
async def keeper(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Keeper]:
    async with AsyncExitStack() as stack:
        if request.param == "aws-moto":
            threads = BoundedThreads(2, "moto")
            stack.callback(threads.close)
            yield moto_keeper(request.getfixturevalue("endpoint"), threads)
            return
        opened = {
            "file": lambda: file_kms(tmp_path),
            "aws": aws_kms,
            "azure": lambda: azure_kms(tmp_path),
            "google": google_kms,
        }
        yield await stack.enter_async_context(opened[request.param]())


@pytest.fixture
def kms(keeper: Keeper) -> Iterator[Kms]:
    """The service behind what chooses it by an envelope's second byte, as in every process."""
    settings = KmsSettings(services=("file", "aws", "azure", "google"), file=Path("none"))
    services = KeyServices(settings, "local", {keeper.kek.service: keeper.open(DEADLINE_SECONDS)})
    yield services
    services.close()


@pytest.mark.parametrize("keeper", SERVICES, indirect=True)
async def test_a_context_a_key_and_a_byte_all_have_to_be_right(keeper: Keeper, kms: Kms) -> None:
    envelope = await seal(b"secret", context(), keeper.kek, kms)
    assert await open_envelope(envelope, context(), kms) == b"secret"
    for other in OTHERS:
        with pytest.raises(EnvelopeBroken):
            await open_envelope(envelope, other, kms)
    # The other version of the KEK in the header; the same of another region.
    assert len(keeper.kek.reference) == len(keeper.newer.reference)
    for kek in (keeper.newer, keeper.elsewhere):
        swapped = envelope.replace(keeper.kek.reference.encode(), kek.reference.encode())
        with pytest.raises((EnvelopeBroken, Problem)):
            await open_envelope(swapped, context(), kms)
    # A byte of each part; unit/test_envelope.py has all of them.
    for place in (0, 1, 2, 3, *range(4, len(envelope) - len("secret") - 16, 11)):
        changed = bytearray(envelope)
        changed[place] ^= 1 << place % 8
        with pytest.raises((EnvelopeBroken, Problem)):
            await open_envelope(bytes(changed), context(), kms)


@pytest.mark.parametrize("keeper", SERVICES, indirect=True)
async def test_a_kek_is_exchanged(keeper: Keeper, kms: Kms) -> None:
    before = await seal(b"secret", context(), keeper.kek, kms)
    after = await rewrap(before, context(), keeper.newer, kms)
    assert keeper.newer.reference.encode() in after
    assert await open_envelope(after, context(), kms) == b"secret"
    for other in OTHERS:
        with pytest.raises(EnvelopeBroken):
            await rewrap(before, other, keeper.newer, kms)


@pytest.mark.parametrize("keeper", SERVICES, indirect=True)
async def test_a_key_elsewhere_is_not_asked_for(keeper: Keeper, kms: Kms) -> None:
    with pytest.raises(Problem) as refused:
        await seal(b"secret", context(), keeper.elsewhere, kms)
    assert refused.value.metadata == {"cause": "WRONG_REGION", "kek": keeper.elsewhere.reference}


STATES = ("DISABLED", "MISSING", "RETIRED", "DENIED", "THROTTLED", "TIMEOUT", "UNREACHABLE")


@pytest.mark.parametrize("keeper", [name for name in SERVICES if name != "aws-moto"], indirect=True)
@pytest.mark.parametrize("state", STATES)
async def test_nothing_opens_or_seals_meanwhile_and_all_does_after_it(keeper: Keeper, kms: Kms, state: str) -> None:
    envelope = await seal(b"secret", context(), keeper.kek, kms)
    keeper.set_state(state)
    asked = keeper.open(SHORT_SECONDS if state == "TIMEOUT" else DEADLINE_SECONDS)
    for attempt in (open_envelope(envelope, context(), asked), seal(b"secret", context(), keeper.kek, asked)):
        with pytest.raises(Problem) as refused:
            await attempt
        assert refused.value.metadata == {"cause": keeper.can_be[state], "kek": keeper.kek.reference}
        is_passing = state in ("DISABLED", "THROTTLED", "TIMEOUT", "UNREACHABLE")
        assert isinstance(refused.value, Unavailable) == is_passing
    keeper.set_state("")
    assert await open_envelope(envelope, context(), keeper.open(DEADLINE_SECONDS)) == b"secret"


@pytest.mark.parametrize(
    "kek",
    [
        Kek(KeyService.AWS, "alias/recoup"),
        Kek(KeyService.AWS, "arn:aws:kms:eu-central-1:111122223333:alias/recoup"),
        Kek(KeyService.AZURE, "https://recoup.vault.azure.net/keys/recoup"),
        Kek(KeyService.AZURE, "http://recoup.vault.azure.net/keys/recoup/1"),
        Kek(KeyService.AZURE, "https://recoup.vault.azure.net@attacker.example/keys/recoup/1"),
        Kek(KeyService.AZURE, "https://attacker.example/keys/recoup/1"),
        Kek(KeyService.AZURE, "https://attacker.example#.vault.azure.net/keys/recoup/1"),
        Kek(KeyService.GOOGLE, "projects/p/locations/global/keyRings/r/cryptoKeys/k"),
        Kek(KeyService.FILE, "file:ring/name/1"),
    ],
)
async def test_what_names_no_key_of_ours_is_refused_before_any_call(kek: Kek) -> None:
    settings = KmsSettings(services=("aws", "azure", "google"))
    services = KeyServices(settings, "production")
    with pytest.raises(Problem) as refused:
        await seal(b"secret", context(), kek, services)
    assert refused.value.metadata["cause"] in ("MISSING", "WRONG_REGION")
    services.close()


@pytest.mark.parametrize("sdk", ["boto3", "azure.keyvault", "google.cloud.kms"])
def test_an_sdk_is_imported_by_whoever_uses_it_alone(sdk: str) -> None:
    script = f"import sys, services._mesh.kms.opening; sys.exit(any(m.startswith({sdk!r}) for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_production_refuses_the_file_kms(tmp_path: Path) -> None:
    file = tmp_path / "kek.json"
    file.write_text("{}")
    settings = KmsSettings(services=("file",), kek="file:x/{organization_id}/1", file=file)
    with pytest.raises(ValueError, match="local profile"):
        KeyServices(settings, "production")
