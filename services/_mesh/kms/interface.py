"""What a key service is to us: it wraps key material under one version of a KEK, bound to a context, and unwraps it.

Owns what secrets belong to, the names of KEKs, and what a failure means; each provider is a module of its own. Which
process may do which half isn't decided here: it is the right of the identity, or of the key material, that it has.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from uuid import UUID

import orjson

from services._mesh.errors import Problem, Reason, Unavailable, WrongState

_PURPOSE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
_MAX_PURPOSE = 64


class EnvelopeBroken(Exception):
    """What is sealed doesn't open: its bytes, its context or its key are wrong. Says no more, on purpose."""


class KeyService(enum.IntEnum):
    """Who keeps a KEK. The numbers stand in envelopes: never change or reuse one."""

    FILE = 1
    AWS = 2
    AZURE = 3
    GOOGLE = 4


class KmsCause(enum.StrEnum):
    """Why a key service did nothing for us; the `cause` of the problem's metadata."""

    DISABLED = "DISABLED"  # The key or this version is switched off; it may be switched on again.
    MISSING = "MISSING"  # No such key.
    RETIRED = "RETIRED"  # This version is destroyed, or will be.
    DENIED = "DENIED"  # Our identity has no such right to this key.
    WRONG_REGION = "WRONG_REGION"  # A region, cloud or key ring that this installation doesn't use.
    THROTTLED = "THROTTLED"
    TIMEOUT = "TIMEOUT"
    UNREACHABLE = "UNREACHABLE"


class Kek(NamedTuple):
    """One version of an organization's KEK. `reference` is the provider's own full name of it, version included:

    FILE    file:<ring>/<name>/<version>
    AWS     the key's ARN; AWS keeps old backing keys under the same one
    AZURE   the key identifier with its version, https, <vault>/keys/<name>/<version>
    GOOGLE  projects/<p>/locations/<l>/keyRings/<r>/cryptoKeys/<k>/cryptoKeyVersions/<n>
    """

    service: KeyService
    reference: str


@dataclass(frozen=True, slots=True)
class SecretContext:
    """What a secret belongs to. `purpose` is such as "aws.base_key"; a purpose can't be swapped for another."""

    organization_id: UUID
    credential_id: UUID
    purpose: str

    def __post_init__(self) -> None:
        if not _PURPOSE.fullmatch(self.purpose) or len(self.purpose) > _MAX_PURPOSE:
            raise ValueError(f'a purpose has at most {_MAX_PURPOSE} characters, like "aws.base_key"')

    def canonical(self, version: int) -> bytes:
        """The context as RFC 8785 JSON, for a version of the envelope. No value in it needs an escape, and the keys are
        in their order; the driver's own kind of UUID is written by `str`.
        """
        given = {
            "credential_id": self.credential_id,
            "organization_id": self.organization_id,
            "purpose": self.purpose,
            "v": version,
        }
        return orjson.dumps(given, default=str)


class Binding(NamedTuple):
    """What wrapped key material is bound to: as bytes, and as the pairs that AWS takes and shows in its trail."""

    aad: bytes
    context: SecretContext
    kek: Kek

    def pairs(self) -> Mapping[str, str]:
        """For key services whose context is text by name. A key's policy can name its organization by these."""
        return {
            "recoup:organization": str(self.context.organization_id),
            "recoup:credential": str(self.context.credential_id),
            "recoup:purpose": self.context.purpose,
            "recoup:kek": self.kek.reference,
        }


class Kms(Protocol):
    """A key service. Both calls end within the provider's deadline."""

    async def wrap(self, kek: Kek, material: bytes, binding: Binding) -> bytes:
        """Key material under the KEK. Raises Problem (KMS_UNAVAILABLE, KMS_KEY_UNUSABLE)."""

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Binding) -> bytes:
        """The key material. Raises EnvelopeBroken for other bytes, KEK or binding, Problem like `wrap`."""


_SAYS: Mapping[KmsCause, str] = {
    KmsCause.DISABLED: "The KEK is disabled. Enable it in its key service; what waits for it then goes on by itself.",
    KmsCause.MISSING: "The KEK doesn't exist. Create it, or name the right one.",
    KmsCause.RETIRED: "This version of the KEK is retired. What is sealed under it must be sealed anew.",
    KmsCause.DENIED: "The key service refuses us this KEK. Give the process's identity its right (deploy/kms).",
    KmsCause.WRONG_REGION: "The KEK lies in a region, cloud or key ring that isn't used here. Name one that is.",
    KmsCause.THROTTLED: "The key service throttles us.",
    KmsCause.TIMEOUT: "The key service doesn't answer in time.",
    KmsCause.UNREACHABLE: "The key service can't be reached.",
}
_AWAY = frozenset({KmsCause.THROTTLED, KmsCause.TIMEOUT, KmsCause.UNREACHABLE})


def failure(cause: KmsCause, kek: Kek) -> Problem:
    """The problem of a cause. What passes by itself, or when somebody enables the key again, is Unavailable."""
    metadata = {"cause": cause.value, "kek": kek.reference}
    if cause in _AWAY:
        return Unavailable(Reason.ERROR_REASON_KMS_UNAVAILABLE, _SAYS[cause], metadata)
    if cause is KmsCause.DISABLED:
        return Unavailable(Reason.ERROR_REASON_KMS_KEY_UNUSABLE, _SAYS[cause], metadata)
    return WrongState(Reason.ERROR_REASON_KMS_KEY_UNUSABLE, _SAYS[cause], metadata)


def waited_for(problem: Problem) -> Problem:
    """The problem as work that goes on by itself has it: a right, a key or a version may be given back at any time, and
    nobody should have to ask for the work again. Who asks in person is told what is wrong instead (`failure`).
    """
    if problem.reason != Reason.ERROR_REASON_KMS_KEY_UNUSABLE:
        return problem
    return Unavailable(problem.reason, problem.message, problem.metadata)
