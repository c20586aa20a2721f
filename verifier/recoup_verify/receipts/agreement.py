"""Holds the documents of a receipt against each other: one action, one plan, one resource, one window, one result."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from recoup_verify.documents import Disproved
from recoup_verify.savings.papers import METHOD, Papers, moment_of
from recoup_verify.savings.rows import check_batches, currency_of, day_of, days_of

WINDOWS_DAYS = (7, 14, 30)
_MIN_BASELINE, _MAX_BASELINE, _BASELINE_REACH = 14, 28, timedelta(days=35)
_ONE_DAY = timedelta(days=1)
# The steps of each kind of action, in order. Of other kinds it can't be told here whether their steps are all there.
STEPS: Mapping[str, tuple[str, ...]] = {
    "aws.ebs.delete_volume": ("create_snapshot", "delete_volume"),
    "aws.ebs.convert_gp3": ("modify_volume",),
    "aws.ec2.release_address": ("release_address",),
}
_SNAPSHOT_STEP = "create_snapshot"


def check_agreement(papers: Papers) -> None:
    """Raise Disproved unless the documents agree."""
    _check_plan(papers)
    _check_execution(papers)
    _check_baseline(papers)
    _check_window(papers)
    _check_gone(papers)
    _check_leakage(papers)
    _check_batches(papers)
    _check_provisional(papers.measurement)
    _check_result(papers)


def _check_plan(papers: Papers) -> None:
    receipt, plan, measurement = papers.receipt, papers.plan, papers.measurement
    for name in ("organization_id", "action_id", "action_type", "resource"):
        _same(plan[name], receipt[name], f"plan: its {name} isn't the receipt's")
    planned = plan["measurement"]
    _same(planned["method"], METHOD, "plan: its method isn't the receipt's")
    _same(planned["baseline_sha256"], receipt["baseline_sha256"], "plan: it was made on another baseline")
    _same(
        planned["removes_resource"], measurement["expected_gone"], "measurement: expected_gone isn't what was planned"
    )
    if any(type(days) is not int for days in planned["windows_days"]) or receipt["days"] not in planned["windows_days"]:
        raise Disproved("receipt: its days are none of the plan's windows")
    estimate, said = planned["estimate"], measurement["estimate"]
    same = _amount(estimate["amount"]) == _amount(said["amount"]) and estimate["currency"] == said["currency"]
    _same(same, True, "measurement: its estimate isn't the plan's")


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise Disproved("plan: its estimate isn't an amount") from None
    if not amount.is_finite() or len(text) > 62:
        raise Disproved("plan: its estimate isn't an amount")
    return amount


def _check_execution(papers: Papers) -> None:
    receipt, steps = papers.receipt, papers.steps
    if not receipt["approvals"] or not steps:
        raise Disproved("receipt: it names no approval or no step")
    executed_at = receipt["execution"]["executed_at"]
    _same(executed_at, steps[-1]["confirmed_at"], "receipt: executed_at isn't when the last step was confirmed")
    names = tuple(step["name"] for step in steps)
    if names != STEPS.get(receipt["action_type"], names):
        raise Disproved(f"receipt: its steps aren't those of {receipt['action_type']}")
    _same(receipt["method"], METHOD, "receipt: its method is another")


def _check_baseline(papers: Papers) -> None:
    baseline, receipt = papers.baseline, papers.receipt
    _same(baseline["resource"], receipt["resource"], "baseline: its resource isn't the receipt's")
    through = day_of(baseline["through_day"], "baseline: through_day")
    days = days_of(baseline["days"], "baseline: its days")
    if not _MIN_BASELINE <= len(days) <= _MAX_BASELINE:
        raise Disproved(f"baseline: it must have {_MIN_BASELINE} to {_MAX_BASELINE} days")
    if days[-1] > through or days[0] <= through - _BASELINE_REACH:
        raise Disproved("baseline: its days must lie in the 35 days up to through_day")
    # The window is never chosen; midnight may have come between the making of the plan and its request.
    requested = moment_of(receipt["requested"]["at"], "receipt: requested.at").date()
    if requested - through not in (_ONE_DAY, 2 * _ONE_DAY):
        raise Disproved("baseline: through_day isn't the day before the request")


def _check_window(papers: Papers) -> None:
    receipt, measurement = papers.receipt, papers.measurement
    for name, other in (("plan_hash", "plan_sha256"), ("baseline_sha256", "baseline_sha256")):
        _same(measurement[name], receipt[other], f"measurement: its {name} isn't the receipt's")
    for name in ("resource", "days"):
        _same(measurement[name], receipt[name], f"measurement: its {name} isn't the receipt's")
    executed = moment_of(receipt["execution"]["executed_at"], "receipt: executed_at").date()
    window = window_days(measurement)
    if window[0] != executed + _ONE_DAY:
        raise Disproved("measurement: from_day isn't the day after the execution")
    if moment_of(receipt["decided"]["at"], "receipt: decided.at") < _midnight(window[-1] + _ONE_DAY):
        raise Disproved("receipt: it was decided before the window was over")


def window_days(measurement: Mapping[str, Any]) -> list[date]:
    """The days of the window, ascending. Raises Disproved."""
    start = day_of(measurement["from_day"], "measurement: from_day")
    end = day_of(measurement["to_day"], "measurement: to_day")
    if measurement["days"] not in WINDOWS_DAYS or (end - start).days + 1 != measurement["days"]:
        raise Disproved("measurement: its days aren't 7, 14 or 30 from from_day to to_day")
    return [start + timedelta(days=number) for number in range(measurement["days"])]


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _check_gone(papers: Papers) -> None:
    measurement, receipt = papers.measurement, papers.receipt
    if not measurement["confirmed_at"]:
        _same(measurement["confirmed_gone"], False, "measurement: it doesn't say when the resource was confirmed gone")
        return
    confirmed = moment_of(measurement["confirmed_at"], "measurement: confirmed_at", seconds=True)
    intended = moment_of(papers.steps[-1]["intended_at"], "receipt: intended_at").replace(microsecond=0)
    decided = moment_of(receipt["decided"]["at"], "receipt: decided.at")
    if measurement["confirmed_gone"] and not intended <= confirmed <= decided:
        raise Disproved("measurement: it was confirmed gone before it was removed, or after the decision")


def _check_leakage(papers: Papers) -> None:
    """A snapshot that an action left behind costs money: leaving it out would claim that as saved."""
    netted = {leak["resource"].get("id") for leak in papers.measurement["leakage"]}
    for step in papers.steps:
        if step["name"] == _SNAPSHOT_STEP and step["result_id"] not in netted:
            raise Disproved(f"measurement: what the snapshot {step['result_id'][:80]} cost isn't netted")


def _check_batches(papers: Papers) -> None:
    """All amounts are in the baseline's currency; that the window's bills may be in another, the method judges."""
    baseline, measurement = papers.baseline, papers.measurement
    for document, name in ((baseline, "baseline"), (measurement, "measurement")):
        check_batches(document["batches"], name)
    currency = currency_of(baseline["currency"], "baseline: currency")
    if any(batch["currency"] != currency for batch in baseline["batches"]):
        raise Disproved("baseline: a batch is in another currency than its rows")
    _same(measurement["currency"], currency, "measurement: its currency isn't the baseline's")
    _same(measurement["estimate"]["currency"], currency, "measurement: its estimate is in another currency")
    if not baseline["batches"] or (measurement["complete_days"] and not measurement["batches"]):
        raise Disproved("baseline or measurement: no batch that the bill came from is named")


def _check_provisional(measurement: Mapping[str, Any]) -> None:
    """A result is provisional while a billing period of its window is open, or has no bill yet and is waited for."""
    closed: dict[str, list[bool]] = {f"{day:%Y-%m}": [] for day in window_days(measurement)}
    for batch in measurement["batches"]:
        closed.setdefault(batch["billing_period"], []).append(batch["period_closed"])
    months = {f"{day:%Y-%m}" for day in window_days(measurement)}
    is_open = any(not closed[month] or not all(closed[month]) for month in months)
    is_open = is_open and not _is_given_up(measurement)
    _same(measurement["provisional"], is_open, "measurement: provisional isn't what its batches say")


def _is_given_up(measurement: Mapping[str, Any]) -> bool:
    """Whether days of the bill are missing for good; that it was late enough for it, the decision is checked for."""
    complete = set(days_of(measurement["complete_days"], "measurement: complete_days"))
    return measurement["result"]["decision"] == "INCONCLUSIVE" and not complete.issuperset(window_days(measurement))


def _check_result(papers: Papers) -> None:
    receipt, measurement = papers.receipt, papers.measurement
    result, currency = measurement["result"], measurement["currency"]
    for name in ("economic", "cash"):
        _same(receipt[name], {"amount": result[name], "currency": currency}, f"receipt: {name} isn't the measurement's")
    interval = {"low": result["interval_low"], "high": result["interval_high"]}
    _same(receipt["interval"], interval, "receipt: its interval isn't the measurement's")
    _same(receipt["decision"], result["decision"], "receipt: its decision isn't the measurement's")
    _same(receipt["provisional"], measurement["provisional"], "receipt: provisional isn't the measurement's")


def _same(one: Any, other: Any, otherwise: str) -> None:
    if one != other:
        raise Disproved(otherwise)
