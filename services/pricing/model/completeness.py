"""Says which UTC days a bill covers completely, from the provider's manifest and the bill's own rows.

An absent row is not $0 (SAVINGS, point 8): only a complete day can show that nothing was charged.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Manifest:
    """What the provider says about one delivery of one billing period. `created_at` is when it was rendered."""

    billing_period: date
    execution_id: str
    created_at: datetime
    is_closed: bool
    files: tuple[str, ...]


def complete_days(manifest: Manifest, usage_days: Collection[date], settle: timedelta) -> frozenset[date]:
    """The days of one account that the delivery covers completely.

    A day is complete when the account used anything on it, and either the provider calls the period closed or the
    delivery was rendered `settle` after the day's end: providers add to a day for some hours. A day without any usage
    of the whole account looks like a hole in the bill and is not complete, closed or not.
    """
    settled_before = (manifest.created_at - settle).date()
    return frozenset(day for day in usage_days if manifest.is_closed or day < settled_before)


def complete_through(days: Collection[date]) -> date | None:
    """The last day of the unbroken run of complete days that begins with the first of them; None without any."""
    if not days:
        return None
    last = min(days)
    while last + _DAY in days:
        last += _DAY
    return last
