"""No organization takes the places of all others at the key services."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services._mesh.errors import Unavailable, WrongState
from services._mesh.kms.interface import Binding, Kek, KeyService
from services._mesh.kms.opening import KeyServices, KmsSettings
from tests.support.kms import KEK, CarelessKms, context

HANGS, OTHER = UUID(int=1), UUID(int=2)


class Hanging(CarelessKms):
    """Answers one organization only when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Any) -> bytes:
        self.unwraps += 1
        if binding.context.organization_id == HANGS:
            await self.gate.wait()
        return wrapped


async def test_one_whose_key_service_hangs_takes_two_places_and_the_others_go_on() -> None:
    kms = Hanging()
    settings = KmsSettings(services=("file",), file=Path("none"), deadline_seconds=0.2)
    services = KeyServices(settings, "local", {KeyService.FILE: kms})

    def unwrap(organization: UUID) -> Any:
        return services.unwrap(KEK, b"w", Binding(b"", context(organization_id=organization), KEK))

    first = [asyncio.create_task(unwrap(HANGS)) for _ in range(2)]
    late = await asyncio.gather(*(unwrap(HANGS) for _ in range(20)), return_exceptions=True)
    assert all(isinstance(each, Unavailable) and each.metadata["cause"] == "TIMEOUT" for each in late)
    assert kms.unwraps == 2
    assert await asyncio.gather(*(unwrap(OTHER) for _ in range(20))) == [b"w"] * 20
    kms.gate.set()
    assert await asyncio.gather(*first) == [b"w"] * 2
    # Nothing is kept of whoever is done.
    del first
    assert await unwrap(HANGS) == b"w"
    services.close()


@pytest.mark.parametrize("profile", ["local", "production"])
def test_no_key_service_is_no_setting(profile: str) -> None:
    with pytest.raises(ValueError, match="at least one"):
        KmsSettings(services=())
    with pytest.raises(ValueError, match="exactly where"):
        KmsSettings(services=("aws",), file=Path("none"))
    with pytest.raises(ValueError, match="exactly where"):
        KmsSettings(services=("file",))
    assert KeyServices(KmsSettings(services=("aws",)), profile)


RULE = "projects/p/locations/global/keyRings/r/cryptoKeys/{organization_id}/cryptoKeyVersions/1"


@pytest.mark.parametrize(
    ("service", "rule", "way_out"),
    [
        ("aws", "arn:aws:kms:eu-central-1:111122223333:key/{organization_id}", "recoup kek register aws"),
        ("aws", "alias/{organization_id}", "recoup kek register aws"),
        ("azure", "https://recoup.vault.azure.net/keys/{organization_id}/1", "recoup kek register azure"),
        ("google", "{organization_id}", "cryptoKeyVersions"),
        ("google", "projects/p/locations/global/keyRings/r/cryptoKeys/{organization_id}", "cryptoKeyVersions"),
        ("google", f"{RULE}/{{organization_id}}", "cryptoKeyVersions"),
        ("file", "{organization_id}", "file:<ring>"),
        ("file", "file:0123/{organization_id}", "file:<ring>"),
    ],
)
def test_a_rule_for_keys_that_its_service_can_not_have_is_refused_at_the_start(
    service: Any, rule: str, way_out: str
) -> None:
    with pytest.raises(ValueError, match="kek") as refused:
        KmsSettings(services=(service,), kek=rule, file=Path("none") if service == "file" else None)
    assert way_out in str(refused.value)


async def test_a_rule_names_a_key_for_each_organization_and_without_one_each_has_to_name_its_own() -> None:
    by_rule = await KmsSettings(services=("google", "aws"), kek=RULE).own_kek(OTHER)
    assert by_rule == Kek(KeyService.GOOGLE, RULE.replace("{organization_id}", str(OTHER)))
    with pytest.raises(WrongState) as refused:
        await KmsSettings(services=("aws", "azure")).own_kek(OTHER)
    assert "recoup kek register aws|azure" in refused.value.message
    assert refused.value.metadata["cause"] == "MISSING"
