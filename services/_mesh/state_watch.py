"""Holds the rows that decide who may do what against their seals: a change that left no event is made one.

It goes through all organizations, a page at a time, and starts over after a rest. What it reports is sealed as it was
found, so that one difference is one event, whichever process looks next. It changes none of the rows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.errors import Problem
from services._mesh.metrics import Metrics
from services._mesh.state_schema import TRIGGER, Watched, content_of, key_of
from services._mesh.uow import Store, UnitOfWork

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0
# After each full page, so that a large table is no burden.
PAUSE_SECONDS = 0.05
PAGE = 500
# So many events of bypasses are written by one transaction.
TOLD_AT_ONCE = 50
_ORGANIZATIONS = 500
_NAME = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Bypass:
    """A row that isn't as its last event left it. `columns` are the ones that differ, of one that is still there."""

    table: Watched
    row_key: str
    change: str
    columns: tuple[str, ...]
    sealed: Mapping[str, str] | None


_WATCHED = """
SELECT c.relname::text AS name, t.tgargs AS arguments FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = :schema AND t.tgname = :trigger ORDER BY 1
"""
_LISTED = """
SELECT organization_id FROM {schema}.outbox_counters WHERE organization_id > :after OR :first
ORDER BY organization_id LIMIT :limit
"""
# One statement sees row and seal as one commit left them. A page comes first, and then one look-up by key for each of
# its rows (LIMIT keeps the planner from joining the whole tables).
_SEALED = """
SELECT s.row_key, s.seal AS sealed, f.found FROM (
  SELECT * FROM {schema}.state_seals s WHERE s.organization_id = :organization_id AND s.relation = '{table}'{after}
  ORDER BY s.row_key LIMIT :limit) AS s
LEFT JOIN LATERAL (
  SELECT {schema}.seal_of({content}, CAST(:columns AS text[])) AS found FROM {schema}.{table} t
  WHERE t.organization_id = s.organization_id{joined} LIMIT 1) AS f ON true
ORDER BY s.row_key
"""
_AFTER_SEAL = " AND s.row_key > CAST(:after AS text)"
_UNSEALED = """
SELECT page.row_key, s.row_key IS NOT NULL AS is_known
FROM (SELECT {key} AS row_key FROM {schema}.{table} t
  WHERE t.organization_id = :organization_id{after} ORDER BY {order} LIMIT :limit) AS page
LEFT JOIN LATERAL (
  SELECT k.row_key FROM {schema}.state_seals k WHERE k.organization_id = :organization_id AND k.relation = '{table}'
    AND k.row_key = page.row_key LIMIT 1) AS s ON true
ORDER BY page.row_key
"""
_SEAL = """
INSERT INTO {schema}.state_seals AS s (organization_id, relation, row_key, seal)
VALUES (:organization_id, '{table}', CAST(:row_key AS text), (
  SELECT {schema}.seal_of({content}, CAST(:columns AS text[])) FROM {schema}.{table} t
  WHERE t.organization_id = :organization_id{chosen}))
ON CONFLICT (organization_id, relation, row_key) DO UPDATE SET seal = EXCLUDED.seal, event_id = NULL
  WHERE s.seal IS NOT DISTINCT FROM CAST(:sealed AS jsonb)
"""


class StateWatch:
    """The watching task of one service. `database` is under its relay's role, which sees which organizations there are.

    `store` is under the role that reads the state tables, and records what is found.
    """

    def __init__(self, database: Database, store: Store, clock: Clock, metrics: Metrics | None = None) -> None:
        self._database, self._store, self._schema, self._clock = database, store, store.schema, clock
        metrics = metrics or Metrics()
        self._bypasses = metrics.counter(
            "recoup_state_bypasses", "Rows that were changed without an event.", service=self._schema
        )
        self._looked = metrics.gauge(
            "recoup_state_looked_timestamp_seconds", "When all watched rows had been looked at.", service=self._schema
        )
        self._looked.set(clock.wall_seconds())

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:
                name = error.reason_name if isinstance(error, Problem) else type(error).__name__
                log.warning("the state of %s will be looked at again: %s", self._schema, name)
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> list[Bypass]:
        """Look at every watched row once; returns what was recorded as an event. Raises Problem."""
        found, after = list[Bypass](), None
        tables = await self._tables()
        while tables and (organizations := await self._organizations(after)):
            for organization_id in organizations:
                for table in tables:
                    found += await self._look_at(organization_id, table)
            after = organizations[-1]
        self._looked.set(self._clock.wall_seconds())
        return found

    async def _tables(self) -> list[Watched]:
        """What is watched, as the triggers of the migrations say."""
        async with self._database.unscoped() as connection:
            rows = await connection.execute(text(_WATCHED), {"schema": self._schema, "trigger": TRIGGER})
            return [_watched(row.name, bytes(row.arguments)) for row in rows]

    async def _organizations(self, after: UUID | None) -> list[UUID]:
        values = {"after": after or UUID(int=0), "first": after is None, "limit": _ORGANIZATIONS}
        async with self._database.unscoped() as connection:
            rows = await connection.execute(text(_LISTED.format(schema=self._schema)), values)
            return [row.organization_id for row in rows]

    async def _look_at(self, organization_id: UUID, table: Watched) -> list[Bypass]:
        """First the rows that have a seal, then the ones that have none."""
        recorded = list[Bypass]()
        for page_of, bypass_of in ((self._sealed, _of_sealed), (self._rows, _of_row)):
            after: str | None = None
            while True:
                async with self._store.read(organization_id) as connection:
                    rows = await page_of(connection, organization_id, table, after)
                bypasses = [each for row in rows if (each := bypass_of(table, row)) is not None]
                recorded += await self._record(organization_id, bypasses)
                await asyncio.sleep(PAUSE_SECONDS * len(rows) / PAGE)
                if len(rows) < PAGE:
                    break
                after = rows[-1].row_key
        return recorded

    async def _sealed(
        self, connection: AsyncConnection, organization_id: UUID, table: Watched, after: str | None
    ) -> Sequence[Row[Any]]:
        statement = _SEALED.format(
            schema=self._schema,
            table=table.table,
            joined=_chosen(table, "s.row_key"),
            content=content_of(table),
            after="" if after is None else _AFTER_SEAL,
        )
        return await _page(connection, statement, organization_id, after, columns=list(table.columns))

    async def _rows(
        self, connection: AsyncConnection, organization_id: UUID, table: Watched, after: str | None
    ) -> Sequence[Row[Any]]:
        keys = ", ".join(f"t.{key}" for key in table.keys)
        last = ", ".join(_part("CAST(:after AS text)", n) for n, _ in enumerate(table.keys, 1))
        statement = _UNSEALED.format(
            schema=self._schema,
            table=table.table,
            key=key_of(table),
            order=keys or "t.organization_id",
            after="" if after is None else f" AND ({keys}) > ({last})",
        )
        return await _page(connection, statement, organization_id, after)

    async def _record(self, organization_id: UUID, bypasses: Sequence[Bypass]) -> list[Bypass]:
        """An event of each, and the row sealed as it is, in one transaction; not of what another process recorded."""
        recorded = list[Bypass]()
        for start in range(0, len(bypasses), TOLD_AT_ONCE):
            async with self._store.begin(organization_id) as work:
                told = [each for each in bypasses[start : start + TOLD_AT_ONCE] if await self._seal(work, each)]
                for each in told:
                    key = each.row_key or str(organization_id)
                    how = f"{each.change}: {', '.join(each.columns)}" if each.columns else each.change
                    about = {"control": "state", "what": f"{self._schema}.{each.table.table} {key}", "how": how}
                    work.emit(f"{self._schema}.control.bypass", f"{each.table.table}/{key}", about, "FAILED")
                    log.error("security: a row was changed without an event: %s of %s", about, organization_id)
            self._bypasses.add(len(told))
            recorded += told
        return recorded

    async def _seal(self, work: UnitOfWork, bypass: Bypass) -> bool:
        """Seal a row as it is now; False where somebody else sealed it since it was looked at."""
        table = bypass.table
        chosen = _chosen(table, "CAST(:row_key AS text)")
        done = await work.execute(
            text(_SEAL.format(schema=self._schema, table=table.table, chosen=chosen, content=content_of(table))),
            {
                "organization_id": work.organization_id,
                "row_key": bypass.row_key,
                "columns": list(table.columns),
                "sealed": None if bypass.sealed is None else json.dumps(bypass.sealed),
            },
        )
        return bool(done.rowcount)


def _chosen(table: Watched, row_key: str) -> str:
    """The condition that a row `t` has the key that an expression says."""
    return "".join(f" AND t.{key} = {_part(row_key, n)}" for n, key in enumerate(table.keys, 1))


def _part(row_key: str, number: int) -> str:
    return f"split_part({row_key}, '/', {number})::uuid"


async def _page(
    connection: AsyncConnection, statement: str, organization_id: UUID, after: str | None, **more: object
) -> Sequence[Row[Any]]:
    values: dict[str, Any] = {"organization_id": organization_id, "limit": PAGE, **more}
    if after is not None:
        values["after"] = after
    return (await connection.execute(text(statement), values)).all()


def _of_sealed(table: Watched, row: Row[Any]) -> Bypass | None:
    sealed, found = _json(row.sealed), _json(row.found)
    if sealed is None or found is None:
        change = "deleted" if found is None else "inserted"
        return None if sealed is found else Bypass(table, row.row_key, change, (), sealed)
    # A column that was watched only before, or only since, has nothing to be held against.
    differing = tuple(name for name in sorted(found) if sealed.get(name, found[name]) != found[name])
    return Bypass(table, row.row_key, "changed", differing, sealed) if differing else None


def _of_row(table: Watched, row: Row[Any]) -> Bypass | None:
    return None if row.is_known else Bypass(table, row.row_key, "inserted", (), None)


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _watched(name: str, arguments: bytes) -> Watched:
    """A table from its trigger's arguments. Raises ValueError for what can't be a name."""
    keys, columns = (tuple(each.split(",")) if each else () for each in arguments.decode().split("\0")[:2])
    for each in (name, *keys, *columns):
        if not _NAME.fullmatch(each):
            raise ValueError(f"{each!r} is no name of a table or column")
    return Watched(name, keys, columns)
