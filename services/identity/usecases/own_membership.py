"""What a person decides about their own membership: leaving, and which organization they are in by default."""

from __future__ import annotations

from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Denied, NotFound, Reason, invalid_field
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import Member, Role, own_user_id
from services.identity.store import members as store
from services.identity.store.organizations import get_organization
from services.identity.usecases.choosing import active_choices, preferred
from services.identity.usecases.endings import end_membership


async def leave_organization(work: UnitOfWork, confirm_slug: str) -> None:
    """End one's own membership. Raises NotFound, Invalid, WrongState for the owner and the last Admin, Denied (aal)."""
    await store.lock_members(work.connection, work.organization_id)
    if (await get_organization(work.connection, work.organization_id)).slug != confirm_slug:
        raise invalid_field("confirm_slug", "must be the short name of the organization that you leave")
    member = await _own(work)
    if member.role is Role.ADMIN and current().aal < 2:
        raise Denied(
            Reason.ERROR_REASON_ASSURANCE_TOO_LOW,
            "An Admin leaves with a second factor.",
            {"required_aal": "2"},
        )
    await end_membership(work, member, "left", "identity.member.leave")


async def set_default_organization(work: UnitOfWork) -> None:
    """Remember this organization as the person's choice: of several, the one chosen last counts. Raises NotFound."""
    member = await _own(work)
    await store.mark_default(work.connection, member.member_id, work.now)
    about = {"before": {}, "after": {"chosen_at": work.now.isoformat()}}
    work.emit("identity.default_organization.set", f"members/{member.member_id}", about)


async def _own(work: UnitOfWork) -> Member:
    user_id = own_user_id(current().actor)
    member = await store.find_member_of_user(work.connection, work.organization_id, user_id)
    if member is None or member.state != "ACTIVE":
        raise NotFound("member")
    return member


async def default_organization(reader: Store, user_id: UUID) -> UUID | None:
    """The organization that a person is in when they name none: the active one chosen last, or the only one."""
    return preferred(await active_choices(reader, user_id), None)


async def my_default_organization(reader: Store) -> UUID | None:
    """The caller's own, by this login; of a bound credential, the organization that it is bound to."""
    user, bound = own_user(), bound_organization()
    return bound if bound is not None or user is None else await default_organization(reader, user)


def own_user() -> UUID | None:
    """The user whose membership the caller has, and not the person that others in an organization say they are."""
    call = current()
    actor = call.passport.rests_on[0] if call.passport is not None and call.passport.rests_on else call.actor
    return own_user_id(actor) if actor.startswith("user:") else None


def bound_organization() -> UUID | None:
    """The organization of the caller's passport, where it has one."""
    passport = current().passport
    return None if passport is None else passport.organization_id
