"""SQL that deletes rows which nobody sees any more: those of superseded batches, and of imports that came to no end.

In pieces, each for a transaction of its own: a bill has millions of rows, and whoever deletes holds a job's row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

PIECE_ROWS = 20_000
# The rest of each table's primary key, after the organization and the import, with its types.
_KEYS = {
    "daily_costs": {"batch_id": "uuid", "number": "bigint"},
    "bill_days": {"batch_id": "uuid", "provider": "text", "account": "text", "day": "date"},
}
TABLES = tuple(_KEYS)


class Leftover(NamedTuple):
    """Rows to delete: of one batch of an import, or of all that it wrote."""

    bill_import_id: UUID
    batch_id: UUID | None


_OF = "organization_id = {of}.organization_id AND bill_import_id = {of}.bill_import_id"
_ANY = " OR ".join(f"EXISTS (SELECT 1 FROM pricing.{table} WHERE {_OF}{{more}})" for table in TABLES)
# An import that is running or failed has no batch: these are recorded in the transaction that ends it.
_LEFTOVERS = f"""
WITH sources AS (
  SELECT bill_source_id FROM pricing.bill_sources WHERE bill_source_id = :bill_source_id OR state = 'DISABLED'
)
SELECT i.bill_import_id, NULL::uuid AS batch_id FROM pricing.bill_imports AS i JOIN sources USING (bill_source_id)
WHERE i.state IN ('RUNNING', 'FAILED') AND ({_ANY.format(of="i", more="")})
UNION ALL
SELECT b.bill_import_id, b.batch_id FROM pricing.bill_batches AS b JOIN sources USING (bill_source_id)
WHERE NOT b.is_current AND ({_ANY.format(of="b", more=" AND batch_id = b.batch_id")})
"""
# A piece starts behind the one before it, so that no dead row is passed over twice.
_DELETE = """
WITH piece AS (
  SELECT ctid FROM pricing.{table} WHERE bill_import_id = :bill_import_id {batch} {after} ORDER BY {keys} LIMIT :limit
), gone AS (DELETE FROM pricing.{table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM piece)) RETURNING {keys})
SELECT {keys} FROM gone ORDER BY {backwards} LIMIT 1
"""


async def list_leftovers(connection: AsyncConnection, bill_source_id: UUID) -> list[Leftover]:
    """What is left of a source's bills and has rows still; of disabled sources too, whose jobs don't run any more."""
    found = await connection.execute(text(_LEFTOVERS), {"bill_source_id": bill_source_id})
    return [Leftover(row.bill_import_id, row.batch_id) for row in found]


async def delete_piece(
    connection: AsyncConnection, table: str, leftover: Leftover, after: Sequence[Any] | None
) -> Sequence[Any] | None:
    """Delete the rows behind the key `after`, at most `PIECE_ROWS`; returns the last one's key, None at the end."""
    keys = _KEYS[table]
    names = ", ".join(keys)
    behind = ", ".join(f"CAST(:{name} AS {kind})" for name, kind in keys.items())
    statement = _DELETE.format(
        table=table,
        keys=names,
        backwards=", ".join(f"{name} DESC" for name in keys),
        batch="" if leftover.batch_id is None else "AND batch_id = :of_batch",
        after="" if after is None else f"AND ({names}) > ({behind})",
    )
    values = {"bill_import_id": leftover.bill_import_id, "of_batch": leftover.batch_id, "limit": PIECE_ROWS}
    values |= dict(zip(keys, after or (), strict=False))
    row = (await connection.execute(text(statement), values)).one_or_none()
    return None if row is None else tuple(row)
