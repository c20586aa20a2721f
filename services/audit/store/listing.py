"""Finds the places of the events that a list asks for, each filter by an index of its own (migration 0002).

Whatever is asked for, a page costs about what a page holds, not what the organization's history holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, cast, func, or_, select, text, true
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.ext.asyncio import AsyncConnection

from services.audit.model.events import EventFilter, Position
from services.audit.tables import entries

# As many as a filter can mean; there are about a hundred in the whole installation.
MAX_ACTIONS = 500
_ORDER = (entries.c.occurred_at.desc(), entries.c.idx.desc())


async def find_places(
    connection: AsyncConnection,
    chosen: EventFilter,
    actions: Sequence[str] | None,
    actor_hash: bytes | None,
    after: Position | None,
    limit: int,
) -> list[int]:
    """The places of the events wanted, newest first, behind `after`."""
    order = _ORDER if chosen.by_time else _ORDER[1:]
    query = select(entries.c.idx, entries.c.occurred_at).where(*_conditions(chosen, actor_hash, after))
    query = query.order_by(*order).limit(limit)
    if actions is not None:
        named = await _named(connection, actions)
        if not named:
            return []
        query = _of_each(query, named, chosen, limit)
    return [row.idx for row in await connection.execute(query)]


def _of_each(query: Select[Any], named: Sequence[str], chosen: EventFilter, limit: int) -> Select[Any]:
    """The newest of each action, each from its own part of the index, and of these the newest."""
    wanted = func.unnest(cast(named, ARRAY(TEXT))).table_valued("action", name="wanted").render_derived()
    newest = query.where(entries.c.action.collate("C") == wanted.c.action).correlate(wanted).lateral("newest")
    order = (newest.c.occurred_at.desc(), newest.c.idx.desc())
    found = select(newest.c.idx).select_from(wanted.join(newest, true()))
    return found.order_by(*(order if chosen.by_time else order[1:])).limit(limit)


def _conditions(chosen: EventFilter, actor_hash: bytes | None, after: Position | None) -> list[ColumnElement[bool]]:
    """All but the action. Each says, too, what the index that serves it leaves out."""
    c = entries.c
    found: list[ColumnElement[bool]] = []
    if after is not None:
        behind: ColumnElement[bool] = c.idx < after.place
        if chosen.by_time:
            same = and_(c.occurred_at == after.occurred_at, behind)
            behind = and_(c.occurred_at <= after.occurred_at, or_(c.occurred_at < after.occurred_at, same))
        found.append(behind)
    if chosen.occurred_after:
        found.append(c.occurred_at >= chosen.occurred_after)
    if chosen.occurred_before:
        found.append(c.occurred_at < chosen.occurred_before)
    if chosen.target:
        found.append(c.target == chosen.target)
    if chosen.request_id:
        found.append(c.request_id == chosen.request_id)
    if chosen.trace_id:
        found += [c.trace_id == chosen.trace_id, c.trace_id != text("''")]
    if chosen.result:
        found.append(c.result == chosen.result)
        if chosen.result != "OK":
            found.append(c.result != text("'OK'"))
    if chosen.role:
        found.append(c.role == chosen.role)
        if chosen.role != "SYSTEM":
            found.append(c.role != text("'SYSTEM'"))
    if actor_hash is not None:
        found.append(c.actor_hash == actor_hash)
        if chosen.actor.startswith("user:"):
            found.append(or_(c.role != text("'SYSTEM'"), c.producer == text("'identity'")))
    return found


async def _named(connection: AsyncConnection, actions: Sequence[str]) -> list[str]:
    """The actions that there are of those wanted: beginnings are followed through the index, from one to the next."""
    named = {action for action in actions if not action.endswith(".")}
    for start in (action for action in actions if action.endswith(".")):
        # "/" is the character after ".": everything that begins with the dot lies before it.
        rows = await connection.execute(text(_NEXT), {"start": start, "end": start[:-1] + "/", "most": MAX_ACTIONS})
        named.update(row.action for row in rows)
    return sorted(named)


_NEXT = """
WITH RECURSIVE found AS (
  (SELECT e.action FROM audit.entries AS e
   WHERE e.action COLLATE "C" >= :start AND e.action COLLATE "C" < :end ORDER BY e.action COLLATE "C" LIMIT 1)
  UNION ALL
  SELECT (SELECT e.action FROM audit.entries AS e
          WHERE e.action COLLATE "C" > f.action AND e.action COLLATE "C" < :end
          ORDER BY e.action COLLATE "C" LIMIT 1)
  FROM found AS f WHERE f.action IS NOT NULL
) SELECT action FROM found WHERE action IS NOT NULL LIMIT :most
"""
