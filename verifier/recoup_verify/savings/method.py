"""The method of METHOD.md, from rows to amounts: prices, counterfactual, saving, model check. Pure arithmetic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow, localcontext
from typing import NamedTuple

from recoup_verify.savings.rows import Line, Price, Row, Sums

MEASURES = ("effective", "billed", "list")
_CONTEXT = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow])
_TWELVE_PLACES, _FOUR_PLACES, _ZERO = Decimal("1e-12"), Decimal("1e-4"), Decimal(0)
_NOTHING = Sums(_ZERO, _ZERO, _ZERO, _ZERO)
_HOLDOUT = 7
_STABLE, _VARIABLE = Decimal("0.05"), Decimal("0.25")


@contextmanager
def arithmetic() -> Iterator[None]:
    """60 significant digits, half-even; what no such number can hold is an ArithmeticError."""
    with localcontext(_CONTEXT):
        yield


def a12(value: Decimal) -> Decimal:
    """Rounded to the 12 places that results have."""
    return value.quantize(_TWELVE_PLACES)


def plain(value: Decimal) -> str:
    """A decimal in its one spelling: no exponent, no zeros at the end of a fraction, "0" for zero."""
    return format(value.normalize(), "f") if value else "0"


def median(values: Iterable[Decimal]) -> Decimal:
    """The middle one; the mean of the two in the middle of an even count."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def pool(days: Sequence[date], weekday: int) -> list[date]:
    """The days with that weekday; all of them where there is none."""
    return [day for day in days if day.weekday() == weekday] or list(days)


def total(rows: Iterable[Row]) -> dict[Line, Sums]:
    """The sums of each line."""
    found: dict[Line, Sums] = {}
    for row in rows:
        old = found.get(row.line, _NOTHING)
        found[row.line] = Sums(*(one + other for one, other in zip(old, row.sums, strict=True)))
    return found


class Costs:
    """What a baseline day would have cost on another day, at given prices: C(t, d) of METHOD.md."""

    def __init__(self, rows: Sequence[Row], prices: Mapping[Line, Sums]) -> None:
        self._prices = prices
        self._rows: dict[date, list[Row]] = {}
        for row in rows:
            self._rows.setdefault(row.day, []).append(row)
        self._known: dict[tuple[date, int, str], Decimal] = {}

    def of(self, t: date, d: date, measure: str) -> Decimal:
        """C(t, d) by a measure; of `d` only the length of its month counts."""
        key = (t, _days_in_month(d), measure)
        if key not in self._known:
            terms = (self._term(row, t, d, measure) for row in self._rows.get(t, ()))
            self._known[key] = sum(terms, _ZERO)
        return self._known[key]

    def _term(self, row: Row, t: date, d: date, measure: str) -> Decimal:
        price = self._prices[row.line]
        if price.quantity == 0:
            return _ZERO
        quantity = row.sums.quantity
        if _is_monthly(row.line.unit):
            quantity = quantity * _days_in_month(t) / _days_in_month(d)
        cost: Decimal = getattr(price, measure)
        return quantity * cost / price.quantity


def _days_in_month(day: date) -> int:
    return (date(day.year + day.month // 12, day.month % 12 + 1, 1) - day.replace(day=1)).days


def _is_monthly(unit: str) -> bool:
    return unit.lower().endswith(("month", "months"))


class Evidence(NamedTuple):
    """What the method rests on: the frozen baseline, and what was observed in the window."""

    baseline_days: Sequence[date]
    baseline_rows: Sequence[Row]
    window: Sequence[date]
    rows: Sequence[Row]
    leakage: Sequence[Row]
    prices: Mapping[Line, Price]

    def costs(self) -> Costs:
        """The baseline at the prices of the reporting period."""
        return Costs(self.baseline_rows, {line: price.sums for line, price in self.prices.items()})


class Day(NamedTuple):
    """One window day by one measure. The counterfactual is A12, the others are as the rows have them."""

    day: date
    counterfactual: Decimal
    actual: Decimal
    leakage: Decimal

    @property
    def saving(self) -> Decimal:
        """What wasn't spent."""
        return self.counterfactual - self.actual - self.leakage


def daily(evidence: Evidence, costs: Costs, measure: str) -> list[Day]:
    """Each day of the window by a measure."""
    actual, leakage = by_day(evidence.rows, measure), by_day(evidence.leakage, measure)
    found = []
    for d in evidence.window:
        drawn = (costs.of(t, d, measure) for t in pool(evidence.baseline_days, d.weekday()))
        found.append(Day(d, a12(median(drawn)), actual.get(d, _ZERO), leakage.get(d, _ZERO)))
    return found


def by_day(rows: Iterable[Row], measure: str) -> dict[date, Decimal]:
    """What the rows cost a day."""
    found: dict[date, Decimal] = {}
    for row in rows:
        cost: Decimal = getattr(row.sums, measure)
        found[row.day] = found.get(row.day, _ZERO) + cost
    return found


class Model(NamedTuple):
    """How well the baseline predicts itself. `cv_rmse` is None where it is infinite."""

    cv_rmse: Decimal | None

    @property
    def name(self) -> str:
        """STABLE, VARIABLE or UNFIT; judged before rounding."""
        if self.cv_rmse is None or self.cv_rmse >= _VARIABLE:
            return "UNFIT"
        return "STABLE" if self.cv_rmse < _STABLE else "VARIABLE"

    @property
    def text(self) -> str:
        """With four places; empty where infinite."""
        return "" if self.cv_rmse is None else plain(self.cv_rmse.quantize(_FOUR_PLACES))


def model(evidence: Evidence) -> Model:
    """Predict the last 7 baseline days from those before them, at the baseline's own prices."""
    training, holdout = evidence.baseline_days[:-_HOLDOUT], evidence.baseline_days[-_HOLDOUT:]
    costs = Costs(evidence.baseline_rows, total(evidence.baseline_rows))
    observed = [costs.of(d, d, "effective") for d in holdout]
    predicted = [median(costs.of(t, d, "effective") for t in pool(training, d.weekday())) for d in holdout]
    mean = sum(observed, _ZERO) / len(holdout)
    if mean <= 0:
        return Model(None if any(observed) or any(predicted) else _ZERO)
    squares = [(one - other) ** 2 for one, other in zip(observed, predicted, strict=True)]
    return Model((sum(squares, _ZERO) / len(holdout)).sqrt() / mean)
