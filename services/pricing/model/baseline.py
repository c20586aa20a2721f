"""The baseline: what a resource used and cost before anything was done to it, frozen into a document.

Which days are in it is decided here and nowhere else (verifier/METHOD.md, "Baseline"), never after the fact.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import rfc8785

from services.pricing.model.bill import Batch, batch_order
from services.pricing.model.rows import CostRow, ResourceKey, in_order, read_row

METHOD = "recoup-savings/1"
LOOK_BACK_DAYS, MOST_DAYS, FEWEST_DAYS = 35, 28, 14
# As much as MeasureSavings takes back.
MAX_DOCUMENT_BYTES = 262_144
_FIELDS = frozenset({"v", "method", "resource", "currency", "through_day", "days", "rows", "batches"})


@dataclass(frozen=True, slots=True)
class Baseline:
    """A frozen baseline: its days ascending, and the rows of the resource on them."""

    resource: ResourceKey
    currency: str
    through_day: date
    days: tuple[date, ...]
    rows: tuple[CostRow, ...]

    def document(self, batches: Iterable[Batch]) -> bytes:
        """The canonical document; `batches` are those that the rows come from."""
        return rfc8785.dumps(
            {
                "v": 1,
                "method": METHOD,
                "resource": self.resource.document(),
                "currency": self.currency,
                "through_day": self.through_day.isoformat(),
                "days": [day.isoformat() for day in self.days],
                "rows": [row.document() for row in in_order(self.rows)],
                "batches": [batch.document() for batch in sorted(batches, key=batch_order)],
            }
        )


def look_back(through_day: date) -> tuple[date, date]:
    """The first and last day that may be in a baseline."""
    return through_day - timedelta(days=LOOK_BACK_DAYS - 1), through_day


def choose_days(through_day: date, complete: Collection[date], charged: Collection[date]) -> tuple[date, ...]:
    """The days of a baseline, ascending; fewer than FEWEST_DAYS are no baseline.

    `complete` are days that the account's bill covers completely, `charged` those on which the resource has a row.
    """
    first, last = look_back(through_day)
    days = sorted(day for day in complete if first <= day <= last)
    started = next((day for day in days if day in charged), None)
    if started is None:
        return ()
    if started != days[0]:  # It was made on that day, which is a partial one.
        days = [day for day in days if day > started]
    return tuple(days[-MOST_DAYS:])


def read_baseline(document: bytes) -> Baseline:
    """The baseline that a document freezes. Raises ValueError for a document that this method doesn't write."""
    try:
        content = json.loads(document)
        if not isinstance(content, dict) or rfc8785.dumps(content) != document:
            raise ValueError("it isn't canonical JSON (RFC 8785)")
        return _read(content)
    except (KeyError, TypeError, UnicodeDecodeError, rfc8785.CanonicalizationError, RecursionError) as error:
        raise ValueError(f"it lacks something or has something else in its place: {error}") from error


def _read(content: dict[str, Any]) -> Baseline:
    if set(content) != _FIELDS or content["v"] != 1 or content["method"] != METHOD:
        raise ValueError(f"it isn't a baseline of {METHOD}")
    days = tuple(map(date.fromisoformat, content["days"]))
    rows = tuple(map(read_row, content["rows"]))
    if list(days) != sorted(set(days)) or not FEWEST_DAYS <= len(days) <= MOST_DAYS:
        raise ValueError(f"its days must ascend, from {FEWEST_DAYS} to {MOST_DAYS} of them")
    if rows != in_order(rows) or len({(row.day, row.line) for row in rows}) != len(rows):
        raise ValueError("its rows must be sorted by day and line, each once")
    if not rows or not {row.day for row in rows} <= set(days):
        raise ValueError("its rows must lie on its days")
    resource = ResourceKey(**content["resource"])
    if not all(isinstance(text, str) for text in (*resource.document().values(), content["currency"])):
        raise ValueError("resource and currency are texts")
    return Baseline(resource, content["currency"], date.fromisoformat(content["through_day"]), days, rows)
