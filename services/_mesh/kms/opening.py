"""Opens the key services that a process is told of, each when the first key of it is used, and seals with them.

The file KMS belongs to the local profile's wheel. SDKs are imported by the process that uses them, and by no other.
"""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal
from uuid import UUID
from weakref import WeakValueDictionary

from services._mesh.config import Between, Matches, SecretFile
from services._mesh.envelope import seal
from services._mesh.errors import Reason, WrongState
from services._mesh.kms.interface import (
    Binding,
    EnvelopeBroken,
    Kek,
    KeyService,
    Kms,
    KmsCause,
    SecretContext,
    failure,
)
from services._mesh.threads import BoundedThreads

KekRule = Annotated[str, Matches(r"[^{}\s]*\{organization_id\}[^{}\s]*", "a KEK with {organization_id} in it")]
# What a rule must make where it may name keys: the forms that the providers take (docs/ENVELOPE.md).
_BY_RULE: Mapping[str, tuple[re.Pattern[str], str]] = {
    "file": (re.compile(r"file:[0-9a-z]+/[0-9a-z-]{1,64}/[1-9][0-9]{0,8}"), "file:<ring>/{organization_id}/<version>"),
    "google": (
        re.compile(
            r"projects/[a-z0-9.:-]{1,64}/locations/[a-z0-9-]{2,32}/keyRings/[A-Za-z0-9_-]{1,63}"
            r"/cryptoKeys/[A-Za-z0-9_-]{1,63}/cryptoKeyVersions/[1-9][0-9]{0,8}"
        ),
        "projects/…/locations/…/keyRings/…/cryptoKeys/…{organization_id}/cryptoKeyVersions/<version>",
    ),
}
# How many calls of one organization may be under way at once.
_TURNS = 2
ServiceName = Literal["file", "aws", "azure", "google"]


@dataclass(frozen=True, kw_only=True)
class KmsSettings:
    """The key services that this process may use; the first keeps the KEKs of whoever brought none of their own, which
    `kek` names where that service lets people choose names. `file` is the file KMS, or the half of it that this process
    holds. `regions` are those of AWS and Google that may be used (all, where none is named), `azure_hosts` the vaults'
    hosts, or the ends of them.
    """

    services: tuple[ServiceName, ...]
    kek: KekRule | None = None
    file: SecretFile | None = None
    regions: tuple[str, ...] = ()
    azure_hosts: tuple[str, ...] = (".vault.azure.net", ".managedhsm.azure.net")
    deadline_seconds: Annotated[float, Between(0.1, 30.0)] = 5.0
    threads: Annotated[int, Between(1, 64)] = 8

    def __post_init__(self) -> None:
        if not self.services:
            raise ValueError("services must name at least one key service; the first keeps the KEKs of `kek`")
        if ("file" in self.services) != (self.file is not None):
            raise ValueError('file must be given exactly where services names "file"')
        self._check_rule()

    def _check_rule(self) -> None:
        """A rule that names no key would show only when the first secret is to be sealed."""
        if self.kek is None:
            return
        first = self.services[0]
        if first not in _BY_RULE:
            raise ValueError(
                f"kek can't name keys of {first}, which gives them names of its own: leave kek out, and have each"
                f" organization name its key (recoup kek register {first} KEY_ID --region REGION)"
            )
        pattern, form = _BY_RULE[first]
        if not pattern.fullmatch(self.kek.replace("{organization_id}", str(UUID(int=0)))):
            raise ValueError(f"kek must be {form}, since services names {first} first")

    def check_profile(self, profile: str) -> None:
        """Raises ValueError for what only the local profile may use."""
        if profile != "local" and "file" in self.services:
            raise ValueError('services names "file", a key service that only the local profile may use')

    async def own_kek(self, organization_id: UUID) -> Kek:
        """The KEK of an organization that brought none of its own. Raises WrongState where there is none."""
        if self.kek is None:
            raise WrongState(
                Reason.ERROR_REASON_KMS_KEY_UNUSABLE,
                "The organization has named no key to seal under. Name one first:"
                f" recoup kek register {'|'.join(self.services)} KEY_ID --region REGION.",
                {"cause": KmsCause.MISSING.value, "kek": ""},
            )
        reference = self.kek.replace("{organization_id}", str(organization_id))
        return Kek(KeyService[self.services[0].upper()], reference)


class KeyServices:
    """All key services of a process as one: a KEK goes to the service that keeps it."""

    def __init__(
        self, settings: KmsSettings, profile: str, opened: Mapping[KeyService, Kms] = MappingProxyType({})
    ) -> None:
        """`opened` are services that are open already, for tests."""
        settings.check_profile(profile)
        self._settings = settings
        self._threads = BoundedThreads(settings.threads, "kms")
        self._opened, self._opening = dict(opened), asyncio.Lock()
        # Kept for as long as anybody of the organization waits or works.
        self._turns: WeakValueDictionary[UUID, asyncio.Semaphore] = WeakValueDictionary()

    async def wrap(self, kek: Kek, material: bytes, binding: Binding) -> bytes:
        """See Kms."""
        try:
            async with self._turn(kek, binding) as kms:
                return await kms.wrap(kek, material, binding)
        except EnvelopeBroken:  # The key is none that wraps.
            raise failure(KmsCause.MISSING, kek) from None

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Binding) -> bytes:
        """See Kms."""
        async with self._turn(kek, binding) as kms:
            return await kms.unwrap(kek, wrapped, binding)

    def close(self) -> None:
        """Take no more calls."""
        self._threads.close()

    @asynccontextmanager
    async def _turn(self, kek: Kek, binding: Binding) -> AsyncIterator[Kms]:
        """The service of a KEK, when it is the organization's turn: one whose own key service hangs takes two threads.

        Raises Problem: TIMEOUT where its turn doesn't come in time, WRONG_REGION for a service that isn't used.
        """
        if kek.service.name.lower() not in self._settings.services:
            raise failure(KmsCause.WRONG_REGION, kek)
        organization_id = binding.context.organization_id
        turns = self._turns.get(organization_id)
        if turns is None:
            turns = self._turns[organization_id] = asyncio.Semaphore(_TURNS)
        try:
            async with asyncio.timeout(self._settings.deadline_seconds):
                await turns.acquire()
        except TimeoutError:
            raise failure(KmsCause.TIMEOUT, kek) from None
        try:
            yield await self._service(kek.service)
        finally:
            turns.release()

    async def _service(self, service: KeyService) -> Kms:
        async with self._opening:
            if service not in self._opened:
                self._opened[service] = await asyncio.to_thread(self._open, service)
            return self._opened[service]

    def _open(self, service: KeyService) -> Kms:
        """The provider. An SDK takes a second and 40 MiB to import, which only who uses it pays."""
        settings, deadline = self._settings, self._settings.deadline_seconds
        if service is KeyService.AWS:
            from services._mesh.kms.aws import AwsKms

            return AwsKms(self._threads, deadline, settings.regions)
        if service is KeyService.AZURE:
            from services._mesh.kms.azure import AzureKms

            return AzureKms(self._threads, deadline, settings.azure_hosts)
        if service is KeyService.GOOGLE:
            from services._mesh.kms.google import GoogleKms

            return GoogleKms(deadline, settings.regions)
        hooks = importlib.import_module("recoup_local.hooks")
        made: Kms = hooks.open_file_kms(settings.file, self._threads, deadline)
        return made


class Sealer:
    """Seals secrets under the KEK of their organization, which `kek_of` knows."""

    def __init__(self, kms: Kms, kek_of: Callable[[UUID], Awaitable[Kek]]) -> None:
        self._kms, self._kek_of = kms, kek_of

    async def seal(self, plaintext: bytes, context: SecretContext) -> bytes:
        """The envelope. Never within a transaction: it calls the key service. Raises Problem, ValueError."""
        return await seal(plaintext, context, await self._kek_of(context.organization_id), self._kms)
