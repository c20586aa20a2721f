"""What baseline days would have cost on other days, at given prices (verifier/METHOD.md, "Prices", "Counterfactual").

Prices come from the reporting period where it has any, so that a price cut isn't claimed as a saving.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import NamedTuple

from services.pricing.model.arithmetic import ZERO, days_in_month, plain
from services.pricing.model.rows import CostRow, Line, Sums, sums_of


class Measure(enum.StrEnum):
    """The three measures, never added to each other. The values are the fields that they go by."""

    ECONOMIC = "effective_cost"
    CASH = "billed_cost"
    LIST = "list_cost"


class PriceSource(enum.StrEnum):
    """Whose sums a line is priced with."""

    REPORTING = "REPORTING"
    BASELINE = "BASELINE"


class Price(NamedTuple):
    """The sums that a line's unit prices are made of: cost divided by quantity."""

    line: Line
    source: PriceSource
    sums: Sums

    def document(self) -> dict[str, str]:
        """The price as documents have it."""
        sums = {name: plain(value) for name, value in self.sums._asdict().items()}
        return {**self.line._asdict(), "source": self.source.value, **sums}


def prices_of(rows: Iterable[CostRow], reporting: Mapping[Line, Sums]) -> tuple[Price, ...]:
    """A price for each line of the baseline's rows: from the account's sums in the window, or else from the rows."""
    by_line: dict[Line, list[CostRow]] = defaultdict(list)
    for row in rows:
        by_line[row.line].append(row)
    return tuple(_price(line, by_line[line], reporting.get(line)) for line in sorted(by_line))


def _price(line: Line, own: Sequence[CostRow], reporting: Sums | None) -> Price:
    if reporting is not None and reporting.quantity > 0:
        return Price(line, PriceSource.REPORTING, reporting)
    return Price(line, PriceSource.BASELINE, sums_of(own))


class Counterfactual:
    """C_m(t, d): what the baseline day `t` would have cost on the day `d`. Made once for rows and prices."""

    def __init__(self, days: Sequence[date], rows: Iterable[CostRow], prices: Iterable[Price]) -> None:
        self.days = tuple(days)
        self._prices = tuple(prices)
        self._quantities: dict[date, dict[Line, Decimal]] = defaultdict(dict)
        for row in rows:
            self._quantities[row.day][row.line] = row.quantity
        # A cost depends on the later day only by the length of its month.
        self._known: dict[tuple[date, int, Measure], Decimal] = {}

    def cost(self, t: date, d: date, measure: Measure) -> Decimal:
        """C_m(t, d), within `exactly()`."""
        key = (t, days_in_month(d), measure)
        if key not in self._known:
            self._known[key] = sum((self._term(price, t, d, measure) for price in self._prices), ZERO)
        return self._known[key]

    def _term(self, price: Price, t: date, d: date, measure: Measure) -> Decimal:
        quantity = self._quantities[t].get(price.line, ZERO)
        if not price.sums.quantity:
            return ZERO
        if price.line.is_by_the_month:
            quantity = quantity * days_in_month(t) / days_in_month(d)
        cost: Decimal = getattr(price.sums, measure.value)
        return quantity * cost / price.sums.quantity

    def pool(self, d: date) -> tuple[date, ...]:
        """The baseline days with the weekday of `d`; all of them where there is none."""
        return pool(self.days, d)


def pool(days: Sequence[date], d: date) -> tuple[date, ...]:
    """Those of `days` with the weekday of `d`; all of them where there is none."""
    return tuple(day for day in days if day.weekday() == d.weekday()) or tuple(days)
