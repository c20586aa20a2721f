"""What a check of an Azure or Google Cloud connection looks at: who we are, which scopes we see, what is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol, TypeVar

from services._mesh.claimed import ClaimedJob
from services._mesh.clouds import CloudToken
from services._mesh.errors import Problem, Reason
from services.scanner.clients.clouds import CloudFailed, CloudReader
from services.scanner.model.cloud import ALL_SCOPES, CloudScope, Provider, identity_name, scope_name
from services.scanner.model.connection import Connection, PermissionCheck, RoleCheck
from services.scanner.model.health import Seen
from services.scanner.policies import azure, gcp

# Scopes that are looked at at once.
_AT_ONCE = 4
READS: Mapping[Provider, tuple[str, ...]] = {Provider.AZURE: azure.READS, Provider.GCP: gcp.READS}
_FAILED = {
    Reason.ERROR_REASON_CLOUD_REFUSED: "REFUSED",
    Reason.ERROR_REASON_CLOUD_THROTTLED: "UNREACHABLE",
    Reason.ERROR_REASON_CLOUD_UNREACHABLE: "UNREACHABLE",
}
T = TypeVar("T")


class TokenDesk(Protocol):
    """Gives the token that a grant names."""

    async def open_token(self, grant: str, credential_id: str) -> CloudToken:
        """Raises Problem."""


async def see_cloud(desk: TokenDesk, cloud: CloudReader, job: ClaimedJob, found: Connection) -> Seen:
    """Sign in, list the scopes, and probe every permission in each scope of the connection. Raises Problem."""
    who, purpose = identity_name(found.provider, found.identity), f"{found.provider.value}.check"

    async def token(scope_id: str) -> CloudToken:
        credential = job.credential(purpose, scope_id)
        return await desk.open_token(credential.grant, credential.credential_id)

    async def discover() -> list[CloudScope]:
        return await cloud.scopes(await token(ALL_SCOPES))

    discovered, entry = await _entered(who, discover())
    if discovered is None:
        return Seen([entry], [])
    places = asyncio.Semaphore(_AT_ONCE)

    async def scope(scope_id: str) -> tuple[RoleCheck, list[PermissionCheck]]:
        async with places:
            return await probe_scope(cloud, token(scope_id), found.provider, scope_id)

    looked = await asyncio.gather(*(scope(account.account_id) for account in found.accounts))
    return Seen([entry, *(role for role, _ in looked)], [p for _, seen in looked for p in seen], discovered)


async def probe_scope(
    cloud: CloudReader, token: Awaitable[CloudToken], provider: Provider, scope_id: str
) -> tuple[RoleCheck, list[PermissionCheck]]:
    """Whether we get into a scope with a token, and what came of each permission. Raises Problem."""
    name, wanted = scope_name(provider, scope_id), READS[provider]

    async def probe() -> Mapping[str, bool]:
        return await cloud.probe(await token, wanted)

    outcomes, entry = await _entered(name, probe())
    return entry, _checks(name, wanted, outcomes or {})


def _checks(name: str, wanted: Sequence[str], outcomes: Mapping[str, bool]) -> list[PermissionCheck]:
    said = {True: "ALLOWED", False: "REFUSED"}
    return [PermissionCheck(name, "scan", "", each, said[outcomes[each]]) for each in wanted if each in outcomes]


async def _entered(name: str, asked: Awaitable[T]) -> tuple[T | None, RoleCheck]:
    """What was asked, or nothing, and how we got in. Raises Problem for what isn't the cloud's."""
    try:
        return await asked, RoleCheck(name, "", "", "ALLOWED")
    except CloudFailed as failed:
        return None, RoleCheck(name, "", "", failed.outcome, failed.code)
    except Problem as problem:
        outcome = _FAILED.get(problem.reason)
        if outcome is None:
            raise
        return None, RoleCheck(name, "", "", outcome, str(problem.metadata.get("code", problem.reason_name)))
