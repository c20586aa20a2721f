"""API tokens: made, listed, rotated, revoked. A person does that, for themself or for a service account.

A token never holds more than who made it: asked for more, none is made; and what they lose later, it loses
(`token_principals`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Denied, Exhausted, NotFound, Problem, Reason, WrongState
from services._mesh.ids import uuid7
from services._mesh.uow import Store, UnitOfWork
from services.identity.model import api_tokens as model
from services.identity.model.api_tokens import ApiToken, NewToken, user_of
from services.identity.model.membership import Member
from services.identity.model.permissions import PermissionTable
from services.identity.model.roles import is_fresh
from services.identity.store import members as members_store
from services.identity.store import tokens as store
from services.identity.usecases.service_accounts import require_active, require_owner
from services.identity.usecases.token_endings import end_token

READ_ALL, REVOKE_ALL = "identity.token.read", "identity.token.revoke"


async def create_token(work: UnitOfWork, table: PermissionTable, wanted: NewToken, text: str) -> ApiToken:
    """Make a token whose text is `text`. Raises Invalid, Denied, NotFound, WrongState, Exhausted."""
    model.require_expiry(wanted.expires_at, work.wall_now)
    await members_store.lock_members(work.connection, work.organization_id)
    await _require_within(work, table, wanted.permissions, wanted.service_account_id)
    token = _token(work, wanted, text)
    await _insert(work, token, text)
    work.emit("identity.token.create", f"tokens/{token.token_id}", {"before": {}, "after": _facts(token)})
    return token


async def list_tokens(reader: Store, after: UUID | None, limit: int, service_account_id: UUID | None) -> list[ApiToken]:
    """Tokens by id that the caller may see; one more than `limit` shows that there are more."""
    own = None if _holds(READ_ALL) else _on_whose_behalf()
    async with reader.read() as connection:
        return await store.list_tokens(connection, after, limit + 1, of_user=own, of_service_account=service_account_id)


async def rotate_token(
    work: UnitOfWork,
    table: PermissionTable,
    token_id: UUID,
    overlap_hours: int,
    expires_at: datetime | None,
    text: str,
) -> tuple[ApiToken, ApiToken]:
    """Make a token's successor with the text `text`; returns it, and the old one with its new end.

    Only who made it does that, and only as far as they still hold what it holds. Raises NotFound, Denied,
    Invalid, WrongState, Exhausted.
    """
    await members_store.lock_members(work.connection, work.organization_id)
    old = await store.get_token(work.connection, token_id, lock=True)
    if not _made(old):
        raise _not_yours("rotated by whoever made it")
    model.require_usable(old, work.wall_now)
    expires_at = expires_at or work.wall_now + (old.expires_at - old.created_at)
    model.require_expiry(expires_at, work.wall_now)
    await _require_within(work, table, old.permissions, old.service_account_id)
    wanted = NewToken(old.display_name, old.permissions, old.connection_ids, expires_at, old.service_account_id)
    new = _token(work, wanted, text)
    replaced = await _replace(work, old, new, overlap_hours)
    await _insert(work, new, text)
    work.emit(
        "identity.token.rotate",
        f"tokens/{old.token_id}",
        {"before": _facts(old), "after": _facts(replaced), "replaced_by": str(new.token_id), "successor": _facts(new)},
    )
    return new, replaced


async def _replace(work: UnitOfWork, old: ApiToken, new: ApiToken, overlap_hours: int) -> ApiToken:
    if not overlap_hours:
        await end_token(work, old, "rotated")
        return await store.mark_token(work.connection, old.token_id, replaced_by=new.token_id)
    ends_at = min(old.expires_at, work.wall_now + timedelta(hours=overlap_hours))
    return await store.mark_token(work.connection, old.token_id, replaced_by=new.token_id, expires_at=ends_at)


async def revoke_token(work: UnitOfWork, token_id: UUID) -> ApiToken:
    """End a token at once. Raises NotFound, and WrongState where that has been done."""
    token = await store.get_token(work.connection, token_id, lock=True)
    if not (_holds(REVOKE_ALL) or _made(token)):
        raise _not_yours("revoked by whoever made it, an Admin or Security")
    if token.state != "ACTIVE":
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "The token is revoked already.",
            {"state": token.state, "allowed": "ACTIVE"},
        )
    return await end_token(work, token, "revoked")


def _token(work: UnitOfWork, wanted: NewToken, text: str) -> ApiToken:
    return ApiToken(
        organization_id=work.organization_id,
        token_id=uuid7(),
        service_account_id=wanted.service_account_id,
        creator_user_id=_caller(),
        display_name=wanted.display_name,
        permissions=wanted.permissions,
        connection_ids=wanted.connection_ids,
        state="ACTIVE",
        hint=model.hint(text),
        created_at=work.wall_now,
        expires_at=wanted.expires_at,
    )


async def _insert(work: UnitOfWork, token: ApiToken, text: str) -> None:
    connection, account = work.connection, token.service_account_id
    most = model.MAX_TOKENS_OF_A_USER if account is None else model.MAX_TOKENS_OF_A_SERVICE_ACCOUNT
    if await store.count_live_tokens(connection, token.creator_user_id, account, work.wall_now) >= most:
        raise Exhausted(
            Reason.ERROR_REASON_QUOTA_EXCEEDED,
            f"There are {most} tokens already, which is the most. Revoke one that isn't used.",
            {"limit": str(most)},
        )
    await store.insert_token(connection, token, model.digest(text))


async def _require_within(
    work: UnitOfWork, table: PermissionTable, permissions: frozenset[str], service_account_id: UUID | None
) -> None:
    """Raise unless the caller holds all of it now, and answers for the machine that shall act with it.

    Whoever made a token may know its text: were they somebody else than who answers for what is done with it, they
    could approve what they asked for themself.
    """
    model.require_known(permissions, table.known, table.for_people)
    creator = await require_owner(work, _caller())
    model.require_within(permissions, _held_by(table, creator, work.now))
    if service_account_id is None:
        return
    account = await store.get_service_account(work.connection, service_account_id, lock=True)
    if account.owner_user_id != creator.user_id:
        raise _not_its_owner() if _holds(READ_ALL) else NotFound("service_account")
    require_active(account)


def _held_by(table: PermissionTable, member: Member, now: datetime) -> frozenset[str]:
    """What a member holds now, of all services, by the injected clock."""
    held = table.everywhere(member.organization_id, member.role.value, member.custom_permissions)
    return held - table.approvals if is_fresh(member, now) else held


def _made(token: ApiToken) -> bool:
    return token.creator_user_id == _caller()


def _caller() -> UUID:
    return user_of(current().actor)


def _on_whose_behalf() -> UUID:
    """The caller; of a machine, the user whose membership it has."""
    passport = current().passport
    return _caller() if passport is None else user_of(passport.rests_on[0])


def _holds(permission: str) -> bool:
    passport = current().passport
    return passport is not None and permission in passport.permissions


def _not_its_owner() -> Denied:
    return Denied(
        Reason.ERROR_REASON_SERVICE_ACCOUNT_NOT_OWN,
        "Only who answers for a service account makes its tokens. Ask them, or have it handed to you first.",
    )


def _not_yours(rule: str) -> Problem:
    """To who doesn't see others' tokens, there is no such token."""
    if not _holds(READ_ALL):
        return NotFound("token")
    return Denied(Reason.ERROR_REASON_PERMISSION_MISSING, f"A token is {rule}.", {"permission": REVOKE_ALL})


def _facts(token: ApiToken) -> Mapping[str, object]:
    """What an event says of a token: never its text, its digest or its name."""
    return {
        "creator_user_id": str(token.creator_user_id),
        "service_account_id": str(token.service_account_id or ""),
        "permissions": sorted(token.permissions),
        "connection_ids": sorted(str(each) for each in token.connection_ids),
        "state": token.state,
        "expires_at": f"{token.expires_at:%Y-%m-%dT%H:%M:%SZ}",
    }
