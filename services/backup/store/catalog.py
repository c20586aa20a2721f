"""What tables there are, which columns of them are copied, and in which order their rows are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.backup.model.manifest import KEYS, MAIN
from services.backup.store.connecting import Connection

SCHEMAS = {MAIN: ("identity", "scanner", "pricing", "actions", "audit"), KEYS: ("subjects",)}
# Alembic's own: a restored database has it from its migrations.
_VERSIONS = "schema_versions"


@dataclass(frozen=True, slots=True)
class Shape:
    """A table as it is copied. A partitioned table is copied as one, a partition that was detached by itself."""

    name: str
    columns: Sequence[str]
    order: Sequence[str]

    def query(self) -> str:
        """The rows, in an order that is the same on every server."""
        columns = ", ".join(_quoted(each) for each in self.columns)
        return f"SELECT {columns} FROM {self.name} ORDER BY {', '.join(self.order)}"


_TABLES = """
SELECT n.nspname || '.' || c.relname AS name,
  (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
      AND a.atttypid <> 'xid8'::regtype) AS columns,
  (SELECT array_agg(a.attname::text ORDER BY k.place) FROM pg_index i
    CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
    WHERE i.indrelid = c.oid AND i.indisprimary) AS key,
  (SELECT array_agg(a.attname::text) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attcollation <> 0) AS texts
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> $2
ORDER BY 1
"""
_PARTITIONS = """
SELECT p.relname::text AS parent, array_agg(c.relname::text ORDER BY c.relname::text) AS children
FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
JOIN pg_namespace n ON n.oid = p.relnamespace
WHERE n.nspname = ANY($1) AND p.relkind = 'p' GROUP BY 1 ORDER BY 1
"""


async def list_shapes(connection: Connection, database: str) -> list[Shape]:
    """The tables of a database, by name."""
    rows = await connection.fetch(_TABLES, list(SCHEMAS[database]), _VERSIONS)
    return [_shape(row["name"], row["columns"], row["key"] or row["columns"], set(row["texts"] or ())) for row in rows]


def _shape(name: str, columns: Sequence[str], key: Sequence[str], texts: set[str]) -> Shape:
    # A text's own collation differs between servers, and between versions of their libraries.
    order = [f'{_quoted(each)} COLLATE "C"' if each in texts else _quoted(each) for each in key]
    return Shape(name, list(columns), order)


async def list_partitions(connection: Connection, database: str) -> Mapping[str, Sequence[str]]:
    """The attached partitions of each partitioned table."""
    rows = await connection.fetch(_PARTITIONS, list(SCHEMAS[database]))
    return {row["parent"]: list(row["children"]) for row in rows}


async def read_revisions(connection: Connection, database: str) -> Mapping[str, str]:
    """The revision of each schema that was migrated."""
    found = {}
    for schema in SCHEMAS[database]:
        if await connection.fetchval("SELECT to_regclass($1)", f"{schema}.{_VERSIONS}") is not None:
            found[schema] = str(await connection.fetchval(f"SELECT version_num FROM {schema}.{_VERSIONS}"))
    return found


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
