"""Members in the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BindParameter, Select, Uuid, and_, bindparam, case, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services._mesh.resource_limits import ResourceLimits
from services.identity.model.membership import CustomRole, Member, Role, fold_address, role_key
from services.identity.tables import members, organizations, roles
from services.identity.tables.persons import persons

_PERSON = func.coalesce(
    select(persons.c.person_id)
    .where(persons.c.organization_id == members.c.organization_id, persons.c.user_id == members.c.user_id)
    .scalar_subquery(),
    members.c.user_id,
).label("person_id")
_JOINED = members.outerjoin(
    roles,
    and_(roles.c.organization_id == members.c.organization_id, roles.c.role_id == members.c.custom_role_id),
)
# A membership with the custom role that it is under, and the person behind it.
_WHOLE = select(members, _PERSON, *(column.label(f"role_{column.name}") for column in roles.c)).select_from(_JOINED)
# A value, or its place in a statement that is made once.
Given = UUID | BindParameter[UUID]
# More organizations than anybody is a member of.
MOST_MEMBERSHIPS = 500


def read_member(row: Any) -> Member:
    """The member that a row of these queries is."""
    return Member(
        row.organization_id,
        row.member_id,
        row.user_id,
        row.email,
        Role(row.role),
        row.state,
        row.version,
        row.created_at,
        row.custom_role_id,
        _custom_role(row),
        ResourceLimits(tuple(row.connection_ids), tuple((key, value) for key, value in row.resource_tags)),
        row.approver_for,
        row.approver_since,
        row.approver_by,
        row.confirmed_by,
        row.person_id,
    )


def _custom_role(row: Any) -> CustomRole | None:
    if row.role_role_id is None:
        return None
    return CustomRole(
        row.role_organization_id,
        row.role_role_id,
        row.role_name,
        row.role_description,
        tuple(row.role_permissions),
        row.role_version,
        row.role_created_at,
    )


def member_of_user(organization_id: Given, user_id: Given) -> Select[Any]:
    """The query of a person's membership in the organization of the transaction; `read_member` reads its rows."""
    return _WHOLE.where(members.c.organization_id == organization_id, members.c.user_id == user_id)


_MEMBER_OF_USER = member_of_user(bindparam("organization_id", type_=Uuid()), bindparam("user_id", type_=Uuid()))


async def find_member_of_user(connection: AsyncConnection, organization_id: UUID, user_id: UUID) -> Member | None:
    """A person's membership in the organization of the transaction."""
    given = {"organization_id": organization_id, "user_id": user_id}
    row = (await connection.execute(_MEMBER_OF_USER, given)).one_or_none()
    return read_member(row) if row else None


async def get_member(connection: AsyncConnection, member_id: UUID, *, lock: bool = False) -> Member:
    """A member of the transaction's organization. Raises NotFound."""
    query = _WHOLE.where(members.c.member_id == member_id)
    row = (await connection.execute(query.with_for_update(of=members) if lock else query)).one_or_none()
    if row is None:
        raise NotFound("member")
    return read_member(row)


async def get_active_member(connection: AsyncConnection, organization_id: UUID, member_id: UUID) -> Member:
    """A member, locked, after everybody who changes who belongs here. Raises NotFound where the membership is over."""
    await lock_members(connection, organization_id)
    member = await get_member(connection, member_id, lock=True)
    if member.state != "ACTIVE":
        raise NotFound("member")
    return member


async def list_members(connection: AsyncConnection, after: UUID | None, limit: int) -> list[Member]:
    """Active members of the transaction's organization, by id, after `after`."""
    query = _WHOLE.where(members.c.state == "ACTIVE").order_by(members.c.member_id).limit(limit)
    if after is not None:
        query = query.where(members.c.member_id > after)
    return [read_member(row) for row in await connection.execute(query)]


async def list_memberships(connection: AsyncConnection, user_id: UUID) -> list[Member]:
    """A person's active memberships in all organizations: the policy `own` shows these rows and no others."""
    await _own_rows(connection, user_id)
    query = _WHOLE.where(members.c.user_id == user_id, members.c.state == "ACTIVE").limit(MOST_MEMBERSHIPS)
    return [read_member(row) for row in await connection.execute(query)]


async def _own_rows(connection: AsyncConnection, user_id: UUID) -> None:
    await connection.execute(text("SELECT set_config('app.user_id', :user_id, true)"), {"user_id": str(user_id)})


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


async def count_members(connection: AsyncConnection) -> int:
    """Active members of the transaction's organization. The caller holds `lock_members`."""
    active = select(func.count()).where(members.c.state == "ACTIVE")
    return int((await connection.execute(active)).scalar_one())


async def list_admins(connection: AsyncConnection) -> list[Member]:
    """Active Admins of the transaction's organization, the longest-standing first."""
    query = _WHOLE.where(members.c.role == Role.ADMIN.value, members.c.state == "ACTIVE")
    return [
        read_member(row) for row in await connection.execute(query.order_by(members.c.created_at, members.c.member_id))
    ]


async def list_choices(connection: AsyncConnection, user_id: UUID) -> list[tuple[UUID, datetime | None]]:
    """The organizations of a person's active memberships, each with when they made it their default."""
    await _own_rows(connection, user_id)
    query = (
        select(members.c.organization_id, members.c.default_chosen_at)
        .where(members.c.user_id == user_id, members.c.state == "ACTIVE")
        .limit(MOST_MEMBERSHIPS)
    )
    return [(row.organization_id, row.default_chosen_at) for row in await connection.execute(query)]


async def mark_default(connection: AsyncConnection, member_id: UUID, now: datetime) -> None:
    """Remember that the member made the organization their default. It is theirs: no edit of what Admins see."""
    await connection.execute(update(members).where(members.c.member_id == member_id).values(default_chosen_at=now))


async def list_members_of_address(connection: AsyncConnection, email: str) -> list[Member]:
    """Who has, or had, an address in the transaction's organization; ASCII letters of any case are one."""
    query = _WHOLE.where(func.lower(members.c.email.collate("C")) == fold_address(email))
    return [read_member(row) for row in await connection.execute(query.order_by(members.c.created_at))]


async def insert_member(connection: AsyncConnection, member: Member) -> bool:
    """Insert a member, or bring a removed one back; False when the person is a member already.

    Either way they are as new as `created_at` says: who may approve waits from then on.
    """
    found = await find_member_of_user(connection, member.organization_id, member.user_id)
    if found is not None and found.state == "ACTIVE":
        return False
    if found is not None:
        came_back = {"state": "ACTIVE", "email": member.email, "default_chosen_at": None}
        await mark_role(connection, found.member_id, member, **came_back)
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
            **_role_of(member),
        )
    )
    return True


async def mark_role(connection: AsyncConnection, member_id: UUID, as_of: Member, **values: Any) -> Member:
    """Give a member the role that `as_of` has, with all that is said about it, and change further columns."""
    return await _mark(connection, member_id, role=as_of.role.value, **_role_of(as_of), **values)


def _role_of(member: Member) -> dict[str, Any]:
    return {
        "custom_role_id": member.custom_role_id,
        "connection_ids": list(member.limits.connection_ids),
        "resource_tags": [list(each) for each in member.limits.tags],
        "approver_for": member.role_key,
        "approver_since": member.approver_since or member.created_at,
        "approver_by": member.approver_by,
        "confirmed_by": member.confirmed_by,
    }


async def mark_member(connection: AsyncConnection, member_id: UUID, **values: Any) -> Member:
    """Change columns of a member, and its version. A role is given by `mark_role`: more goes with it."""
    if values.keys() & {"role", "custom_role_id"}:
        raise ValueError("a role is given by mark_role")
    return await _mark(connection, member_id, **values)


async def _mark(connection: AsyncConnection, member_id: UUID, **values: Any) -> Member:
    await connection.execute(
        update(members).where(members.c.member_id == member_id).values(version=members.c.version + 1, **values)
    )
    return await get_member(connection, member_id)


async def mark_holders(connection: AsyncConnection, before: CustomRole, after: CustomRole, **values: Any) -> list[UUID]:
    """Say of all who hold a role, and not only of those in force, that it is the one after its change; their people."""
    changed = (
        update(members)
        .where(members.c.custom_role_id == before.role_id, members.c.state != "REMOVED")
        .values(
            approver_for=case(
                (members.c.approver_for == role_key(Role.CUSTOM, before), role_key(Role.CUSTOM, after)),
                else_=members.c.approver_for,
            ),
            **values,
        )
        .returning(members.c.user_id)
    )
    return list((await connection.execute(changed)).scalars())


async def drop_former_holders(connection: AsyncConnection, role_id: UUID) -> int:
    """Take a role from memberships that ended under it; returns how many are left that didn't."""
    ended = update(members).where(members.c.custom_role_id == role_id, members.c.state == "REMOVED")
    await connection.execute(ended.values(custom_role_id=None))
    return await count_holders(connection, role_id)


async def count_holders(connection: AsyncConnection, role_id: UUID) -> int:
    """How many memberships that haven't ended are under a custom role."""
    held = select(func.count()).where(members.c.custom_role_id == role_id, members.c.state != "REMOVED")
    return int((await connection.execute(held.select_from(members))).scalar_one())
