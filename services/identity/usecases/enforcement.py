"""Enforced single sign-on: whose other sessions are refused, and the one Admin who is never locked out."""

from __future__ import annotations

from uuid import UUID

from services._mesh.errors import Denied, Reason, WrongState
from services._mesh.uow import UnitOfWork
from services.identity.model.membership import Member, Role
from services.identity.store import members as members_store
from services.identity.store import sso as store


def require_no_provider(provider_id: UUID | None, own: UUID | None = None) -> None:
    """Raise Denied (SSO_REQUIRED) where a provider is demanded that isn't the session's own."""
    if provider_id not in (None, own):
        raise Denied(
            Reason.ERROR_REASON_SSO_REQUIRED,
            "Your organization demands that you sign in by its identity provider.",
            {"provider_id": str(provider_id)},
        )


async def require_break_glass_admin(work: UnitOfWork, member_id: UUID | None) -> None:
    """Raise WrongState unless it is an active Admin who signs in without a provider. Needs `lock_members`."""
    member = await members_store.get_member(work.connection, member_id) if member_id else None
    if member is None or member.state != "ACTIVE" or member.role is not Role.ADMIN:
        raise _break_glass("Name an active Admin who may sign in without the identity provider.", member_id)
    if await store.signs_in_by_provider(work.connection, member.user_id):
        raise _break_glass(
            "This Admin signs in by an identity provider only. Name one who has a login of their own.", member_id
        )


async def require_not_break_glass(work: UnitOfWork, member: Member) -> None:
    """Raise WrongState for the Admin whom an enforced provider names: they stay one. Needs `lock_members`."""
    provider = await store.enforcing_provider(work.connection)
    if provider is not None and provider.break_glass_member_id == member.member_id:
        raise _break_glass(
            "Single sign-on is enforced, and this Admin is who may sign in without it. Name another one first.",
            member.member_id,
        )


def _break_glass(message: str, member_id: UUID | None) -> WrongState:
    return WrongState(Reason.ERROR_REASON_BREAK_GLASS_ADMIN, message, {"member_id": str(member_id or "")})
