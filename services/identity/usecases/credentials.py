"""What became of cloud credentials, in the revocation feed. The scanner, which keeps them, grants who may say so."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Denied, Reason
from services._mesh.grants import Grant
from services._mesh.revocations import RevocationKind
from services._mesh.uow import Store
from services.identity.store.revocations import insert_revocations

# The kinds of the scanner's jobs that may say it.
_REVOKE, _REWRAP, _ROTATE = "revoke_credential", "rewrap_credentials", "rotate_credential"


async def publish_credentials(store: Store, kind: RevocationKind, credential_ids: Sequence[UUID]) -> None:
    """Add to the feed. Raises Denied (GRANT_INVALID).

    A revocation is for good, so its grant names the one credential, or the two of a rotation; being forgotten harms
    none, so that a job about all of an organization's credentials may say it of any.
    """
    grant = current().grant
    if grant is None or not _allows(grant, kind, credential_ids):
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant is for something else.")
    async with store.begin(grant.organization_id) as work:
        await insert_revocations(work.connection, kind.name, [str(each) for each in credential_ids], work.wall_now)


def _allows(grant: Grant, kind: RevocationKind, credential_ids: Sequence[UUID]) -> bool:
    if kind is RevocationKind.CREDENTIAL:
        named = {_REVOKE: (grant.subject,), _ROTATE: tuple(grant.plan.split("."))}.get(grant.kind, ())
        return len(credential_ids) == 1 and str(credential_ids[0]) in named
    return grant.kind == _REWRAP
