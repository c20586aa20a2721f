"""SQL of how old credentials may get, and of what was told of them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, FromClause, case, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.scanner.model.cloud import Provider
from services.scanner.model.connection import Connection, ConnectionState
from services.scanner.model.rotation_rules import Deadlines, Limit, RotationRules
from services.scanner.tables import connections, credentials, rotation_rules


async def find_rules(connection: AsyncConnection) -> RotationRules:
    """The rules of the transaction's organization; the defaults where it never said."""
    names = ("remind_after_days", "rotate_within_days", "enforced_from", "limits")
    row = (await connection.execute(select(*(rotation_rules.c[name] for name in names)))).one_or_none()
    if row is None:
        return RotationRules()
    limits = (Limit(days, _read(enforced_from), _read(eased_at)) for days, enforced_from, eased_at in row.limits)
    return RotationRules(row.remind_after_days, row.rotate_within_days, row.enforced_from, tuple(limits))


async def set_rules(connection: AsyncConnection, organization_id: UUID, rules: RotationRules, now: datetime) -> None:
    """Keep an organization's rules."""
    limits = [[each.days, _written(each.enforced_from), _written(each.eased_at)] for each in rules.limits]
    values = {**asdict(rules), "limits": limits, "changed_at": now}
    said = upsert(rotation_rules).values(organization_id=organization_id, **values)
    await connection.execute(said.on_conflict_do_update(index_elements=["organization_id"], set_=values))


def holds_secret(of: FromClause = connections) -> ColumnElement[bool]:
    """`Connection.holds_secret`, in SQL."""
    return case((of.c.provider == Provider.AWS.value, of.c.access_key_id != ""), else_=~of.c.identity.has_key("issuer"))


def _written(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _read(moment: str | None) -> datetime | None:
    return datetime.fromisoformat(moment) if moment else None


async def count_older(connection: AsyncConnection, before: datetime) -> int:
    """How many connections in use hold a secret that was given before a moment."""
    query = (
        select(func.count())
        .select_from(connections)
        .join(credentials, credentials.c.credential_id == connections.c.credential_id)
        .where(
            connections.c.state != ConnectionState.DISABLED.value,
            holds_secret(),
            credentials.c.created_at < before,
        )
    )
    return int((await connection.execute(query)).scalar_one())


async def find_deadlines(connection: AsyncConnection, found: Connection) -> Deadlines:
    """The deadlines of a connection's credential."""
    row = await find_told(connection, found.credential_id)
    if row is None:
        return Deadlines(None, None)
    return Deadlines.of(await find_rules(connection), found.holds_secret, row.created_at)


async def find_told(connection: AsyncConnection, credential_id: UUID) -> Any:
    """When a credential was given, and what was told of it; None where it isn't there."""
    columns = (credentials.c.created_at, credentials.c.reminded_at, credentials.c.refusal_told_at)
    query = select(*columns).where(credentials.c.credential_id == credential_id)
    return (await connection.execute(query)).one_or_none()


async def mark_told(connection: AsyncConnection, credential_id: UUID, **values: Any) -> None:
    """Note what was told of a credential."""
    await connection.execute(update(credentials).where(credentials.c.credential_id == credential_id).values(**values))
