"""The two documents of METHOD.md, baseline and measurement: their shapes, and what must hold of days and bills."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from recoup_verify.documents import Disproved, shape
from recoup_verify.savings.rows import check_batches, currency_of, day_of, days_of

METHOD = "recoup-savings/1"
WINDOWS_DAYS = (7, 14, 30)
_MIN_BASELINE, _MAX_BASELINE, _BASELINE_REACH = 14, 28, timedelta(days=35)
_RESULT = shape(
    texts="decision explanation economic cash list interval_low interval_high cv_rmse model",
    daily=[shape(texts="day counterfactual actual leakage")],
)
BASELINE = shape(numbers="v", texts="method currency through_day", lists="days rows batches", objects="resource")
MEASUREMENT = shape(
    numbers="v days",
    texts="method plan_hash baseline_sha256 currency from_day to_day confirmed_at",
    flags="expected_gone confirmed_gone spanning provisional",
    lists="complete_days rows prices batches",
    objects="resource",
    estimate=shape(texts="amount currency"),
    leakage=[shape(objects="resource", lists="rows")],
    result=_RESULT,
)


def check_documents(baseline: Mapping[str, Any], measurement: Mapping[str, Any]) -> None:
    """Raise Disproved, CannotTell unless days, batches and currencies of the two can be."""
    _check_baseline(baseline)
    for document, name in ((baseline, "baseline"), (measurement, "measurement")):
        check_batches(document["batches"], name)
    # All amounts are in the baseline's currency; that the window's bills may be in another, the method judges.
    currency = currency_of(baseline["currency"], "baseline: currency")
    if any(batch["currency"] != currency for batch in baseline["batches"]):
        raise Disproved("baseline: a batch is in another currency than its rows")
    if measurement["currency"] != currency:
        raise Disproved("measurement: its currency isn't the baseline's")
    if measurement["estimate"]["currency"] != currency:
        raise Disproved("measurement: its estimate is in another currency")
    if not baseline["batches"] or (measurement["complete_days"] and not measurement["batches"]):
        raise Disproved("baseline or measurement: no batch that the bill came from is named")
    if measurement["provisional"] != _is_provisional(measurement):
        raise Disproved("measurement: provisional isn't what its batches say")


def _check_baseline(baseline: Mapping[str, Any]) -> None:
    through = day_of(baseline["through_day"], "baseline: through_day")
    days = days_of(baseline["days"], "baseline: its days")
    if not _MIN_BASELINE <= len(days) <= _MAX_BASELINE:
        raise Disproved(f"baseline: it must have {_MIN_BASELINE} to {_MAX_BASELINE} days")
    if days[-1] > through or days[0] <= through - _BASELINE_REACH:
        raise Disproved("baseline: its days must lie in the 35 days up to through_day")


def window_days(measurement: Mapping[str, Any]) -> list[date]:
    """The days of the window, ascending. Raises Disproved."""
    start = day_of(measurement["from_day"], "measurement: from_day")
    end = day_of(measurement["to_day"], "measurement: to_day")
    if measurement["days"] not in WINDOWS_DAYS or (end - start).days + 1 != measurement["days"]:
        raise Disproved("measurement: its days aren't 7, 14 or 30 from from_day to to_day")
    return [start + timedelta(days=number) for number in range(measurement["days"])]


def complete_days(measurement: Mapping[str, Any]) -> frozenset[date]:
    """The days that the bill covers completely. Raises Disproved."""
    return frozenset(days_of(measurement["complete_days"], "measurement: complete_days"))


def _is_provisional(measurement: Mapping[str, Any]) -> bool:
    """A result is provisional while a billing period of its window is open, or has no bill yet and is waited for."""
    window, closed = window_days(measurement), dict[str, list[bool]]()
    for batch in measurement["batches"]:
        closed.setdefault(batch["billing_period"], []).append(batch["period_closed"])
    is_open = any(not all(closed.get(month, [False])) for month in {f"{day:%Y-%m}" for day in window})
    # Days may be missing for good; that it was late enough for it, the decision is checked for.
    is_given_up = not complete_days(measurement).issuperset(window)
    return is_open and not (is_given_up and measurement["result"]["decision"] == "INCONCLUSIVE")
