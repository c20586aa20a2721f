"""What pricing decides about savings: the baseline of a resource, and the saving of a window against it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Denied, Exhausted, Reason, Unavailable, WrongState, invalid_field
from services._mesh.threads import BoundedThreads
from services._mesh.uow import Store
from services.pricing.model.baseline import (
    FEWEST_DAYS,
    MAX_DOCUMENT_BYTES,
    Baseline,
    choose_days,
    look_back,
)
from services.pricing.model.bill import Batch, batch_order
from services.pricing.model.daily import Account
from services.pricing.model.measurement import Leak, Measurement, Observation, Question, measure
from services.pricing.model.rows import CostRow, ResourceKey, in_order
from services.pricing.store import bills, costs
from services.pricing.store.costs import FoundRow

R = TypeVar("R")
# The rows of a resource and of what its action left behind; a document holds no more.
MAX_ROWS = 5000
MEASURE_SECONDS = 60.0
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FrozenBaseline:
    """A baseline with its document; `rows` say which batches each row comes from."""

    baseline: Baseline
    rows: Sequence[FoundRow]
    batches: Sequence[Batch]
    document: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the document, hexadecimal."""
        return hashlib.sha256(self.document).hexdigest()


async def get_baseline(reader: Store, resource: ResourceKey, through_day: date) -> FrozenBaseline:
    """The baseline of a resource up to a day. Raises WrongState (BASELINE_INSUFFICIENT), Exhausted, Unavailable."""

    async def read(connection: Any) -> FrozenBaseline:
        first, last = look_back(through_day)
        complete = await costs.complete_days(connection, _account(resource), first, last)
        found = await _rows(connection, [resource], first, last)
        if await costs.has_spanning(connection, [resource], _month_start(first), last):
            raise _insufficient(0, "The resource has charges that span several days: daily figures would be invented.")
        days = choose_days(through_day, complete, {each.row.day for each in found})
        kept = [each for each in found if each.row.day in set(days)]
        if len(days) < FEWEST_DAYS or not kept:
            raise _insufficient(len(days), "The bill covers too few whole days of the resource up to through_day.")
        batches = await bills.list_batches(connection, _batch_ids(kept))
        return _frozen(resource, through_day, days, kept, batches)

    return await _settled(reader, read)


def _frozen(
    resource: ResourceKey, through_day: date, days: tuple[date, ...], kept: list[FoundRow], batches: list[Batch]
) -> FrozenBaseline:
    currencies = sorted({currency for each in kept for currency in each.currencies})
    if len(currencies) != 1:
        raise _insufficient(0, f"The bill changed its currency within the baseline: {', '.join(currencies)}.")
    baseline = Baseline(resource, currencies[0], through_day, days, in_order(each.row for each in kept))
    document = baseline.document(batches)
    if len(document) > MAX_DOCUMENT_BYTES:
        raise _too_large(f"{MAX_DOCUMENT_BYTES} bytes")
    rows = sorted(kept, key=lambda each: (each.row.day, each.row.line))
    return FrozenBaseline(baseline=baseline, rows=rows, batches=sorted(batches, key=batch_order), document=document)


async def measure_savings(
    reader: Store,
    threads: BoundedThreads,
    organization_id: UUID,
    question: Question,
    leakage: Sequence[ResourceKey],
    today: date,
) -> Measurement:
    """Measure the saving of a window. Raises Denied (GRANT_INVALID), Invalid, Exhausted, Unavailable."""
    grant = current().grant
    if grant is None or (grant.organization_id, grant.plan) != (organization_id, question.plan_hash):
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant is for another organization or another plan.")
    _check(question, leakage)

    async def read(connection: Any) -> Observation:
        return await _observe(connection, question, leakage)

    observed = await _settled(reader, read)
    return await threads.run(MEASURE_SECONDS, measure, question, observed, today)


def _check(question: Question, leakage: Sequence[ResourceKey]) -> None:
    baseline = question.baseline
    if question.from_day <= baseline.through_day:
        raise invalid_field("from_day", f"must lie after the baseline's through_day, {baseline.through_day}")
    if question.estimate_currency != baseline.currency:
        raise invalid_field("estimate.currency", f"must be the baseline's: {baseline.currency}")
    concerned = [(each.provider, each.account, each.id) for each in (baseline.resource, *leakage)]
    if len(set(concerned)) != len(concerned):
        raise invalid_field("leakage", "must name each resource once, and not the measured one")


async def _observe(connection: Any, question: Question, leakage: Sequence[ResourceKey]) -> Observation:
    """What the current bills say about the window, the resource and what its action left behind."""
    baseline, window = question.baseline, question.window
    resource, first, last = baseline.resource, window[0], window[-1]
    account, concerned = _account(resource), [resource, *leakage]
    complete = await costs.complete_days(connection, account, first, last)
    rows = await _rows(connection, concerned, first, last)
    lines = {row.line for row in baseline.rows}
    reporting, priced_by = await costs.sum_lines(connection, account, lines, first, last)
    since = _month_start(baseline.days[0])
    covering = frozenset(batch_id for batch_ids in complete.values() for batch_id in batch_ids)
    return Observation(
        complete_days=frozenset(complete),
        rows=_rows_of(resource, rows),
        leakage=tuple(Leak(resource=each, rows=_rows_of(each, rows)) for each in leakage),
        reporting=reporting,
        spanning=await costs.has_spanning(connection, concerned, since, last),
        batches=tuple(await bills.list_batches(connection, covering | priced_by | _batch_ids(rows))),
    )


async def _rows(connection: Any, resources: Collection[ResourceKey], first: date, last: date) -> list[FoundRow]:
    found = await costs.list_rows(connection, resources, first, last, MAX_ROWS + 1)
    if len(found) > MAX_ROWS:
        raise _too_large(f"{MAX_ROWS} rows")
    return found


async def _settled(reader: Store, read: Callable[[Any], Awaitable[R]]) -> R:
    """What `read` finds while no bill is replaced: its several queries must see one and the same bill."""
    for _ in range(_TRIES):
        async with reader.read() as connection:
            before = await bills.current_ids(connection)
            found = await read(connection)
            if await bills.current_ids(connection) == before:
                return found
    message = "The bill is being replaced just now. Repeat the request."
    raise Unavailable(Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE, message, {"dependency": "bill"})


def _rows_of(resource: ResourceKey, rows: Sequence[FoundRow]) -> tuple[CostRow, ...]:
    key = (resource.provider, resource.account, resource.id)
    return in_order(each.row for each in rows if each.resource == key)


def _batch_ids(rows: Sequence[FoundRow]) -> frozenset[UUID]:
    return frozenset(batch_id for each in rows for batch_id in each.batch_ids)


def _account(resource: ResourceKey) -> Account:
    return Account(resource.provider, resource.account)


def _month_start(day: date) -> date:
    """A charge of several days starts at the earliest with its month."""
    return day.replace(day=1)


def _insufficient(days: int, message: str) -> WrongState:
    return WrongState(
        Reason.ERROR_REASON_BASELINE_INSUFFICIENT,
        f"{message} A baseline needs {FEWEST_DAYS} days.",
        {"days": str(days), "required_days": str(FEWEST_DAYS)},
    )


def _too_large(limit: str) -> Exhausted:
    return Exhausted(
        Reason.ERROR_REASON_TOO_LARGE, f"The resource has more lines in the bill than {limit} hold.", {"limit": limit}
    )
