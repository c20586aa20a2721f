"""The ledger: what the decided checkpoints of one length add up to. Pure.

Amounts of different lengths are never added: the seven days are part of the thirty. Nothing is annualized.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from services.actions.model.plan import WINDOWS_DAYS

# Whose amounts count: what was saved, and what it cost more. Noise around nothing, and what came back, isn't a saving.
_COUNTED = frozenset({"VERIFIED", "PARTIAL", "NEGATIVE"})
_DAYS_A_YEAR = 365


@dataclass(frozen=True, slots=True)
class Line:
    """The checkpoints of one length with one decision ("" while they wait): their number, amounts and estimates.

    `estimate` is the sum of the plans' monthly estimates.
    """

    days: int
    decision: str
    count: int
    economic: Decimal
    cash: Decimal
    estimate: Decimal


@dataclass(slots=True)
class Summary:
    """What the checkpoints of one length say together. `estimated` is for the same windows as the amounts."""

    days: int
    counts: Counter[str] = field(default_factory=Counter)
    economic: Decimal = Decimal(0)
    cash: Decimal = Decimal(0)
    estimated: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger in the organization's reporting currency; `others` counts the checkpoints in any other."""

    summaries: Sequence[Summary]
    currency: str
    open_actions: int
    executed_actions: int
    others: int


def summarize(lines: Sequence[Line]) -> list[Summary]:
    """A summary each for 7, 14 and 30 days."""
    found = {days: Summary(days) for days in WINDOWS_DAYS}
    for line in lines:
        summary = found[line.days]
        summary.counts[line.decision or "WAITING"] += line.count
        if line.decision in _COUNTED:
            summary.economic += line.economic
            summary.cash += line.cash
            summary.estimated += line.estimate * 12 * line.days / _DAYS_A_YEAR
    return list(found.values())
