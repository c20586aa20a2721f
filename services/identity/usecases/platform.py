"""What the platform decides about a customer's organization: that it begins, rests, and goes on. Nothing within it."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Reason, WrongState, invalid_field
from services._mesh.ids import PLATFORM
from services._mesh.revocations import RevocationKind
from services._mesh.uow import UnitOfWork
from services.identity.model.invitations import Invitation
from services.identity.model.membership import Organization, Role, require_time_zone
from services.identity.model.permissions import PLATFORM_SLUG
from services.identity.store import organizations as store
from services.identity.store.members import lock_members
from services.identity.store.revocations import insert_revocation
from services.identity.usecases.invitations import create_invitation


@dataclass(frozen=True, slots=True)
class NewTenant:
    """A customer's organization as the platform's Admin describes it; empty texts mean UTC and USD."""

    slug: str
    display_name: str
    time_zone: str
    reporting_currency: str
    admin_email: str
    expires_in_hours: int


async def create_organization(work: UnitOfWork, given: NewTenant) -> tuple[Organization, Invitation, str]:
    """Create the organization of `work` and invite its first Admin; returns both and the secret.

    Raises Invalid, AlreadyExists where the short name is taken.
    """
    if given.slug == PLATFORM_SLUG:
        raise invalid_field("slug", f"{PLATFORM_SLUG} is the platform's own")
    require_time_zone(given.time_zone or "UTC")
    organization = Organization(
        work.organization_id,
        given.slug,
        given.display_name,
        given.time_zone or "UTC",
        given.reporting_currency or "USD",
        "ACTIVE",
        1,
        work.now,
    )
    await store.insert_organization(work.connection, organization)
    after = {"slug": given.slug, "state": "ACTIVE"}
    work.emit("identity.organization.create", _target(work.organization_id), {"before": {}, "after": after})
    invitation, secret = await create_invitation(work, given.admin_email, Role.ADMIN, given.expires_in_hours)
    return organization, invitation, secret


async def suspend_organization(work: UnitOfWork, reason: str) -> Organization:
    """Void all that anybody holds in an organization, and let nobody in. Raises NotFound, WrongState, Invalid."""
    if work.organization_id == PLATFORM:
        raise invalid_field("organization_id", "must not be the platform's: nobody could resume it")
    after = await _turn(work, "ACTIVE", "SUSPENDED", "identity.organization.suspend", reason)
    kind, key = RevocationKind.ORGANIZATION.name, str(work.organization_id)
    await insert_revocation(work.connection, kind, key, work.wall_now)
    return after


async def resume_organization(work: UnitOfWork, reason: str) -> Organization:
    """Let a suspended organization's people in again. Raises NotFound, WrongState."""
    return await _turn(work, "SUSPENDED", "ACTIVE", "identity.organization.resume", reason)


async def _turn(work: UnitOfWork, before: str, after: str, action: str, reason: str) -> Organization:
    await lock_members(work.connection, work.organization_id)
    found = await store.get_organization(work.connection, work.organization_id)
    if found.state != before:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"The organization is {found.state.lower()} already.",
            {"state": found.state, "allowed": before},
        )
    changed = await store.mark_organization(work.connection, found, state=after)
    about = {"before": {"state": before}, "after": {"state": after}, "reason": reason, "by": current().actor}
    work.emit(action, _target(work.organization_id), about)
    return changed


def _target(organization_id: UUID) -> str:
    return f"organizations/{organization_id}"
