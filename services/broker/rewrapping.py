"""Wraps credentials under other KEKs, and shows that a KEK unwraps. Which KEK, and whose credentials, a grant says."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.envelope import VERSION, rewrap
from services._mesh.errors import Denied, Problem, Reason
from services._mesh.kms.interface import Binding, EnvelopeBroken, Kek, Kms, KmsCause, SecretContext, failure, waited_for
from services.broker.model import base_key
from services.broker.model.replay import UsedGrants

REWRAP, PROBE_PURPOSE = "rewrap_credentials", "kek.probe"
# As many as one organization may have under way at its key services (services/_mesh/kms/opening.py).
_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """A credential's new envelope, or why there is none."""

    credential_id: UUID
    envelope: bytes
    problem: str


class Rewrapper:
    """The broker's key services, for keys alone: no payload is opened here, but those of the envelope's version 1."""

    def __init__(self, kms: Kms, used: UsedGrants, clock: Clock) -> None:
        self._kms, self._used, self._clock = kms, used, clock

    async def rewrap_credentials(self, kek: Kek, given: Sequence[tuple[UUID, bytes, str]]) -> list[Rewrapped]:
        """Wrap each (id, envelope, purpose) under the KEK. One that can't be unwrapped doesn't hold up the others.

        Raises Denied (GRANT_INVALID), and Unavailable where the KEK itself can't be used, or a key service is away.
        """
        grant = current().grant
        if grant is None or grant.kind != REWRAP or not hmac.compare_digest(grant.plan, plan_of(kek)):
            raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant is for something else.")
        self._used.use(grant.jti, grant.issued_at, self._clock.wall_seconds())
        places = asyncio.Semaphore(_AT_ONCE)

        async def one(credential_id: UUID, sealed: bytes, purpose: str) -> Rewrapped:
            async with places:
                return await self._one(grant.organization_id, credential_id, purpose or base_key.PURPOSE, sealed, kek)

        done = await asyncio.gather(*(one(*each) for each in given), return_exceptions=True)
        for each in done:
            if isinstance(each, BaseException):
                raise each
        return [each for each in done if isinstance(each, Rewrapped)]

    async def _one(
        self, organization_id: UUID, credential_id: UUID, purpose: str, sealed: bytes, kek: Kek
    ) -> Rewrapped:
        try:
            # A purpose that isn't the one it was sealed for unwraps nothing, like any other wrong context.
            context = SecretContext(organization_id, credential_id, purpose)
            return Rewrapped(credential_id, await rewrap(sealed, context, kek, self._kms), "")
        except (EnvelopeBroken, ValueError):
            return Rewrapped(credential_id, b"", "it doesn't open; connect again, or make the key anew")
        except Problem as problem:
            if problem.reason != Reason.ERROR_REASON_KMS_KEY_UNUSABLE or problem.metadata.get("kek") == kek.reference:
                raise waited_for(problem) from None
            return Rewrapped(credential_id, b"", f"its key is {problem.metadata.get('cause', 'unusable')}")

    async def prove_kek(self, context: SecretContext, kek: Kek, wrapped: bytes, digest: bytes) -> None:
        """Unwrap what was wrapped to try the KEK. Raises Problem."""
        try:
            material = await self._kms.unwrap(kek, wrapped, Binding(context.canonical(VERSION), context, kek))
        except EnvelopeBroken:
            raise failure(KmsCause.MISSING, kek) from None
        if not hmac.compare_digest(hashlib.sha256(material).digest(), digest):
            raise failure(KmsCause.MISSING, kek)


def plan_of(kek: Kek) -> str:
    """How the scanner names a KEK in the grant."""
    return hashlib.sha256(f"{kek.service.value}:{kek.reference}".encode()).hexdigest()
