"""A key that an organization brings for its secrets: how each key service names one, and what must agree. Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services._mesh.kms.interface import Kek, KeyService

# What a key is tried with before it is taken.
PROBE_PURPOSE = "kek.probe"
_AWS = re.compile(r"arn:aws[a-z-]{0,16}:kms:([a-z0-9-]{5,32}):[0-9]{12}:key/[A-Za-z0-9-]{1,64}")
_AZURE = re.compile(r"https://[a-z0-9.-]{3,128}(:[0-9]{1,5})?/keys/[A-Za-z0-9-]{1,127}")
_GOOGLE = re.compile(
    r"projects/[a-z0-9.:-]{1,64}/locations/([a-z0-9-]{2,32})/keyRings/[A-Za-z0-9_-]{1,63}/cryptoKeys/[A-Za-z0-9_-]{1,63}"
)
_FILE = re.compile(r"file:[0-9a-z]+/[0-9a-z-]{1,64}")


class KekState(enum.StrEnum):
    """Where a key stands; the names are those of `recoup.scanner.v1.KekState`."""

    ACTIVE = "ACTIVE"
    SUPERSEDED = "SUPERSEDED"
    RETIRED = "RETIRED"


class KekInvalid(ValueError):
    """A field that can't be so, and the rule."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(rule)
        self.field, self.rule = field, rule


@dataclass(frozen=True, slots=True)
class NamedKek:
    """What a person names a key by."""

    service: KeyService
    key_id: str
    region: str
    key_version: str

    def kek(self) -> Kek:
        """The key as envelopes name it. Raises KekInvalid."""
        if self.service is KeyService.AWS:
            found = self._match(_AWS, "the key's ARN, such as arn:aws:kms:eu-central-1:111122223333:key/…; no alias")
            self._agree(found[1])
            if self.key_version:
                raise KekInvalid("key_version", "must be empty: a key of AWS KMS has no version that shows")
            return Kek(self.service, self.key_id)
        if self.service is KeyService.AZURE:
            self._match(_AZURE, "the key's identifier without its version: https, <vault>/keys/<name>")
            return Kek(self.service, f"{self.key_id}/{self._version('[0-9A-Za-z]{1,64}')}")
        if self.service is KeyService.GOOGLE:
            found = self._match(_GOOGLE, "projects/…/locations/…/keyRings/…/cryptoKeys/…")
            self._agree(found[1])
            return Kek(self.service, f"{self.key_id}/cryptoKeyVersions/{self._version('[1-9][0-9]{0,8}')}")
        self._match(_FILE, "file:<ring>/<name>")
        return Kek(self.service, f"{self.key_id}/{self._version('[1-9][0-9]{0,8}')}")

    def _match(self, pattern: re.Pattern[str], form: str) -> re.Match[str]:
        found = pattern.fullmatch(self.key_id)
        if found is None:
            raise KekInvalid("key_id", f"must be {form}")
        return found

    def _agree(self, region: str) -> None:
        if region != self.region:
            raise KekInvalid("region", f"must be {region}, where key_id says that the key lies")

    def _version(self, pattern: str) -> str:
        if not re.fullmatch(pattern, self.key_version):
            raise KekInvalid("key_version", "must be the provider's version of the key")
        return self.key_version


@dataclass(frozen=True, slots=True)
class RegisteredKek:
    """A key that an organization named; `version` counts its keys."""

    kek_id: UUID
    version: int
    named: NamedKek
    state: KekState
    created_at: datetime
