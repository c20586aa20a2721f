"""What ends with a membership: sessions, tokens, elevations and whatever else rests on it, in one transaction.

To have something of yours end too, write `async def end_…(work: UnitOfWork, member: Member) -> int` in your own
module (it ends all that this member holds in `work.organization_id`, and returns how many that were), and add it to
`ENDINGS` below under the name that the event shall count it by. It runs within the caller's transaction: it must
not commit, call anybody, or wait. Your module must not import this one at its top.

Whoever ends a membership (an Admin, the member, a directory by SCIM, an identity provider) calls `end_membership`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from services._mesh.revocations import RevocationKind
from services._mesh.uow import UnitOfWork
from services.identity.model.membership import Member, Role, require_another_admin
from services.identity.store import members as store
from services.identity.store.revocations import insert_revocation
from services.identity.usecases.browser_sessions import end_browser_sessions
from services.identity.usecases.elevations import end_elevations
from services.identity.usecases.enforcement import require_not_break_glass
from services.identity.usecases.invitations import end_invitations
from services.identity.usecases.operators import end_operator_access
from services.identity.usecases.ownership import refuse_owner, succeed_owner
from services.identity.usecases.scim.token_endings import end_scim_tokens
from services.identity.usecases.sso_sessions import end_sso_sessions
from services.identity.usecases.token_endings import end_tokens


async def revoke_member(work: UnitOfWork, member: Member) -> int:
    """Void every passport of the member in this organization at once; returns the place in the feed."""
    key = f"{work.organization_id}/{member.actor}"
    return await insert_revocation(work.connection, RevocationKind.MEMBER.name, key, work.wall_now)


async def end_sessions(work: UnitOfWork, member: Member) -> int:
    """An ending: no session of the member's opens this organization any more."""
    await revoke_member(work, member)
    return 1


Ending = Callable[[UnitOfWork, Member], Awaitable[int]]
ENDINGS: tuple[tuple[str, Ending], ...] = (
    ("sessions", end_sessions),
    ("elevations", end_elevations),
    ("operator access", end_operator_access),
    ("tokens", end_tokens),
    ("scim_tokens", end_scim_tokens),
    ("invitations", end_invitations),
    ("sso_sessions", end_sso_sessions),
    ("browser_sessions", end_browser_sessions),
)


async def active_member(work: UnitOfWork, member_id: UUID) -> Member:
    """A member, locked, after everybody who changes who belongs here. Raises NotFound where the membership is over."""
    return await store.get_active_member(work.connection, work.organization_id, member_id)


async def lose_admin(work: UnitOfWork, member: Member) -> None:
    """What goes before a member gets a role that isn't Admin: the last Admin, the owner and who may sign in without an
    enforced identity provider stay (WrongState), whom an Admin invited doesn't come in any more, and the SCIM tokens
    that they made end.
    """
    if member.role is not Role.ADMIN:
        return
    require_another_admin(member, await store.count_admins(work.connection))
    await refuse_owner(work, member)
    await require_not_break_glass(work, member)
    await end_invitations(work, member)
    await end_scim_tokens(work, member)


async def end_membership(
    work: UnitOfWork,
    member: Member,
    reason: str,
    action: str = "identity.member.remove",
    *,
    hands_over: bool = False,
) -> Member:
    """End a membership and all that rests on it; returns the member as they are now.

    `reason` is a word for the event, such as "removed", "left" or "directory"; `action` is the event's. With
    `hands_over`, which is for directories, an owner's ownership passes to the longest-standing other Admin. Raises
    NotFound where the membership is over already, WrongState for the last Admin and (without `hands_over`) the owner.
    """
    before = await active_member(work, member.member_id)
    require_another_admin(before, await store.count_admins(work.connection))
    if hands_over:
        await succeed_owner(work, before)
    await refuse_owner(work, before)
    await require_not_break_glass(work, before)
    after = await store.mark_member(work.connection, before.member_id, state="REMOVED")
    ended = {name: str(await end(work, before)) for name, end in ENDINGS}
    work.emit(
        action,
        f"members/{before.member_id}",
        {
            "before": {"role": before.role.value, "state": before.state},
            "after": {"role": after.role.value, "state": after.state},
            "user_id": str(before.user_id),
            "reason": reason,
            "ended": ended,
        },
    )
    return after
