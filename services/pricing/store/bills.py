"""SQL of bill sources, imports, and the records of batches."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import AlreadyExists, NotFound, Reason
from services.pricing.model.bill import Batch, BillImport, BillImportState, BillSource, BillSourceState
from services.pricing.tables import bill_batches, bill_imports, bill_sources

_OPEN = (BillImportState.QUEUED.value, BillImportState.RUNNING.value)


def _source(row: Any) -> BillSource:
    return BillSource(**{**row._mapping, "state": BillSourceState(row.state)})


def _import(row: Any) -> BillImport:
    return BillImport(**{**row._mapping, "state": BillImportState(row.state)})


def _batch(row: Any) -> Batch:
    return Batch(**{name: row._mapping[name] for name in Batch.__slots__})


async def insert_source(connection: AsyncConnection, made: BillSource) -> None:
    """Insert a bill source. Raises AlreadyExists while one with the same bucket and prefix is in use."""
    values = {name: getattr(made, name) for name in BillSource.__slots__}
    try:
        async with connection.begin_nested():
            await connection.execute(insert(bill_sources).values(values))
    except IntegrityError as error:
        raise _exists(
            "bill source",
            "A bill source with this bucket and prefix is in use. List them to find it, or to disable it.",
        ) from error


async def get_source(connection: AsyncConnection, bill_source_id: UUID, *, lock: bool = False) -> BillSource:
    """A bill source; `lock` keeps other decisions about it out. Raises NotFound.

    Whoever decides locks the source first and its jobs then; a worker holds a job and then writes rows that refer to
    the source. FOR NO KEY UPDATE lets these through, so that the two never wait for each other.
    """
    query = select(bill_sources).where(bill_sources.c.bill_source_id == bill_source_id)
    row = (await connection.execute(query.with_for_update(key_share=True) if lock else query)).one_or_none()
    if row is None:
        raise NotFound("bill source")
    return _source(row)


async def mark_disabled(connection: AsyncConnection, bill_source_id: UUID) -> BillSource:
    """Switch a bill source off; its etag changes."""
    changed = (
        update(bill_sources)
        .where(bill_sources.c.bill_source_id == bill_source_id)
        .values(state=BillSourceState.DISABLED.value, version=bill_sources.c.version + 1)
        .returning(bill_sources)
    )
    return _source((await connection.execute(changed)).one())


async def list_sources(connection: AsyncConnection, after: UUID | None, limit: int) -> list[BillSource]:
    """Bill sources by id, after `after`."""
    query = select(bill_sources).order_by(bill_sources.c.bill_source_id).limit(limit)
    if after is not None:
        query = query.where(bill_sources.c.bill_source_id > after)
    return [_source(row) for row in await connection.execute(query)]


async def insert_import(
    connection: AsyncConnection, organization_id: UUID, bill_import_id: UUID, bill_source_id: UUID, now: datetime
) -> BillImport:
    """Insert a queued import. Raises AlreadyExists while another one of the source is open."""
    values = {
        "organization_id": organization_id,
        "bill_import_id": bill_import_id,
        "bill_source_id": bill_source_id,
        "state": BillImportState.QUEUED.value,
        "problem": "",
        "problem_row": 0,
        "problem_column": "",
        "created_at": now,
    }
    try:
        async with connection.begin_nested():
            made = await connection.execute(insert(bill_imports).values(values).returning(bill_imports))
            return _import(made.one())
    except IntegrityError as error:
        raise import_open() from error


def import_open() -> AlreadyExists:
    """The AlreadyExists of a source that is being fetched."""
    return _exists("bill import", "An import of this bill source is under way. Wait for its end.")


async def get_import(connection: AsyncConnection, bill_import_id: UUID) -> BillImport:
    """An import. Raises NotFound."""
    query = select(bill_imports).where(bill_imports.c.bill_import_id == bill_import_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("bill import")
    return _import(row)


async def find_open_import(connection: AsyncConnection, bill_source_id: UUID) -> BillImport | None:
    """The import of a source that isn't over."""
    query = select(bill_imports).where(bill_imports.c.bill_source_id == bill_source_id, bill_imports.c.state.in_(_OPEN))
    row = (await connection.execute(query)).one_or_none()
    return _import(row) if row else None


async def list_imports(
    connection: AsyncConnection, before: UUID | None, limit: int, bill_source_id: UUID | None
) -> list[BillImport]:
    """Imports, newest first (their ids are UUIDv7), before `before`."""
    query = select(bill_imports).order_by(bill_imports.c.bill_import_id.desc()).limit(limit)
    if before is not None:
        query = query.where(bill_imports.c.bill_import_id < before)
    if bill_source_id is not None:
        query = query.where(bill_imports.c.bill_source_id == bill_source_id)
    return [_import(row) for row in await connection.execute(query)]


async def mark_import(connection: AsyncConnection, bill_import_id: UUID, **values: Any) -> None:
    """Change columns of an import."""
    await connection.execute(
        update(bill_imports).where(bill_imports.c.bill_import_id == bill_import_id).values(**values)
    )


async def end_open_import(connection: AsyncConnection, bill_source_id: UUID, problem: str, now: datetime) -> None:
    """Let the import of a source that isn't over have failed; nothing where there is none."""
    found = await find_open_import(connection, bill_source_id)
    if found is not None:
        state = BillImportState.FAILED.value
        await mark_import(connection, found.bill_import_id, state=state, problem=problem, finished_at=now)


async def current_versions(connection: AsyncConnection, bill_source_id: UUID) -> dict[date, str]:
    """The version of the manifest behind each billing period's current batch."""
    query = select(bill_batches.c.billing_period, bill_batches.c.object_version).where(
        bill_batches.c.bill_source_id == bill_source_id, bill_batches.c.is_current
    )
    return {row.billing_period: row.object_version for row in await connection.execute(query)}


# Two imports of one organization's sources are made current one after the other, so that each sees the other's.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('pricing.bill_batches ' || :organization_id, 0))"


async def lock_batches(connection: AsyncConnection, organization_id: UUID) -> None:
    """Let nobody else make batches of the organization current until this transaction ends."""
    await connection.execute(text(_LOCK), {"organization_id": str(organization_id)})


async def find_rival(
    connection: AsyncConnection, bill_source_id: UUID, billing_period: date, accounts: Collection[str]
) -> Any | None:
    """A current batch of another active source that bills one of the accounts in the period: both would count twice."""
    query = (
        select(bill_batches.c.bill_source_id, bill_batches.c.accounts)
        .join_from(bill_batches, bill_sources, bill_batches.c.bill_source_id == bill_sources.c.bill_source_id)
        .where(
            bill_sources.c.state == BillSourceState.ACTIVE.value,
            bill_batches.c.is_current,
            bill_batches.c.billing_period == billing_period,
            bill_batches.c.bill_source_id != bill_source_id,
            bill_batches.c.accounts.overlap(sorted(accounts)),
        )
        .limit(1)
    )
    return (await connection.execute(query)).one_or_none()


# A batch bills several accounts, and a day of one must not be lost because another one is billed elsewhere by now.
_REPLACE = """
UPDATE pricing.bill_batches AS b SET
  replaced_accounts = ARRAY(
    SELECT a FROM unnest(b.accounts) AS a WHERE a = ANY(b.replaced_accounts || CAST(:accounts AS text[]))),
  is_current = EXISTS (
    SELECT FROM unnest(b.accounts) AS a WHERE a <> ALL(b.replaced_accounts || CAST(:accounts AS text[])))
FROM pricing.bill_sources AS s
WHERE s.organization_id = b.organization_id AND s.bill_source_id = b.bill_source_id AND s.state = 'DISABLED'
  AND b.is_current AND b.billing_period = :billing_period AND EXISTS (
    SELECT FROM unnest(b.accounts) AS a WHERE a = ANY(CAST(:accounts AS text[])) AND a <> ALL(b.replaced_accounts))
RETURNING b.batch_id
"""


async def replace_disabled(connection: AsyncConnection, billing_period: date, accounts: Collection[str]) -> list[UUID]:
    """Let batches of disabled sources count for these accounts no longer, nor at all once no account is left to them.

    Returns the ids of those that are changed.
    """
    values = {"billing_period": billing_period, "accounts": sorted(accounts)}
    return sorted((await connection.execute(text(_REPLACE), values)).scalars())


async def supersede_batch(connection: AsyncConnection, bill_source_id: UUID, billing_period: date) -> None:
    """Let the current batch of a source and period be current no longer: its rows are leftovers from then on."""
    await connection.execute(
        update(bill_batches)
        .where(
            bill_batches.c.bill_source_id == bill_source_id,
            bill_batches.c.billing_period == billing_period,
            bill_batches.c.is_current,
        )
        .values(is_current=False)
    )


async def insert_batch(
    connection: AsyncConnection,
    organization_id: UUID,
    bill_source_id: UUID,
    bill_import_id: UUID,
    batch: Batch,
    accounts: Collection[str],
) -> None:
    """Insert the record of a batch, current from now on."""
    values = {name: getattr(batch, name) for name in Batch.__slots__}
    keys = {
        "organization_id": organization_id,
        "bill_source_id": bill_source_id,
        "bill_import_id": bill_import_id,
        "accounts": sorted(accounts),
        "is_current": True,
    }
    await connection.execute(insert(bill_batches).values({**values, **keys}))


async def list_batches(connection: AsyncConnection, batch_ids: Collection[UUID]) -> list[Batch]:
    """The records of batches."""
    query = select(bill_batches).where(bill_batches.c.batch_id.in_(batch_ids))
    return [_batch(row) for row in await connection.execute(query)]


async def list_batches_of(connection: AsyncConnection, import_ids: Sequence[UUID]) -> dict[UUID, list[Batch]]:
    """The batches that each import made current, by period."""
    query = (
        select(bill_batches)
        .where(bill_batches.c.bill_import_id.in_(import_ids))
        .order_by(bill_batches.c.billing_period)
    )
    found: dict[UUID, list[Batch]] = {import_id: [] for import_id in import_ids}
    for row in await connection.execute(query):
        found[row.bill_import_id].append(_batch(row))
    return found


async def current_ids(connection: AsyncConnection) -> frozenset[UUID]:
    """The organization's current batches."""
    query = select(bill_batches.c.batch_id).where(bill_batches.c.is_current)
    return frozenset((await connection.execute(query)).scalars())


def _exists(resource: str, message: str) -> AlreadyExists:
    return AlreadyExists(Reason.ERROR_REASON_RESOURCE_EXISTS, message, {"resource": resource})
