"""Bills by hand for the verifier's tests: rows, prices, inputs, and cases whose amounts were worked out on paper.

Nothing here is computed by what is tested.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

Document = dict[str, Any]

EXECUTED = datetime(2026, 3, 10, 12, 30, 0, 250_000, UTC)
_DAY = timedelta(days=1)


def days(first: date, count: int) -> list[date]:
    """So many days from the first on."""
    return [first + _DAY * number for number in range(count)]


def row(day: date, quantity: str, effective: str, **other: str) -> Document:
    """One row of a bill; billed and list cost are the effective one's unless said."""
    line = {"sku_id": "gp2", "sku_price_id": "gp2-1", "pricing_category": "Standard", "unit": "GB-Hours"}
    costs = {"effective_cost": effective, "billed_cost": effective, "list_cost": effective, "contracted_cost": ""}
    return {"day": day.isoformat(), **line, "quantity": quantity, **costs, **other}


def price(quantity: str, effective: str, source: str = "REPORTING", **other: str) -> Document:
    """The sums behind the unit price of a line."""
    found = row(EXECUTED.date(), quantity, effective, **other)
    return {name: value for name, value in found.items() if name not in ("day", "contracted_cost")} | {"source": source}


def batch(period: str, number: int, *, closed: bool = True, **other: str) -> Document:
    """An input."""
    return {
        "batch_id": str(UUID(int=100 + number)),
        "billing_period": period,
        "sha256": hashlib.sha256(f"{period}/{number}".encode()).hexdigest(),
        "provenance": "PROVIDER_FETCHED",
        "object": f"s3://bill/{period}.parquet",
        "object_version": "v1",
        "rows": 1000,
        "currency": "USD",
        "complete_through": f"{period}-28",
        "period_closed": closed,
        **other,
    }


def resource(kind: str, name: str) -> Document:
    place = {"provider": "aws", "partition": "aws", "account": "111122223333", "region": "eu-west-1"}
    return {**place, "type": kind, "id": name}


def periods(covered: list[date]) -> list[str]:
    return sorted({f"{day:%Y-%m}" for day in covered})


@dataclass
class Case:
    """What happened to one resource, and what the method must make of it. `result` lacks the explanation."""

    baseline_rows: list[Document]
    rows: list[Document]
    prices: list[Document]
    result: Document
    action_type: str = "aws.ebs.delete_volume"
    steps: tuple[str, ...] = ("create_snapshot", "delete_volume")
    expected_gone: bool = True
    confirmed_gone: bool = True
    estimate: str = "30"
    window_days: int = 7
    baseline_days: int = 28
    closed: bool = True
    currency: str = "USD"  # of the bills of the window
    spanning: bool = False
    leakage: list[Document] = field(default_factory=list)
    missing: int = 0

    @property
    def before(self) -> list[date]:
        """The baseline's days: up to the third day before the execution."""
        return days(EXECUTED.date() - _DAY * (self.baseline_days + 2), self.baseline_days)

    @property
    def window(self) -> list[date]:
        """The window's days."""
        return days(EXECUTED.date() + _DAY, self.window_days)


def _result(decision: str, amounts: tuple[str, str, str], interval: tuple[str, str], daily: list[Document]) -> Document:
    economic, cash, listed = amounts
    return {
        "decision": decision,
        "economic": economic,
        "cash": cash,
        "list": listed,
        "interval_low": interval[0],
        "interval_high": interval[1],
        "cv_rmse": "0",
        "model": "STABLE",
        "daily": daily,
    }


def _daily(case: Case, counterfactual: str, actual: str, leakage: str) -> list[Document]:
    figures = {"counterfactual": counterfactual, "actual": actual, "leakage": leakage}
    return [{"day": day.isoformat(), **figures} for day in case.window]


def deleted_volume(decision: str = "VERIFIED", **other: Any) -> Case:
    """A volume of $10 a day; a price cut makes it worth $9; gone, but for a snapshot of $0.50: 7 × $8.50."""
    case = Case([], [], [], {}, **other)
    costs = {"billed_cost": "8", "list_cost": "12"}
    case.baseline_rows = [row(day, "2400", "10", **costs) for day in case.before]
    case.prices = [price("24000", "90", billed_cost="72", list_cost="120")]
    case.leakage = [row(day, "120", "0.5", sku_id="snapshot", sku_price_id="s-1") for day in case.window]
    case.result = _result(decision, ("59.5", "46.9", "80.5"), ("59.5", "59.5"), _daily(case, "9", "0", "0.5"))
    return case


def deletion_that_failed() -> Case:
    """The same volume, which is still there and costs $2 a day: 7 × $6.50, and nothing that counts."""
    case = deleted_volume("REGRESSED", confirmed_gone=False)
    case.rows = [row(day, "480", "2", billed_cost="1", list_cost="3") for day in case.window]
    case.result = _result("REGRESSED", ("45.5", "39.9", "59.5"), ("45.5", "45.5"), _daily(case, "9", "2", "0.5"))
    return case


def unclear(case: Case) -> Case:
    """The same without amounts: days are missing, or the currency is another."""
    case.result = _result("INCONCLUSIVE", ("", "", ""), ("", ""), [])
    return case


def conversion(decision: str, actual: str, saved: str, **other: Any) -> Case:
    """868 GiB of gp2 at $0.10 a GiB and month: $2.80 a day in March, whatever the length of the baseline's months."""
    case = Case(
        [], [], [], {}, "aws.ebs.convert_gp3", ("modify_volume",), False, False, **{"estimate": "17.36", **other}
    )
    monthly = {"unit": "GB-Month"}
    case.baseline_rows = [
        row(day, "31", "3.1", **monthly) if day.month == 2 else row(day, "28", "2.8", **monthly) for day in case.before
    ]
    case.rows = [row(day, "28", actual, sku_id="gp3", sku_price_id="gp3-1", **monthly) for day in case.window]
    case.prices = [price("1000", "100", **monthly)]
    case.leakage = []
    case.result = _result(decision, (saved,) * 3, (saved,) * 2, _daily(case, "2.8", actual, "0"))
    return case


def conversion_over_two_months() -> Case:
    """21 days of March at $2.80 − $2.24, 9 of April at 868 / 30 × $0.10 − $2.31, which has no end and is cut to A12."""
    case = conversion("VERIFIED", "2.24", "17.009999999997", window_days=30)
    for each, day in zip(case.rows, case.result["daily"], strict=True):
        if each["day"].startswith("2026-04"):
            each.update(dict.fromkeys(("effective_cost", "billed_cost", "list_cost"), "2.31"))
            day.update({"counterfactual": "2.893333333333", "actual": "2.31"})
    return case


def fading_conversion() -> Case:
    """Saves $0.56 a day at first and $0.10 in the end: 4 × $0.56 + 3 × $0.10."""
    case = conversion("REGRESSED", "2.24", "2.54")
    for each, day in list(zip(case.rows, case.result["daily"], strict=True))[-3:]:
        each.update(dict.fromkeys(("effective_cost", "billed_cost", "list_cost"), "2.7"))
        day.update({"actual": "2.7"})
    return case


def conversion_with_a_hole() -> Case:
    """A day without a row isn't $0: the figures are there (6 × $0.56 + $2.80), but they say nothing."""
    case = conversion("INCONCLUSIVE", "2.24", "6.16")
    case.rows.pop()
    case.result["daily"][-1]["actual"] = "0"
    return case


def variable_resource(low: str, high: str) -> Case:
    """$10 a day, $11 in the last week: predicted 10, so CV(RMSE) = 1 / 11; the medians are 10: 7 × $10."""
    case = deleted_volume()
    costs = ["11" if day in case.before[-7:] else "10" for day in case.before]
    case.baseline_rows = [row(day, cost, cost) for day, cost in zip(case.before, costs, strict=True)]
    case.prices, case.leakage = [price("1000", "1000")], []
    case.result = _result("VERIFIED", ("70", "70", "70"), (low, high), _daily(case, "10", "0", "0"))
    case.result |= {"cv_rmse": "0.0909", "model": "VARIABLE"}
    return case
