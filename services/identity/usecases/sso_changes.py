"""What vouches for people was changed: approvals wait a day, or for another Admin who has looked at it."""

from __future__ import annotations

from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Denied, Reason, WrongState
from services._mesh.ids import PLATFORM
from services._mesh.uow import UnitOfWork
from services.identity.model.membership import require_etag
from services.identity.model.sso import Provider
from services.identity.store import sso as store
from services.identity.store.members import lock_members
from services.identity.usecases.persons import responsible_person, users_of_person
from services.identity.usecases.roles import is_settled


async def confirm_identity_provider(work: UnitOfWork, provider_id: UUID, etag: str) -> Provider:
    """Let sessions of a changed provider approve. Raises NotFound, Conflict, WrongState, Denied
    (SECOND_PERSON_REQUIRED).

    Passports say so when they are issued anew, within five minutes.
    """
    await lock_members(work.connection, work.organization_id)
    before = await store.get_provider(work.connection, provider_id, lock=True)
    require_etag(etag, before.etag)
    if before.approves_from is None or before.approves_from <= work.now:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "Nothing waits for this identity provider.",
            {"state": "SETTLED", "allowed": "changed within a day"},
        )
    person = await _another(work, before.changed_by)
    after = await store.mark_provider(work.connection, before, confirmed_by=person)
    says = {"before": {"waits_until": before.approves_from.isoformat()}, "after": {"confirmed_by": str(person)}}
    work.emit("identity.identity_provider.confirm", f"identityProviders/{provider_id}", says)
    return after


async def _another(work: UnitOfWork, changed_by: UUID | None) -> UUID:
    """The person who confirms: not who made the change, nor where it isn't sure who did. Raises Denied."""
    user = current().responsible_person or PLATFORM
    person = await responsible_person(work.connection, work.organization_id, user)
    if user == PLATFORM or changed_by in await users_of_person(work.connection, work.organization_id, person):
        raise Denied(
            Reason.ERROR_REASON_SECOND_PERSON_REQUIRED,
            "Who changed an identity provider can't confirm it. Ask another Admin, or wait for a day.",
        )
    if changed_by is None or not await is_settled(work, changed_by):
        raise Denied(
            Reason.ERROR_REASON_SECOND_PERSON_REQUIRED,
            "It isn't sure that who changed this identity provider has been here for a day. Wait for a day.",
        )
    return person
