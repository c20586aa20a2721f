"""SQL of scans, their units, the inventory with its ledger, and findings."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import and_, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import AlreadyExists, NotFound, Reason
from services.scanner.model.finding import Finding
from services.scanner.model.ledger import Entry
from services.scanner.model.reading import UnitReading
from services.scanner.model.resource import Resource
from services.scanner.tables import findings, resources, scan_units, scans


async def insert_scan(
    connection: AsyncConnection, organization_id: UUID, scan_id: UUID, connection_id: UUID, units: int, now: datetime
) -> None:
    """Insert a queued scan. Raises AlreadyExists while another one of the connection is open."""
    try:
        async with connection.begin_nested():
            await connection.execute(
                insert(scans).values(
                    organization_id=organization_id,
                    scan_id=scan_id,
                    connection_id=connection_id,
                    state="QUEUED",
                    units_total=units,
                    resources_seen=0,
                    findings_open=0,
                    problem="",
                    created_at=now,
                )
            )
    except IntegrityError as error:
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS,
            "A scan of this connection is under way. Wait for its end.",
            {"resource": "scan"},
        ) from error


async def get_scan(connection: AsyncConnection, scan_id: UUID) -> Any:
    """A scan's row. Raises NotFound."""
    row = (await connection.execute(select(scans).where(scans.c.scan_id == scan_id))).one_or_none()
    if row is None:
        raise NotFound("scan")
    return row


async def list_scans(
    connection: AsyncConnection, before: UUID | None, limit: int, connection_id: UUID | None
) -> Sequence[Any]:
    """Scans, newest first (their ids are UUIDv7), before `before`."""
    query = select(scans).order_by(scans.c.scan_id.desc()).limit(limit)
    if before is not None:
        query = query.where(scans.c.scan_id < before)
    if connection_id is not None:
        query = query.where(scans.c.connection_id == connection_id)
    return (await connection.execute(query)).all()


async def list_scans_between(
    connection: AsyncConnection, begins_at: datetime, ends_at: datetime, after: UUID | None, limit: int
) -> Sequence[Any]:
    """Scans that were asked for in a period, oldest first (their ids are UUIDv7), after `after`."""
    asked = (scans.c.created_at >= begins_at) & (scans.c.created_at < ends_at)
    query = select(scans).where(asked).order_by(scans.c.scan_id).limit(limit)
    if after is not None:
        query = query.where(scans.c.scan_id > after)
    return (await connection.execute(query)).all()


async def list_units(connection: AsyncConnection, scan_ids: Sequence[UUID]) -> Sequence[Any]:
    """The completeness records of scans."""
    query = (
        select(scan_units)
        .where(scan_units.c.scan_id.in_(scan_ids))
        .order_by(scan_units.c.scan_id, scan_units.c.account, scan_units.c.region, scan_units.c.api)
    )
    return (await connection.execute(query)).all()


async def mark_scan(connection: AsyncConnection, scan_id: UUID, **values: Any) -> None:
    """Change columns of a scan."""
    await connection.execute(update(scans).where(scans.c.scan_id == scan_id).values(**values))


async def insert_unit(connection: AsyncConnection, organization_id: UUID, scan_id: UUID, reading: UnitReading) -> None:
    """Record what came of a unit; a repeated scan of it replaces the record."""
    coverage = reading.coverage
    values = {
        "outcome": coverage.outcome.value,
        "pages": coverage.pages,
        "resources": coverage.resources,
        "throttles": coverage.throttles,
        "calls": reading.calls,
        "error_code": coverage.error_code,
    }
    statement = upsert(scan_units).values(
        organization_id=organization_id,
        scan_id=scan_id,
        account=coverage.unit.account,
        region=coverage.unit.region,
        api=coverage.unit.api,
        **values,
    )
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["organization_id", "scan_id", "account", "region", "api"], set_=values
        )
    )


async def read_ledger(
    connection: AsyncConnection, connection_id: UUID, account: str, region: str
) -> dict[tuple[str, str], Entry]:
    """The ledger of one account and region, by (type, id)."""
    query = select(
        resources.c.type, resources.c.id, resources.c.condition, resources.c.condition_since, resources.c.held
    ).where(
        resources.c.connection_id == connection_id,
        resources.c.account == account,
        resources.c.region == region,
        resources.c.gone_at.is_(None),
    )
    return {
        (row.type, row.id): Entry(row.condition, row.condition_since, row.held)
        for row in await connection.execute(query)
    }


_UPSERT_RESOURCES = """
INSERT INTO scanner.resources AS r (organization_id, connection_id, provider, partition, account, region, type, id,
  name, facts, tags, details, condition, condition_since, held, first_seen_at, last_seen_at)
SELECT :organization_id, :connection_id, 'aws', e.partition, e.account, e.region, e.type, e.id, e.name, e.facts::jsonb,
  e.tags::jsonb, e.details::jsonb, e.condition, e.since, e.held, :now, :now
FROM unnest(CAST(:partitions AS text[]), CAST(:accounts AS text[]), CAST(:regions AS text[]), CAST(:types AS text[]),
  CAST(:ids AS text[]), CAST(:names AS text[]), CAST(:facts AS text[]), CAST(:tags AS text[]), CAST(:details AS text[]),
  CAST(:conditions AS text[]), CAST(:sinces AS timestamptz[]), CAST(:helds AS boolean[]))
  AS e(partition, account, region, type, id, name, facts, tags, details, condition, since, held)
ON CONFLICT (organization_id, connection_id, account, region, type, id) DO UPDATE SET name = excluded.name,
  facts = excluded.facts, tags = excluded.tags, details = excluded.details, condition = excluded.condition,
  condition_since = excluded.condition_since, held = excluded.held, last_seen_at = excluded.last_seen_at,
  first_seen_at = CASE WHEN r.gone_at IS NULL THEN r.first_seen_at ELSE excluded.first_seen_at END, gone_at = NULL
"""


async def upsert_resources(
    connection: AsyncConnection,
    organization_id: UUID,
    connection_id: UUID,
    seen: Sequence[tuple[Resource, Entry]],
    now: datetime,
) -> None:
    """Write what a reading saw, in one statement."""
    if not seen:
        return
    await connection.execute(
        text(_UPSERT_RESOURCES),
        {
            "organization_id": organization_id,
            "connection_id": connection_id,
            "partitions": [r.key.partition for r, _ in seen],
            "accounts": [r.key.account for r, _ in seen],
            "regions": [r.key.region for r, _ in seen],
            "types": [r.key.type for r, _ in seen],
            "ids": [r.key.id for r, _ in seen],
            "names": [r.name for r, _ in seen],
            "facts": [_json(r.facts) for r, _ in seen],
            "tags": [_json(r.tags) for r, _ in seen],
            "details": [_json(r.details) for r, _ in seen],
            "conditions": [e.condition for _, e in seen],
            "sinces": [e.since for _, e in seen],
            "helds": [e.held for _, e in seen],
            "now": now,
        },
    )


async def mark_gone(
    connection: AsyncConnection, connection_id: UUID, account: str, region: str, types: Sequence[str], now: datetime
) -> None:
    """Mark as gone what a complete reading of some types no longer saw."""
    await connection.execute(
        update(resources)
        .where(
            resources.c.connection_id == connection_id,
            resources.c.account == account,
            resources.c.region == region,
            resources.c.type.in_(types),
            resources.c.last_seen_at < now,
            resources.c.gone_at.is_(None),
        )
        .values(gone_at=now)
    )


async def upsert_findings(connection: AsyncConnection, organization_id: UUID, found: Sequence[Finding]) -> None:
    """Write the findings of a scan; one that was there keeps its id, when it was first seen, and its exception."""
    for start in range(0, len(found), 500):
        statement = upsert(findings).values([_finding_row(organization_id, f) for f in found[start : start + 500]])
        keep = {"organization_id", "finding_id", "first_seen_at", "exception_id"}
        changes = {c.name: statement.excluded[c.name] for c in findings.columns if c.name not in keep}
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=["organization_id", "connection_id", "detection_id", "account", "region", "type", "id"],
                set_=changes,
            )
        )


def _finding_row(organization_id: UUID, found: Finding) -> dict[str, Any]:
    key = found.resource
    return {
        "organization_id": organization_id,
        "finding_id": found.finding_id,
        "connection_id": found.connection_id,
        "scan_id": found.scan_id,
        "detection_id": found.detection_id,
        "provider": key.provider,
        "partition": key.partition,
        "account": key.account,
        "region": key.region,
        "type": key.type,
        "id": key.id,
        "resource_name": found.resource_name,
        "state": "OPEN",
        "actionability": found.actionability,
        "saving": found.saving,
        "currency": found.currency,
        "price_version": found.price_version,
        "severity": found.severity,
        "confidence": found.confidence,
        "evidence": dict(found.evidence),
        "action_type": found.action_type,
        "first_seen_at": found.first_seen_at,
        "last_seen_at": found.last_seen_at,
    }


async def resolve_findings(
    connection: AsyncConnection, connection_id: UUID, scan_id: UUID, account: str, region: str, types: Sequence[str]
) -> None:
    """Close findings that a complete reading of their type no longer supports."""
    await connection.execute(
        update(findings)
        .where(
            findings.c.connection_id == connection_id,
            findings.c.account == account,
            findings.c.region == region,
            findings.c.type.in_(types),
            findings.c.scan_id != scan_id,
            findings.c.state == "OPEN",
        )
        .values(state="RESOLVED")
    )


async def count_open(connection: AsyncConnection, connection_id: UUID) -> int:
    """How many findings of a connection are open."""
    query = (
        select(func.count())
        .select_from(findings)
        .where(findings.c.connection_id == connection_id, findings.c.state == "OPEN")
    )
    return int((await connection.execute(query)).scalar_one())


async def get_finding(connection: AsyncConnection, finding_id: UUID) -> Any:
    """A finding's row, with the tags of its resource. Raises NotFound."""
    of_resource = and_(
        *(resources.c[name] == findings.c[name] for name in ("organization_id", "connection_id")),
        *(resources.c[name] == findings.c[name] for name in ("account", "region", "type", "id")),
    )
    query = select(findings, resources.c.tags).select_from(findings.outerjoin(resources, of_resource))
    row = (await connection.execute(query.where(findings.c.finding_id == finding_id))).one_or_none()
    if row is None:
        raise NotFound("finding")
    return row


async def has_excepted(connection: AsyncConnection) -> bool:
    """Whether any finding of the organization carries an exception, in force or not."""
    query = select(findings.c.finding_id).where(findings.c.exception_id.is_not(None)).limit(1)
    return (await connection.execute(query)).first() is not None


async def mark_excepted(connection: AsyncConnection, finding_id: UUID, exception_id: UUID) -> None:
    """Have a finding carry an exception."""
    this = findings.c.finding_id == finding_id
    await connection.execute(update(findings).where(this).values(exception_id=exception_id))


async def list_findings(
    connection: AsyncConnection,
    after: tuple[Decimal, UUID] | None,
    limit: int,
    narrowed: Mapping[str, Any],
    in_force: Collection[UUID] = (),
) -> Sequence[Any]:
    """Findings, the largest saving first; those without a known saving come last.

    An open one whose exception is `in_force` is SUPPRESSED, and isn't OPEN.
    """
    amount = func.coalesce(findings.c.saving, -1)
    query = select(findings).order_by(amount.desc(), findings.c.finding_id).limit(limit)
    suppressed = func.coalesce(findings.c.exception_id.in_(in_force), False)
    for name, value in narrowed.items():
        query = query.where(findings.c[name] == ("OPEN" if value == "SUPPRESSED" else value))
    if narrowed.get("state") in ("OPEN", "SUPPRESSED"):
        query = query.where(suppressed if narrowed["state"] == "SUPPRESSED" else ~suppressed)
    if after is not None:
        query = query.where((amount < after[0]) | ((amount == after[0]) & (findings.c.finding_id > after[1])))
    return (await connection.execute(query)).all()


def _json(content: Mapping[str, str]) -> str:
    return orjson.dumps(dict(content)).decode()
