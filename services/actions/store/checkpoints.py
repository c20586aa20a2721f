"""SQL of checkpoints, receipts and the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.actions.model.action import Checkpoint
from services.actions.model.ledger import Line
from services.actions.model.states import OPEN_STATES
from services.actions.tables import actions, checkpoints, final_receipts, jobs, receipts


async def insert_checkpoints(
    connection: AsyncConnection,
    organization_id: UUID,
    action_id: UUID,
    planned: Sequence[tuple[UUID, int]],
    currency: str,
) -> None:
    """Insert the checkpoints of an action: (id, days) each. Their windows follow with the execution."""
    rows = [
        {
            "organization_id": organization_id,
            "checkpoint_id": checkpoint_id,
            "action_id": action_id,
            "days": days,
            "currency": currency,
            "decision": "",
            "provisional": False,
            "explanation": "",
            "measurement": b"",
            "measurement_digest": "",
            "revision": 0,
        }
        for checkpoint_id, days in planned
    ]
    await connection.execute(insert(checkpoints), rows)


# The measurement is large, and needed only where its receipt is signed.
_SHOWN = [column for column in checkpoints.c if column.name != "measurement"]


def _with_due_date() -> Select[Any]:
    """Checkpoints with when their job looks next."""
    due = and_(
        jobs.c.organization_id == checkpoints.c.organization_id,
        jobs.c.subject_id == checkpoints.c.checkpoint_id,
        jobs.c.kind == "checkpoint",
        jobs.c.status.in_(["READY", "LEASED"]),
    )
    return select(*_SHOWN, jobs.c.due_at).select_from(checkpoints.outerjoin(jobs, due))


async def list_checkpoints(connection: AsyncConnection, action_ids: Sequence[UUID]) -> list[Checkpoint]:
    """The checkpoints of actions, by action and length."""
    query = (
        _with_due_date()
        .where(checkpoints.c.action_id.in_(action_ids))
        .order_by(checkpoints.c.action_id, checkpoints.c.days)
    )
    return [_checkpoint(row) for row in await connection.execute(query)]


async def get_checkpoint(connection: AsyncConnection, checkpoint_id: UUID) -> Checkpoint:
    """A checkpoint of the transaction's organization. Raises NotFound."""
    query = _with_due_date().where(checkpoints.c.checkpoint_id == checkpoint_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("checkpoint")
    return _checkpoint(row)


async def get_measurement(connection: AsyncConnection, checkpoint_id: UUID) -> bytes:
    """The measurement document of a checkpoint's current decision. Raises NotFound."""
    query = select(checkpoints.c.measurement).where(checkpoints.c.checkpoint_id == checkpoint_id)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("checkpoint")
    return bytes(row.measurement)


async def find_checkpoint(
    connection: AsyncConnection, action_id: UUID, days: int, *, lock: bool = False
) -> Checkpoint | None:
    """The checkpoint of an action and length, kept as it is to the transaction's end with `lock`; None for none."""
    query = _with_due_date().where(checkpoints.c.action_id == action_id, checkpoints.c.days == days)
    query = query.with_for_update(of=checkpoints) if lock else query
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _checkpoint(row)


async def mark_checkpoint(connection: AsyncConnection, checkpoint_id: UUID, **values: Any) -> None:
    """Change columns of a checkpoint."""
    await connection.execute(update(checkpoints).where(checkpoints.c.checkpoint_id == checkpoint_id).values(**values))


def _checkpoint(row: Any) -> Checkpoint:
    return Checkpoint(
        row.checkpoint_id,
        row.action_id,
        row.days,
        row.from_day,
        row.to_day,
        row.decision,
        row.economic,
        row.cash,
        row.currency,
        row.provisional,
        row.explanation,
        row.measurement_digest,
        row.decided_at,
        row.decide_event_id,
        row.revision,
        row.receipt_id,
        row.due_at,
    )


# Receipts are never changed: that one is superseded, only the later one says.
_later = receipts.alias("later")
_SUPERSEDED_BY = (
    select(_later.c.receipt_id)
    .where(_later.c.organization_id == receipts.c.organization_id, _later.c.supersedes == receipts.c.receipt_id)
    .scalar_subquery()
    .label("superseded_by")
)
# A list shows receipts without the documents behind them.
_LISTED = [
    *(c for c in receipts.c if c.name not in ("document", "measurement", "envelope", "event_ids")),
    _SUPERSEDED_BY,
]


async def insert_receipt(connection: AsyncConnection, **values: Any) -> None:
    """Insert a receipt. The unique key keeps a decision from having two."""
    await connection.execute(insert(receipts).values(**values))


async def find_receipt(connection: AsyncConnection, action_id: UUID, days: int, revision: int) -> Any | None:
    """The receipt of one decision, without its documents; None where there is none."""
    query = select(*_LISTED).where(
        receipts.c.action_id == action_id, receipts.c.days == days, receipts.c.revision == revision
    )
    return (await connection.execute(query)).one_or_none()


async def get_receipt(connection: AsyncConnection, receipt_id: UUID) -> Any:
    """A receipt's row with its documents, and the plan and baseline of its action. Raises NotFound."""
    query = (
        select(receipts, _SUPERSEDED_BY, actions.c.plan, actions.c.baseline)
        .join(actions, and_(actions.c.organization_id == receipts.c.organization_id,
                            actions.c.action_id == receipts.c.action_id))
        .where(receipts.c.receipt_id == receipt_id)
    )  # fmt: skip
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFound("receipt")
    return row


async def find_final(connection: AsyncConnection, receipt_id: UUID) -> str | None:
    """The bundle of a receipt as it was when it became final; None until then, and once an event of it was erased."""
    query = select(final_receipts.c.bundle).where(final_receipts.c.receipt_id == receipt_id)
    found = (await connection.execute(query)).scalar_one_or_none()
    return None if found is None else bytes(found).decode()


async def insert_final(connection: AsyncConnection, organization_id: UUID, receipt_id: UUID, bundle: str) -> None:
    """Keep the bundle of a receipt that is final. The first one stays."""
    made = insert_or(final_receipts).values(
        organization_id=organization_id, receipt_id=receipt_id, bundle=bundle.encode()
    )
    await connection.execute(made.on_conflict_do_nothing())


async def delete_finals(connection: AsyncConnection, event_ids: Sequence[UUID]) -> None:
    """Forget the bundles that have one of these events in them."""
    hold = select(receipts.c.receipt_id).where(receipts.c.event_ids.overlap(event_ids))
    await connection.execute(delete(final_receipts).where(final_receipts.c.receipt_id.in_(hold)))


async def list_receipts(
    connection: AsyncConnection, before: UUID | None, limit: int, action_id: UUID | None
) -> Sequence[Any]:
    """Receipts, newest first (their ids are UUIDv7), before `before`."""
    query = select(*_LISTED).order_by(receipts.c.receipt_id.desc()).limit(limit)
    if before is not None:
        query = query.where(receipts.c.receipt_id < before)
    if action_id is not None:
        query = query.where(receipts.c.action_id == action_id)
    return (await connection.execute(query)).all()


async def list_issued(
    connection: AsyncConnection,
    begins_at: datetime,
    ends_at: datetime,
    action_ids: Sequence[UUID],
    after: UUID | None,
    limit: int,
) -> Sequence[Any]:
    """Receipts that were issued in a period, with their events, oldest first, after `after`."""
    issued = and_(receipts.c.issued_at >= begins_at, receipts.c.issued_at < ends_at)
    query = select(*_LISTED, receipts.c.event_ids).where(issued).order_by(receipts.c.receipt_id).limit(limit)
    if action_ids:
        query = query.where(receipts.c.action_id.in_(action_ids))
    if after is not None:
        query = query.where(receipts.c.receipt_id > after)
    return (await connection.execute(query)).all()


async def read_ledger(connection: AsyncConnection, currency: str) -> tuple[list[Line], int]:
    """What the checkpoints of executed actions say, by length and decision, in one currency; how many are in others."""
    query = (
        select(
            checkpoints.c.currency,
            checkpoints.c.days,
            checkpoints.c.decision,
            func.count().label("decisions"),
            func.coalesce(func.sum(checkpoints.c.economic), 0).label("economic"),
            func.coalesce(func.sum(checkpoints.c.cash), 0).label("cash"),
            func.sum(actions.c.estimate).label("estimate"),
        )
        .join(actions, and_(actions.c.organization_id == checkpoints.c.organization_id,
                            actions.c.action_id == checkpoints.c.action_id))
        .where(actions.c.state.in_(["EXECUTED", "CLOSED"]))
        .group_by(checkpoints.c.currency, checkpoints.c.days, checkpoints.c.decision)
    )  # fmt: skip
    rows = (await connection.execute(query)).all()
    lines = [
        Line(r.days, r.decision, r.decisions, r.economic, r.cash, r.estimate) for r in rows if r.currency == currency
    ]
    return lines, sum(r.decisions for r in rows if r.currency != currency)


async def count_actions(connection: AsyncConnection) -> tuple[int, int]:
    """How many actions are open, and how many were executed."""
    is_open = actions.c.state.in_([state.value for state in OPEN_STATES])
    query = select(
        func.count().filter(is_open).label("open"),
        func.count().filter(actions.c.state.in_(["EXECUTED", "CLOSED"])).label("executed"),
    )
    row = (await connection.execute(query.select_from(actions))).one()
    return row.open, row.executed
