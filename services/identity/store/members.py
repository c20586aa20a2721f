"""Members in the database."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.identity.model.membership import Member, Role, fold_address
from services.identity.tables import members, organizations


def _member(row: Any) -> Member:
    return Member(
        row.organization_id,
        row.member_id,
        row.user_id,
        row.email,
        Role(row.role),
        row.state,
        row.version,
        row.created_at,
    )


async def find_member_of_user(connection: AsyncConnection, organization_id: UUID, user_id: UUID) -> Member | None:
    """A person's membership in the organization of the transaction."""
    query = select(members).where(members.c.organization_id == organization_id, members.c.user_id == user_id)
    row = (await connection.execute(query)).one_or_none()
    return _member(row) if row else None


async def get_member(connection: AsyncConnection, member_id: UUID, *, lock: bool = False) -> Member:
    """A member of the transaction's organization. Raises NotFound."""
    query = select(members).where(members.c.member_id == member_id)
    row = (await connection.execute(query.with_for_update() if lock else query)).one_or_none()
    if row is None:
        raise NotFound("member")
    return _member(row)


async def list_members(connection: AsyncConnection, after: UUID | None, limit: int) -> list[Member]:
    """Active members of the transaction's organization, by id, after `after`."""
    query = select(members).where(members.c.state == "ACTIVE").order_by(members.c.member_id).limit(limit)
    if after is not None:
        query = query.where(members.c.member_id > after)
    return [_member(row) for row in await connection.execute(query)]


async def list_memberships(connection: AsyncConnection, user_id: UUID) -> list[Member]:
    """A person's active memberships in all organizations: the policy `own` shows these rows and no others."""
    await connection.execute(text("SELECT set_config('app.user_id', :user_id, true)"), {"user_id": str(user_id)})
    query = select(members).where(members.c.user_id == user_id, members.c.state == "ACTIVE").limit(500)
    return [_member(row) for row in await connection.execute(query)]


async def lock_members(connection: AsyncConnection, organization_id: UUID) -> None:
    """Let nobody else change who belongs to the organization until the transaction ends. To be taken first of all.

    Whoever waited for it sees, in its next statement, what the one before left: two Admins can't leave at once.
    """
    row = select(organizations.c.organization_id).where(organizations.c.organization_id == organization_id)
    await connection.execute(row.with_for_update(key_share=True))


async def count_admins(connection: AsyncConnection) -> int:
    """Active Admins of the transaction's organization. The caller holds `lock_members`."""
    admins = select(func.count()).where(members.c.role == Role.ADMIN.value, members.c.state == "ACTIVE")
    return int((await connection.execute(admins)).scalar_one())


async def list_members_of_address(connection: AsyncConnection, email: str) -> list[Member]:
    """Who has, or had, an address in the transaction's organization; ASCII letters of any case are one."""
    query = select(members).where(func.lower(members.c.email.collate("C")) == fold_address(email))
    return [_member(row) for row in await connection.execute(query.order_by(members.c.created_at))]


async def insert_member(connection: AsyncConnection, member: Member) -> bool:
    """Insert a member, or bring a removed one back; False when the person is a member already."""
    found = await find_member_of_user(connection, member.organization_id, member.user_id)
    if found is not None and found.state == "ACTIVE":
        return False
    if found is not None:
        await mark_member(connection, found.member_id, state="ACTIVE", role=member.role.value, email=member.email)
        return True
    await connection.execute(
        insert(members).values(
            organization_id=member.organization_id,
            member_id=member.member_id,
            user_id=member.user_id,
            email=member.email,
            role=member.role.value,
            state=member.state,
            version=member.version,
            created_at=member.created_at,
        )
    )
    return True


async def mark_member(connection: AsyncConnection, member_id: UUID, **values: Any) -> Member:
    """Change columns of a member, and its version."""
    changed = (
        update(members)
        .where(members.c.member_id == member_id)
        .values(version=members.c.version + 1, **values)
        .returning(members)
    )
    return _member((await connection.execute(changed)).one())
