"""Identity providers and domains: how an organization sets single sign-on up, enforces it and ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services._mesh.context import current
from services._mesh.egress import EgressRefused, check_url
from services._mesh.errors import Exhausted, Reason, WrongState, invalid_field
from services._mesh.ids import uuid7
from services._mesh.revocations import RevocationKind
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import Role, require_etag
from services.identity.model.permissions import PermissionTable
from services.identity.model.saml.documents import SamlRefused
from services.identity.model.saml.metadata import read_metadata
from services.identity.model.sso import (
    DEFAULT_SESSION_MINUTES,
    MAX_PROVIDERS,
    GroupRole,
    Provider,
    ProviderState,
    reads,
    refusal,
    require_set_up,
)
from services.identity.store import members as members_store
from services.identity.store import roles as roles_store
from services.identity.store import sso as store
from services.identity.store import sso_logins as logins
from services.identity.store.revocations import insert_revocation
from services.identity.usecases.enforcement import require_break_glass_admin
from services.identity.usecases.roles import require_may_give
from services.identity.usecases.sso_sessions import revoke_sessions


async def list_identity_providers(reader: Store) -> list[Provider]:
    """All providers of the caller's organization."""
    async with reader.read() as connection:
        return await store.list_providers(connection)


async def get_identity_provider(reader: Store, provider_id: UUID) -> Provider:
    """One provider. Raises NotFound."""
    async with reader.read() as connection:
        return await store.get_provider(connection, provider_id)


async def create_identity_provider(work: UnitOfWork, display_name: str) -> Provider:
    """Begin to set a provider up. Raises Exhausted beyond ten."""
    await members_store.lock_members(work.connection, work.organization_id)
    if len(await store.list_providers(work.connection)) >= MAX_PROVIDERS:
        raise too_many(MAX_PROVIDERS, "identity providers")
    made = Provider(
        work.organization_id, uuid7(), display_name, ProviderState.SETUP, "", "", (), "", False, "", "", (), None,
        DEFAULT_SESSION_MINUTES, False, None, 1, 0, 1, work.now,
    )  # fmt: skip
    await store.insert_provider(work.connection, made)
    _emit(work, "identity.identity_provider.create", None, made)
    return made


@dataclass(frozen=True, slots=True)
class ProviderChange:
    """How answers are to be read from now on; an empty display name stays as it is."""

    display_name: str
    provider_initiated: bool
    email_attribute: str
    groups_attribute: str
    mfa_contexts: tuple[str, ...]
    default_role: Role | None
    session_minutes: int
    etag: str


async def update_identity_provider(
    work: UnitOfWork, table: PermissionTable, provider_id: UUID, change: ProviderChange
) -> Provider:
    """Change how answers are read. Raises NotFound, Conflict (ETAG_MISMATCH), Denied for a role beyond the caller's."""
    before = await _locked(work, provider_id, change.etag)
    if change.default_role is not None and change.default_role is not before.default_role:
        await require_may_give(work, table, change.default_role)
    return await _configured(
        work,
        "identity.identity_provider.update",
        before,
        display_name=change.display_name or before.display_name,
        provider_initiated=change.provider_initiated,
        email_attribute=change.email_attribute,
        groups_attribute=change.groups_attribute,
        mfa_contexts=list(change.mfa_contexts),
        default_role=change.default_role.value if change.default_role else "",
        session_minutes=change.session_minutes or DEFAULT_SESSION_MINUTES,
    )


async def import_metadata(work: UnitOfWork, provider_id: UUID, metadata: bytes, url: str, etag: str) -> Provider:
    """Take name, sign-in address and certificates from metadata. Raises NotFound, Conflict, Invalid, WrongState.

    A provider that people signed in by keeps its name: under another one the same NameIDs are other people.
    """
    before = await _locked(work, provider_id, etag)
    try:
        found = read_metadata(metadata, work.wall_now)
    except SamlRefused as refused:
        raise refusal(refused, "metadata") from refused
    try:
        if url:
            check_url(url)
    except EgressRefused as refused:
        raise invalid_field("metadata_url", f"{refused}, or be empty") from None
    if before.entity_id not in ("", found.entity_id) and await store.has_people(work.connection, provider_id):
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "This metadata is another provider's (entityID), and people sign in by this one. Create another provider.",
            {"state": "IN_USE", "allowed": "the same entityID"},
        )
    return await _configured(
        work,
        "identity.metadata.import",
        before,
        entity_id=found.entity_id,
        sso_url=found.sso_url,
        certificates=list(found.certificates),
        metadata_url=url,
    )


async def set_group_roles(
    work: UnitOfWork, table: PermissionTable, provider_id: UUID, wanted: Sequence[GroupRole], etag: str
) -> Provider:
    """Say which groups have which roles. Raises NotFound, Conflict, Invalid, Denied for a role beyond the caller's."""
    before = await _locked(work, provider_id, etag)
    if len({each.group for each in wanted}) != len(wanted):
        raise invalid_field("group_roles", "must name each group once")
    kept = {(each.group, each.role, each.custom_role_id): each for each in before.group_roles}
    groups = []
    for place, each in enumerate(wanted):
        known = kept.get((each.group, each.role, each.custom_role_id))
        if known is None:
            await _require_may_map(work, table, f"group_roles[{place}]", each)
        groups.append(known or each)
    await store.replace_group_roles(work.connection, before, groups)
    after = await store.mark_provider(work.connection, before, config_version=before.config_version + 1)
    was, is_now = ([group.says for group in each.group_roles] for each in (before, after))
    target = f"identityProviders/{provider_id}"
    work.emit("identity.group_role.set", target, {"before": {"groups": was}, "after": {"groups": is_now}})
    return after


async def _require_may_map(work: UnitOfWork, table: PermissionTable, field: str, wanted: GroupRole) -> None:
    """Nobody maps a group to more than they may give somebody by hand."""
    if (wanted.role is Role.CUSTOM) != (wanted.custom_role_id is not None):
        raise invalid_field(field, "say either role or custom_role_id")
    if not wanted.group.strip():
        raise invalid_field(f"{field}.group", "must not be blank")
    custom = await roles_store.get_role(work.connection, wanted.custom_role_id) if wanted.custom_role_id else None
    await require_may_give(work, table, wanted.role, custom)


async def enable_identity_provider(work: UnitOfWork, provider_id: UUID, etag: str) -> Provider:
    """Let a provider sign people in. Raises NotFound, Conflict, WrongState."""
    before = await _locked(work, provider_id, etag)
    require_set_up(before, await store.joinable_domains(work.connection, work.now))
    values: dict[str, Any] = {"state": ProviderState.ACTIVE.value}
    if before.state is not ProviderState.ACTIVE and before.changed_at is not None and before.confirmed_by is None:
        values["changed_at"] = work.now  # Nobody could notice while nobody could come by it: the wait begins anew.
    return await _marked(work, "identity.identity_provider.enable", before, **values)


async def disable_identity_provider(work: UnitOfWork, provider_id: UUID) -> tuple[Provider, int]:
    """End a provider's sign-ins, with all sessions that it made; how many those were. Raises NotFound."""
    await members_store.lock_members(work.connection, work.organization_id)
    before = await store.get_provider(work.connection, provider_id, lock=True)
    ended = await logins.end_sessions(work.connection, work.wall_now, provider_id=provider_id)
    await revoke_sessions(work, ended)
    await logins.delete_pending(work.connection, provider_id)
    off = {"state": ProviderState.DISABLED.value, "enforced": False, "break_glass_member_id": None}
    after = await store.mark_provider(work.connection, before, **off)
    _emit(work, "identity.identity_provider.disable", before, after, sessions_ended=str(len(ended)))
    return after, len(ended)


async def set_enforcement(
    work: UnitOfWork, provider_id: UUID, enforced: bool, break_glass_member_id: UUID | None, etag: str
) -> Provider:
    """Demand single sign-on, or end the demand. Raises NotFound, Conflict, WrongState (SSO_NOT_TESTED and others)."""
    before = await _locked(work, provider_id, etag)
    if not enforced:
        return await _marked(work, "identity.enforcement.set", before, enforced=False, break_glass_member_id=None)
    if before.state is not ProviderState.ACTIVE:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "Only an active identity provider can be enforced. Enable it first.",
            {"state": before.state.value, "allowed": ProviderState.ACTIVE.value},
        )
    require_set_up(before, await store.proven_domains(work.connection))
    if not before.is_tested:
        raise WrongState(
            Reason.ERROR_REASON_SSO_NOT_TESTED,
            "No test sign-in passed under today's settings. Run one first, so that nobody is locked out.",
            {"provider_id": str(provider_id)},
        )
    await require_break_glass_admin(work, break_glass_member_id)
    other = await store.enforcing_provider(work.connection)
    if other is not None and other.provider_id != provider_id:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "Another identity provider is enforced. End that first.",
            {"state": "ENFORCED", "allowed": "none enforced"},
        )
    # Passports of sessions that aren't the provider's are void at once; all others are issued anew.
    kind, key = RevocationKind.ORGANIZATION.name, str(work.organization_id)
    await insert_revocation(work.connection, kind, key, work.wall_now)
    values = {"enforced": True, "break_glass_member_id": break_glass_member_id}
    return await _marked(work, "identity.enforcement.set", before, **values)


async def _locked(work: UnitOfWork, provider_id: UUID, etag: str) -> Provider:
    """The provider as the caller saw it, after everybody who changes who belongs here."""
    await members_store.lock_members(work.connection, work.organization_id)
    found = await store.get_provider(work.connection, provider_id, lock=True)
    require_etag(etag, found.etag)
    return found


async def _marked(work: UnitOfWork, action: str, before: Provider, **values: Any) -> Provider:
    after = await store.mark_provider(work.connection, before, **values)
    _emit(work, action, before, after)
    return after


async def _configured(work: UnitOfWork, action: str, before: Provider, **values: Any) -> Provider:
    """Change settings, which voids the test; where others would vouch for people from now on, their sessions end.

    Sessions that come after such a change approve nothing for a day, or until another Admin has confirmed it.
    """
    after = await store.mark_provider(work.connection, before, config_version=before.config_version + 1, **values)
    ended: list[UUID] = []
    if before.vouches != after.vouches:
        ended = await logins.end_sessions(work.connection, work.wall_now, provider_id=before.provider_id)
        await revoke_sessions(work, ended)
        await logins.delete_pending(work.connection, before.provider_id)
        changed = {"changed_at": work.now, "changed_by": current().responsible_person, "confirmed_by": None}
        after = await store.mark_provider(work.connection, after, **changed)
    _emit(work, action, before, after, sessions_ended=str(len(ended)))
    return after


def _emit(work: UnitOfWork, action: str, before: Provider | None, after: Provider, **facts: str) -> None:
    was = reads(before) if before else {}
    work.emit(action, f"identityProviders/{after.provider_id}", {"before": was, "after": reads(after), **facts})


def too_many(limit: int, what: str) -> Exhausted:
    """The refusal of one more of something."""
    return Exhausted(
        Reason.ERROR_REASON_QUOTA_EXCEEDED, f"An organization has {limit} {what} at most.", {"limit": str(limit)}
    )
