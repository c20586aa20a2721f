"""SQL of what resources cost a day, and of the days that bills cover completely.

Readers see current batches only, and add up the rows of one key: a large bill is written in pieces.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.pricing.model.daily import Account, DailyCost
from services.pricing.model.rows import CostRow, Line, ResourceKey, Sums

_COLUMNS = {
    "number": "bigint",
    "provider": "text",
    "account": "text",
    "region": "text",
    "resource_id": "text",
    "day": "date",
    "kind": "text",
    "sku_id": "text",
    "sku_price_id": "text",
    "pricing_category": "text",
    "unit": "text",
    "quantity": "numeric",
    "effective_cost": "numeric",
    "billed_cost": "numeric",
    "list_cost": "numeric",
    "contracted_cost": "numeric",
    "rows": "bigint",
}
_NAMES = ", ".join(_COLUMNS)
_ARRAYS = ", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in _COLUMNS.items())
_INSERT_COSTS = f"""
INSERT INTO pricing.daily_costs (organization_id, bill_import_id, batch_id, {_NAMES})
SELECT :organization_id, :bill_import_id, :batch_id, {_NAMES} FROM unnest({_ARRAYS}) AS e({_NAMES})
"""
_INSERT_DAYS = """
INSERT INTO pricing.bill_days (organization_id, bill_import_id, batch_id, provider, account, day)
SELECT :organization_id, :bill_import_id, :batch_id, provider, account, day
FROM unnest(CAST(:providers AS text[]), CAST(:accounts AS text[]), CAST(:days AS date[])) AS e(provider, account, day)
"""


@dataclass(frozen=True, slots=True)
class BatchKey:
    """Whose rows are written: the batch of an import."""

    organization_id: UUID
    bill_import_id: UUID
    batch_id: UUID

    def values(self) -> dict[str, UUID]:
        """As parameters of a statement."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row with whose it is, and the batches that it comes from with their currencies."""

    resource: tuple[str, str, str]
    row: CostRow
    batch_ids: frozenset[UUID]
    currencies: frozenset[str]


async def insert_costs(connection: AsyncConnection, key: BatchKey, first: int, costs: Sequence[DailyCost]) -> None:
    """Write a piece of a batch in one statement, its rows numbered from `first`."""
    values: dict[str, list[Any]] = {name: [getattr(c.key, name) for c in costs] for name in _OF_KEY}
    values |= {name: [getattr(c, name) for c in costs] for name in _OF_COST}
    values["number"] = list(range(first, first + len(costs)))
    await connection.execute(text(_INSERT_COSTS), {**key.values(), **values})


_OF_COST = ("quantity", "effective_cost", "billed_cost", "list_cost", "contracted_cost", "rows")
_OF_KEY = tuple(name for name in _COLUMNS if name not in (*_OF_COST, "number"))


async def insert_days(connection: AsyncConnection, key: BatchKey, days: Sequence[tuple[Account, date]]) -> None:
    """Write which days a batch covers completely, by account."""
    values = {
        "providers": [account.provider for account, _ in days],
        "accounts": [account.account for account, _ in days],
        "days": [day for _, day in days],
    }
    await connection.execute(text(_INSERT_DAYS), {**key.values(), **values})


_CURRENT = """JOIN pricing.bill_batches AS b
  ON b.organization_id = c.organization_id AND b.batch_id = c.batch_id AND b.is_current
  AND c.account <> ALL(b.replaced_accounts)"""
_COMPLETE = f"""
SELECT DISTINCT c.day, c.batch_id FROM pricing.bill_days AS c {_CURRENT}
WHERE c.provider = :provider AND c.account = :account AND c.day BETWEEN :first AND :last
"""
_COMPLETE_THROUGH = f"""
SELECT max(c.day) FROM pricing.bill_days AS c {_CURRENT} WHERE c.account = :account
"""
_SUMS = """sum(c.quantity) AS quantity, sum(c.effective_cost) AS effective_cost, sum(c.billed_cost) AS billed_cost,
  sum(c.list_cost) AS list_cost"""
_CONTRACTED = "CASE WHEN bool_and(c.contracted_cost IS NOT NULL) THEN sum(c.contracted_cost) END AS contracted_cost"
_LINE = "c.sku_id, c.sku_price_id, c.pricing_category, c.unit"
_WANTED = """JOIN unnest(CAST(:providers AS text[]), CAST(:accounts AS text[]), CAST(:ids AS text[]))
  AS w(provider, account, resource_id)
  ON w.account = c.account AND w.resource_id = c.resource_id AND w.provider = c.provider"""
_ROWS = f"""
SELECT c.provider, c.account, c.resource_id, c.day, {_LINE}, {_SUMS}, {_CONTRACTED},
  array_agg(DISTINCT c.batch_id) AS batch_ids, array_agg(DISTINCT b.currency) AS currencies
FROM pricing.daily_costs AS c {_WANTED} {_CURRENT}
WHERE c.kind = 'USAGE' AND c.day BETWEEN :first AND :last
GROUP BY c.provider, c.account, c.resource_id, c.day, {_LINE}
LIMIT :limit
"""
_SPANNING = f"""
SELECT EXISTS (SELECT 1 FROM pricing.daily_costs AS c {_WANTED} {_CURRENT}
WHERE c.kind = 'SPANNING' AND c.day BETWEEN :first AND :last)
"""
_ACCOUNT_SUMS = f"""
SELECT {_LINE}, {_SUMS}, array_agg(DISTINCT c.batch_id) AS batch_ids
FROM pricing.daily_costs AS c {_CURRENT}
WHERE c.provider = :provider AND c.account = :account AND c.sku_price_id = ANY(CAST(:sku_price_ids AS text[]))
  AND c.kind = 'USAGE' AND c.day BETWEEN :first AND :last
GROUP BY {_LINE}
"""
_PLACE = f"c.day, {_LINE}, c.batch_id"
_DAILY = f"""
SELECT {_PLACE}, b.currency, {_SUMS}, {_CONTRACTED}
FROM pricing.daily_costs AS c {_CURRENT}
WHERE c.account = :account AND c.resource_id = :resource_id AND c.kind = 'USAGE' AND c.day BETWEEN :first AND :last
  {{after}}
GROUP BY {_PLACE}, b.currency ORDER BY {_PLACE} LIMIT :limit
"""
_AFTER = f"""AND ({_PLACE}) > (CAST(:after_day AS date), :after_sku, :after_price, :after_category, :after_unit,
  CAST(:after_batch AS uuid))"""


async def complete_days(
    connection: AsyncConnection, account: Account, first: date, last: date
) -> dict[date, frozenset[UUID]]:
    """The days of a span that current batches cover completely for an account, with these batches."""
    found: dict[date, frozenset[UUID]] = {}
    values = {**account._asdict(), "first": first, "last": last}
    for row in await connection.execute(text(_COMPLETE), values):
        found[row.day] = found.get(row.day, frozenset()) | {row.batch_id}
    return found


async def find_complete_through(connection: AsyncConnection, account: str) -> date | None:
    """The last day that a current batch covers completely for an account."""
    found: date | None = (await connection.execute(text(_COMPLETE_THROUGH), {"account": account})).scalar_one()
    return found


async def list_rows(
    connection: AsyncConnection, resources: Collection[ResourceKey], first: date, last: date, limit: int
) -> list[FoundRow]:
    """The USAGE rows of resources in a span; no more than `limit`, so that one more shows that there are more."""
    values = {**_wanted(resources), "first": first, "last": last, "limit": limit}
    return [
        FoundRow(
            (row.provider, row.account, row.resource_id),
            CostRow(row.day, _line(row), *_sums(row), row.contracted_cost),
            frozenset(row.batch_ids),
            frozenset(row.currencies),
        )
        for row in await connection.execute(text(_ROWS), values)
    ]


async def has_spanning(
    connection: AsyncConnection, resources: Collection[ResourceKey], first: date, last: date
) -> bool:
    """Whether any of the resources has a charge of several days that starts in a span."""
    values = {**_wanted(resources), "first": first, "last": last}
    return bool((await connection.execute(text(_SPANNING), values)).scalar_one())


async def sum_lines(
    connection: AsyncConnection, account: Account, lines: Collection[Line], first: date, last: date
) -> tuple[dict[Line, Sums], frozenset[UUID]]:
    """An account's sums of lines over a span, all resources together; and the batches that they come from."""
    values = {
        **account._asdict(),
        "sku_price_ids": sorted({line.sku_price_id for line in lines}),
        "first": first,
        "last": last,
    }
    rows = [row for row in await connection.execute(text(_ACCOUNT_SUMS), values) if _line(row) in lines]
    batch_ids = frozenset(batch_id for row in rows for batch_id in row.batch_ids)
    return {_line(row): Sums(*_sums(row)) for row in rows}, batch_ids


async def list_daily_costs(
    connection: AsyncConnection, account: str, resource_id: str, span: tuple[date, date], after: Any, limit: int
) -> Sequence[Any]:
    """What a resource cost by day, line and batch, after the place `after` (see `place_of`)."""
    values = {"account": account, "resource_id": resource_id, "first": span[0], "last": span[1], "limit": limit}
    if after is not None:
        names = ("after_day", "after_sku", "after_price", "after_category", "after_unit", "after_batch")
        values |= dict(zip(names, after, strict=True))
    statement = _DAILY.format(after=_AFTER if after is not None else "")
    return (await connection.execute(text(statement), values)).all()


def place_of(row: Any) -> tuple[date, str, str, str, str, UUID]:
    """Where a row stands in `list_daily_costs`."""
    return row.day, row.sku_id, row.sku_price_id, row.pricing_category, row.unit, row.batch_id


def _wanted(resources: Collection[ResourceKey]) -> dict[str, list[str]]:
    keys = sorted({(resource.provider, resource.account, resource.id) for resource in resources})
    return {name: [key[place] for key in keys] for place, name in enumerate(("providers", "accounts", "ids"))}


def _line(row: Any) -> Line:
    return Line(row.sku_id, row.sku_price_id, row.pricing_category, row.unit)


def _sums(row: Any) -> tuple[Any, Any, Any, Any]:
    return row.quantity, row.effective_cost, row.billed_cost, row.list_cost
