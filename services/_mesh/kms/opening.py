"""Opens the key services that a process is told of, each when the first key of it is used, and seals with them.

The file KMS belongs to the local profile's wheel. SDKs are imported by the process that uses them, and by no other.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal
from uuid import UUID

from services._mesh.config import Between, Matches, SecretFile
from services._mesh.envelope import seal
from services._mesh.kms.interface import Binding, Kek, KeyService, Kms, KmsCause, SecretContext, failure
from services._mesh.threads import BoundedThreads

KekRule = Annotated[str, Matches(r"[^{}\s]*\{organization_id\}[^{}\s]*", "a KEK with {organization_id} in it")]
ServiceName = Literal["file", "aws", "azure", "google"]


@dataclass(frozen=True, kw_only=True)
class KmsSettings:
    """The key services that this process may use; the first keeps the KEKs of whoever brought none of their own, which
    `kek` names. `file` is the file KMS, or the half of it that this process holds. `regions` are those of AWS and
    Google that may be used (all, where none is named), `azure_hosts` the vaults' hosts, or the ends of them.
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

    def check_profile(self, profile: str) -> None:
        """Raises ValueError for what only the local profile may use."""
        if profile != "local" and "file" in self.services:
            raise ValueError('services names "file", a key service that only the local profile may use')

    async def own_kek(self, organization_id: UUID) -> Kek:
        """The KEK of an organization that brought none of its own. Raises WrongState where there is none."""
        if self.kek is None:
            raise failure(KmsCause.MISSING, Kek(KeyService[self.services[0].upper()], "none of the organization's own"))
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
        self._opened = dict(opened)

    async def wrap(self, kek: Kek, material: bytes, binding: Binding) -> bytes:
        """See Kms."""
        return await self._of(kek).wrap(kek, material, binding)

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Binding) -> bytes:
        """See Kms."""
        return await self._of(kek).unwrap(kek, wrapped, binding)

    def close(self) -> None:
        """Take no more calls."""
        self._threads.close()

    def _of(self, kek: Kek) -> Kms:
        name = kek.service.name.lower()
        if name not in self._settings.services:
            raise failure(KmsCause.WRONG_REGION, kek)
        if kek.service not in self._opened:
            self._opened[kek.service] = self._open(kek.service)
        return self._opened[kek.service]

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
