"""Service accounts: machines of an organization, each with a member who answers for it."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Exhausted, Reason, WrongState, invalid_field
from services._mesh.ids import uuid7
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.api_tokens import MAX_SERVICE_ACCOUNTS, ServiceAccount, user_of
from services.identity.model.membership import Member, require_etag
from services.identity.store import members as members_store
from services.identity.store import tokens as store
from services.identity.usecases.token_endings import end_token


async def create_service_account(work: UnitOfWork, display_name: str, owner: UUID | None) -> ServiceAccount:
    """Make a service account; who makes it answers for it, unless another member is named.

    Raises Invalid where the owner isn't a member, Exhausted where there are too many.
    """
    await members_store.lock_members(work.connection, work.organization_id)
    owner = owner or user_of(current().actor)
    await require_owner(work, owner)
    if await store.count_service_accounts(work.connection) >= MAX_SERVICE_ACCOUNTS:
        raise Exhausted(
            Reason.ERROR_REASON_QUOTA_EXCEEDED,
            f"An organization has at most {MAX_SERVICE_ACCOUNTS} service accounts. Disable one that isn't used.",
            {"limit": str(MAX_SERVICE_ACCOUNTS)},
        )
    account = ServiceAccount(work.organization_id, uuid7(), display_name, owner, "ACTIVE", 1, work.wall_now)
    await store.insert_service_account(work.connection, account)
    _emit(work, "identity.service_account.create", None, account)
    return account


async def list_service_accounts(reader: Store, after: UUID | None, limit: int) -> list[ServiceAccount]:
    """Service accounts by id; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_service_accounts(connection, after, limit + 1)


async def update_service_account(
    work: UnitOfWork, service_account_id: UUID, display_name: str, owner: UUID | None, etag: str
) -> ServiceAccount:
    """Rename it, or have another member answer for it: what the old owner's tokens opened, who may know them, ends.

    Raises NotFound, Conflict, WrongState, and Invalid where the new owner isn't a member.
    """
    await members_store.lock_members(work.connection, work.organization_id)
    before = await active_account(work, service_account_id)
    require_etag(etag, before.etag)
    after = replace(
        before, display_name=display_name or before.display_name, owner_user_id=owner or before.owner_user_id
    )
    if after.owner_user_id != before.owner_user_id:
        await require_owner(work, after.owner_user_id)
        await _end_all(work, before, "handed over")
    after = await store.mark_service_account(
        work.connection, service_account_id, display_name=after.display_name, owner_user_id=after.owner_user_id
    )
    _emit(work, "identity.service_account.update", before, after)
    return after


async def disable_service_account(work: UnitOfWork, service_account_id: UUID) -> ServiceAccount:
    """End it and all its tokens, at once and for good. Raises NotFound, WrongState."""
    before = await active_account(work, service_account_id)
    await _end_all(work, before, "service account disabled")
    after = await store.mark_service_account(work.connection, service_account_id, state="DISABLED")
    _emit(work, "identity.service_account.disable", before, after)
    return after


async def active_account(work: UnitOfWork, service_account_id: UUID) -> ServiceAccount:
    """A service account in use, locked. Raises NotFound, WrongState where it is disabled."""
    account = await store.get_service_account(work.connection, service_account_id, lock=True)
    require_active(account)
    return account


def require_active(account: ServiceAccount) -> None:
    """Raise WrongState where a service account is disabled."""
    if account.state != "ACTIVE":
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "The service account is disabled. Make another one.",
            {"state": account.state, "allowed": "ACTIVE"},
        )


async def require_owner(work: UnitOfWork, user_id: UUID) -> Member:
    """The active member that answers for a service account. Raises Invalid where there is none."""
    found = await members_store.find_member_of_user(work.connection, work.organization_id, user_id)
    if found is None or found.state != "ACTIVE":
        raise invalid_field("owner_user_id", "must be the user of an active member of this organization")
    return found


async def _end_all(work: UnitOfWork, account: ServiceAccount, reason: str) -> None:
    for token in await store.list_live_tokens_of_account(work.connection, account.service_account_id):
        await end_token(work, token, reason)


def _emit(work: UnitOfWork, action: str, before: ServiceAccount | None, after: ServiceAccount) -> None:
    was = {"owner_user_id": str(before.owner_user_id), "state": before.state} if before else {}
    is_now = {"owner_user_id": str(after.owner_user_id), "state": after.state}
    work.emit(action, f"serviceAccounts/{after.service_account_id}", {"before": was, "after": is_now})
