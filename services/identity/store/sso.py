"""Identity providers, their groups' roles, and domains in the database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services._mesh.ids import uuid7
from services.identity.model.membership import Role
from services.identity.model.persons import LoginKind
from services.identity.model.sso import GRACE, Domain, GroupRole, Provider, ProviderState
from services.identity.tables import members
from services.identity.tables.persons import linked_identities
from services.identity.tables.sso import sso_domains, sso_group_roles, sso_providers, sso_sessions


def _provider(row: Any, groups: Sequence[GroupRole]) -> Provider:
    return Provider(
        row.organization_id,
        row.provider_id,
        row.display_name,
        ProviderState(row.state),
        row.entity_id,
        row.sso_url,
        tuple(row.certificates),
        row.metadata_url,
        row.provider_initiated,
        row.email_attribute,
        row.groups_attribute,
        tuple(row.mfa_contexts),
        Role(row.default_role) if row.default_role else None,
        row.session_minutes,
        row.enforced,
        row.break_glass_member_id,
        row.config_version,
        row.tested_version,
        row.version,
        row.created_at,
        tuple(groups),
        row.changed_at,
        row.changed_by,
        row.confirmed_by,
    )


async def find_provider(connection: AsyncConnection, provider_id: UUID, *, lock: bool = False) -> Provider | None:
    """A provider of the transaction's organization, with its groups."""
    query = select(sso_providers).where(sso_providers.c.provider_id == provider_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    return _provider(row, await _groups(connection, provider_id)) if row else None


async def get_provider(connection: AsyncConnection, provider_id: UUID, *, lock: bool = False) -> Provider:
    """The same. Raises NotFound."""
    found = await find_provider(connection, provider_id, lock=lock)
    if found is None:
        raise NotFound("identity_provider")
    return found


async def list_providers(connection: AsyncConnection) -> list[Provider]:
    """All providers of the transaction's organization, by id."""
    rows = (await connection.execute(select(sso_providers).order_by(sso_providers.c.provider_id))).all()
    return [_provider(row, await _groups(connection, row.provider_id)) for row in rows]


async def _groups(connection: AsyncConnection, provider_id: UUID) -> list[GroupRole]:
    query = (
        select(sso_group_roles).where(sso_group_roles.c.provider_id == provider_id).order_by(sso_group_roles.c.place)
    )
    return [
        GroupRole(row.group_name, Role(row.role), row.custom_role_id, row.granted_by)
        for row in await connection.execute(query)
    ]


async def insert_provider(connection: AsyncConnection, provider: Provider) -> None:
    """Insert a provider that is still to be set up."""
    await connection.execute(
        insert(sso_providers).values(
            organization_id=provider.organization_id,
            provider_id=provider.provider_id,
            display_name=provider.display_name,
            state=provider.state.value,
            created_at=provider.created_at,
        )
    )


async def mark_provider(connection: AsyncConnection, provider: Provider, **values: Any) -> Provider:
    """Change columns of a provider, and its version; the caller holds its lock."""
    changed = (
        update(sso_providers)
        .where(sso_providers.c.provider_id == provider.provider_id)
        .values(version=sso_providers.c.version + 1, **values)
        .returning(sso_providers)
    )
    row = (await connection.execute(changed)).one()
    return _provider(row, await _groups(connection, provider.provider_id))


async def replace_group_roles(connection: AsyncConnection, provider: Provider, groups: Sequence[GroupRole]) -> None:
    """Put these in the place of all groups' roles of a provider."""
    await connection.execute(delete(sso_group_roles).where(sso_group_roles.c.provider_id == provider.provider_id))
    rows = [
        {
            "organization_id": provider.organization_id,
            "mapping_id": uuid7(),
            "provider_id": provider.provider_id,
            "place": place,
            "group_name": each.group,
            "role": each.role.value,
            "custom_role_id": each.custom_role_id,
            "granted_by": each.granted_by,
        }
        for place, each in enumerate(groups)
    ]
    if rows:
        await connection.execute(insert(sso_group_roles), rows)


async def is_mapped(connection: AsyncConnection, role_id: UUID) -> bool:
    """Whether a group has a custom role."""
    query = select(sso_group_roles.c.mapping_id).where(sso_group_roles.c.custom_role_id == role_id)
    return (await connection.execute(query.limit(1))).first() is not None


def _domain(row: Any) -> Domain:
    return Domain(
        row.organization_id,
        row.domain_id,
        row.name,
        row.challenge,
        row.state,
        row.verified_at,
        row.created_at,
        row.missing_since,
    )


async def get_domain(connection: AsyncConnection, domain_id: UUID, *, lock: bool = False) -> Domain:
    """The same. Raises NotFound."""
    found = await find_domain_by_id(connection, domain_id, lock=lock)
    if found is None:
        raise NotFound("domain")
    return found


async def find_domain_by_id(connection: AsyncConnection, domain_id: UUID, *, lock: bool = False) -> Domain | None:
    """A domain of the transaction's organization; None where it was removed."""
    query = select(sso_domains).where(sso_domains.c.domain_id == domain_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    return _domain(row) if row else None


async def find_domain(connection: AsyncConnection, name: str) -> Domain | None:
    """The same, by its name."""
    row = (await connection.execute(select(sso_domains).where(sso_domains.c.name == name))).one_or_none()
    return _domain(row) if row else None


async def list_domains(connection: AsyncConnection) -> list[Domain]:
    """All domains of the transaction's organization, by name."""
    return [_domain(row) for row in await connection.execute(select(sso_domains).order_by(sso_domains.c.name))]


async def proven_domains(connection: AsyncConnection) -> frozenset[str]:
    """The names of those that are proven."""
    query = select(sso_domains.c.name).where(sso_domains.c.state == "VERIFIED")
    return frozenset((await connection.execute(query)).scalars())


async def joinable_domains(connection: AsyncConnection, now: datetime) -> frozenset[str]:
    """The proven domains of the transaction's organization that may bring newcomers: no record is gone for long."""
    there = sso_domains.c.missing_since.is_(None) | (sso_domains.c.missing_since > now - GRACE)
    query = select(sso_domains.c.name).where(sso_domains.c.state == "VERIFIED", there)
    return frozenset((await connection.execute(query)).scalars())


async def count_domains(connection: AsyncConnection) -> int:
    """How many there are."""
    return int((await connection.execute(select(func.count()).select_from(sso_domains))).scalar_one())


async def insert_domain(connection: AsyncConnection, domain: Domain) -> None:
    """Insert a domain."""
    await connection.execute(
        insert(sso_domains).values(
            organization_id=domain.organization_id,
            domain_id=domain.domain_id,
            name=domain.name,
            challenge=domain.challenge,
            state=domain.state,
            created_at=domain.created_at,
        )
    )


async def mark_domain(connection: AsyncConnection, domain_id: UUID, **values: Any) -> Domain:
    """Change columns of a domain."""
    changed = update(sso_domains).where(sso_domains.c.domain_id == domain_id).values(**values).returning(sso_domains)
    return _domain((await connection.execute(changed)).one())


async def delete_domain(connection: AsyncConnection, domain_id: UUID) -> None:
    """Forget a domain."""
    await connection.execute(delete(sso_domains).where(sso_domains.c.domain_id == domain_id))


async def enforcing_provider(connection: AsyncConnection) -> Provider | None:
    """The provider that members must sign in by, if there is one."""
    query = select(sso_providers).where(sso_providers.c.enforced).order_by(sso_providers.c.provider_id).limit(1)
    row = (await connection.execute(query)).one_or_none()
    return _provider(row, ()) if row else None


async def has_people(connection: AsyncConnection, provider_id: UUID) -> bool:
    """Whether anybody ever signed in by a provider."""
    query = select(linked_identities.c.identity_id).where(
        linked_identities.c.kind == LoginKind.SAML.value, linked_identities.c.issuer == str(provider_id)
    )
    return (await connection.execute(query.limit(1))).first() is not None


async def signs_in_by_provider(connection: AsyncConnection, user_id: UUID) -> bool:
    """Whether a user is one that a provider's sign-in made: they have no other way in."""
    query = select(linked_identities.c.identity_id).where(
        linked_identities.c.kind == LoginKind.SAML.value, linked_identities.c.user_id == user_id
    )
    return (await connection.execute(query.limit(1))).first() is not None


def demanded_provider(organization_id: UUID | BindParameter[UUID]) -> Any:
    """An expression beside a member's row: the provider that they must sign in by.

    It is enforced, their domain is proven, and they aren't the one Admin who may do without.
    """
    proven = select(sso_domains.c.domain_id).where(
        sso_domains.c.organization_id == organization_id,
        sso_domains.c.state == "VERIFIED",
        sso_domains.c.name == func.lower(func.split_part(members.c.email, "@", -1)),
    )
    query = select(sso_providers.c.provider_id).where(
        sso_providers.c.organization_id == organization_id,
        sso_providers.c.enforced,
        sso_providers.c.break_glass_member_id != members.c.member_id,
        proven.correlate(members).exists(),
    )
    return query.correlate(members).limit(1).scalar_subquery()


def provider_changed(organization_id: BindParameter[UUID], session_id: BindParameter[UUID]) -> Any:
    """An expression: when the provider that made a session changed last, unless another Admin has confirmed that."""
    query = select(sso_providers.c.changed_at).where(
        _made_by_provider(),
        sso_sessions.c.organization_id == organization_id,
        sso_sessions.c.session_id == session_id,
        sso_providers.c.confirmed_by.is_(None),
    )
    return query.scalar_subquery()


def _made_by_provider() -> Any:
    return (sso_sessions.c.organization_id == sso_providers.c.organization_id) & (
        sso_sessions.c.provider_id == sso_providers.c.provider_id
    )


async def came_by_changed_provider(connection: AsyncConnection, user_ids: Collection[UUID], since: datetime) -> bool:
    """Whether any of these users had a session, over or not, of a provider that changed since then, unconfirmed."""
    query = select(sso_sessions.c.session_id).where(
        _made_by_provider(),
        sso_sessions.c.user_id.in_(user_ids),
        sso_providers.c.confirmed_by.is_(None),
        sso_providers.c.changed_at > since,
    )
    return (await connection.execute(query.limit(1))).first() is not None
