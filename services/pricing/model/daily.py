"""Sums a bill's rows to what each resource cost a UTC day, and says which days the bill covers.

Owns which charges count (SAVINGS, point 4) and to which day they belong (point 7). Memory is bounded by `max_open`
resource-days; a larger bill comes out in several pieces, whose rows simply add up.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow, Rounded
from typing import NamedTuple

from services.pricing.model.focus import ChargeCategory, FocusRow
from services.pricing.model.refusal import BillRefused

# Sums of a bill are exact or fail: no rounding can slip in. 38 digits after the point, 20 and room for carries before.
EXACT = Context(prec=100, traps=[Inexact, Rounded, InvalidOperation, Overflow, DivisionByZero])
_DAY = timedelta(days=1)
_add = EXACT.add


class CostKind(enum.StrEnum):
    """How a cost row may be used. Only USAGE is measured; the others are kept apart and shown."""

    USAGE = "USAGE"
    CORRECTION = "CORRECTION"  # ChargeClass=Correction: it changes an earlier, closed period.
    SPANNING = "SPANNING"  # Usage of more than one UTC day: splitting it would invent daily figures.


class CostKey(NamedTuple):
    """What one daily cost is about. `day` is the UTC day of ChargePeriodStart."""

    billing_period: date
    provider: str
    account: str
    region: str
    resource_id: str
    day: date
    kind: CostKind
    sku_id: str
    sku_price_id: str
    pricing_category: str
    unit: str


class DailyCost(NamedTuple):
    """The sum of all charges with one key. `contracted_cost` is None as soon as one of them leaves it out."""

    key: CostKey
    quantity: Decimal
    effective_cost: Decimal
    billed_cost: Decimal
    list_cost: Decimal
    contracted_cost: Decimal | None
    rows: int


class Account(NamedTuple):
    """A billed account, subscription or project."""

    provider: str
    account: str


@dataclass
class BillFacts:
    """What a bill says as a whole; complete once all of its rows went by.

    `usage_days` has the UTC days on which an account used anything at all: a day that is missing there isn't a day
    without cost, but a day that the bill doesn't cover.
    """

    currency: str = ""
    rows: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    billing_periods: set[date] = field(default_factory=set)
    accounts: set[Account] = field(default_factory=set)
    usage_days: set[tuple[Account, date]] = field(default_factory=set)


class DailyCosts:
    """Sums the rows of one batch. Feed it once; read `facts` afterwards."""

    def __init__(self, *, billing_period: date | None = None, max_open: int = 200_000) -> None:
        """With a `billing_period`, rows of any other are refused."""
        self.facts = BillFacts()
        self._billing_period = billing_period
        self._max_open = max_open
        self._open: dict[CostKey, DailyCost] = {}

    def sum(self, rows: Iterable[FocusRow]) -> Iterator[list[DailyCost]]:
        """Pieces of the result, at most `max_open` daily costs each. Raises BillRefused."""
        for row in rows:
            self._check(row)
            self._count(row)
            if row.category is ChargeCategory.USAGE and row.resource_id is not None:
                self._add(row, row.resource_id)
            if len(self._open) >= self._max_open:
                yield self._drain()
        if not self.facts.rows:
            # Taken as a bill, it would put nothing in the place of a whole month.
            raise BillRefused("empty", "the bill has no rows.", "Check the export, and have it delivered again.")
        if self._open:
            yield self._drain()

    def _check(self, row: FocusRow) -> None:
        if row.currency != self.facts.currency and self.facts.rows:
            message = f"{row.currency} after {self.facts.currency}: a batch has one currency."
            raise BillRefused(
                "currency_mixed", message, "Export one file a currency.", row=row.number, column="BillingCurrency"
            )
        if self._billing_period not in (None, row.billing_period):
            message = f"a row of {row.billing_period:%Y-%m} in the batch of {self._billing_period:%Y-%m}."
            raise BillRefused(
                "billing_period_foreign", message, "Export it again.", row=row.number, column="BillingPeriodStart"
            )

    def _count(self, row: FocusRow) -> None:
        facts, account = self.facts, Account(row.provider, row.account)
        facts.currency = row.currency
        facts.rows += 1
        facts.billing_periods.add(row.billing_period)
        facts.accounts.add(account)
        if row.category is not ChargeCategory.USAGE:
            facts.left_out[row.category] += 1
            return
        if not row.is_correction:
            facts.usage_days.add((account, row.starts_at.date()))
        if row.resource_id is None:
            facts.left_out["without ResourceId"] += 1

    def _add(self, row: FocusRow, resource_id: str) -> None:
        day = row.starts_at.date()
        key = CostKey(
            row.billing_period,
            row.provider,
            row.account,
            row.region,
            resource_id,
            day,
            _kind(row),
            row.sku_id,
            row.sku_price_id,
            row.pricing_category,
            row.unit,
        )
        new = DailyCost(key, row.quantity, row.effective_cost, row.billed_cost, row.list_cost, row.contracted_cost, 1)
        old = self._open.get(key)
        self._open[key] = new if old is None else add(old, new)

    def _drain(self) -> list[DailyCost]:
        piece, self._open = list(self._open.values()), {}
        return piece


def add(one: DailyCost, other: DailyCost) -> DailyCost:
    """The sum of two costs with the same key, exactly."""
    contracted = (
        None
        if one.contracted_cost is None or other.contracted_cost is None
        else _add(one.contracted_cost, other.contracted_cost)
    )
    return DailyCost(
        one.key,
        _add(one.quantity, other.quantity),
        _add(one.effective_cost, other.effective_cost),
        _add(one.billed_cost, other.billed_cost),
        _add(one.list_cost, other.list_cost),
        contracted,
        one.rows + other.rows,
    )


def _kind(row: FocusRow) -> CostKind:
    if row.is_correction:
        return CostKind.CORRECTION
    midnight = datetime.combine(row.starts_at.date() + _DAY, datetime.min.time(), UTC)
    return CostKind.SPANNING if row.ends_at > midnight else CostKind.USAGE
