"""Holds the documents of a receipt against each other: one action, one plan, one resource, one window, one result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

from recoup_verify.documents import Disproved
from recoup_verify.receipts.papers import Papers, moment_of
from recoup_verify.savings.documents import METHOD, check_documents, window_days
from recoup_verify.savings.rows import day_of

_ONE_DAY = timedelta(days=1)
# The steps of each kind of action, in order. Of other kinds it can't be told here whether their steps are all there.
STEPS: Mapping[str, tuple[str, ...]] = {
    "aws.ebs.delete_volume": ("create_snapshot", "delete_volume"),
    "aws.ebs.convert_gp3": ("modify_volume",),
    "aws.ec2.release_address": ("release_address",),
}
_SNAPSHOT_STEP = "create_snapshot"
# What must hold, and what is wrong where it doesn't; a rule may rest on those before it.
Rules = Iterator[tuple[bool, str]]


def check_agreement(papers: Papers) -> None:
    """Raise Disproved unless the documents agree."""
    check_documents(papers.baseline, papers.measurement)
    for rules in (_plan, _execution, _window, _gone, _leakage, _result):
        for holds, otherwise in rules(papers):
            if not holds:
                raise Disproved(otherwise)


def _plan(papers: Papers) -> Rules:
    _, receipt, plan, _, measurement = papers
    for name in ("organization_id", "action_id", "action_type", "resource"):
        yield plan[name] == receipt[name], f"plan: its {name} isn't the receipt's"
    planned, said = plan["measurement"], measurement["estimate"]
    yield planned["method"] == METHOD, "plan: its method isn't the receipt's"
    yield planned["baseline_sha256"] == receipt["baseline_sha256"], "plan: it was made on another baseline"
    gone = planned["removes_resource"] == measurement["expected_gone"]
    yield gone, "measurement: expected_gone isn't what was planned"
    windows = [days for days in planned["windows_days"] if type(days) is int]
    offered = receipt["days"] in windows and windows == planned["windows_days"]
    yield offered, "receipt: its days are none of the plan's windows"
    estimate = planned["estimate"]
    same = _amount(estimate["amount"]) == _amount(said["amount"]) and estimate["currency"] == said["currency"]
    yield same, "measurement: its estimate isn't the plan's"


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or len(text) > 62:
        raise Disproved("plan: its estimate isn't an amount")
    return amount


def _execution(papers: Papers) -> Rules:
    receipt, steps = papers.receipt, papers.steps
    yield bool(receipt["approvals"] and steps), "receipt: it names no approval or no step"
    confirmed = receipt["execution"]["executed_at"] == steps[-1]["confirmed_at"]
    yield confirmed, "receipt: executed_at isn't when the last step was confirmed"
    names, kind = tuple(step["name"] for step in steps), receipt["action_type"]
    yield names == STEPS.get(kind, names), f"receipt: its steps aren't those of {kind}"
    yield receipt["method"] == METHOD, "receipt: its method is another"


def _window(papers: Papers) -> Rules:
    _, receipt, _, baseline, measurement = papers
    yield baseline["resource"] == receipt["resource"], "baseline: its resource isn't the receipt's"
    # The window is never chosen; midnight may have come between the making of the plan and its request.
    requested = moment_of(receipt["requested"]["at"], "receipt: requested.at").date()
    before = requested - day_of(baseline["through_day"], "baseline: through_day")
    yield before in (_ONE_DAY, 2 * _ONE_DAY), "baseline: through_day isn't the day before the request"
    for name in ("plan_sha256", "baseline_sha256", "resource", "days"):
        its = name.replace("plan_sha256", "plan_hash")
        yield measurement[its] == receipt[name], f"measurement: its {its} isn't the receipt's"
    executed = moment_of(receipt["execution"]["executed_at"], "receipt: executed_at").date()
    window = window_days(measurement)
    yield window[0] == executed + _ONE_DAY, "measurement: from_day isn't the day after the execution"
    over = datetime.combine(window[-1] + _ONE_DAY, datetime.min.time(), UTC)
    decided = moment_of(receipt["decided"]["at"], "receipt: decided.at")
    yield decided >= over, "receipt: it was decided before the window was over"


def _gone(papers: Papers) -> Rules:
    measurement, receipt = papers.measurement, papers.receipt
    if not measurement["confirmed_at"]:
        yield not measurement["confirmed_gone"], "measurement: it doesn't say when the resource was confirmed gone"
        return
    confirmed = moment_of(measurement["confirmed_at"], "measurement: confirmed_at", seconds=True)
    intended = moment_of(papers.steps[-1]["intended_at"], "receipt: intended_at").replace(microsecond=0)
    decided = moment_of(receipt["decided"]["at"], "receipt: decided.at")
    in_time = intended <= confirmed <= decided or not measurement["confirmed_gone"]
    yield in_time, "measurement: it was confirmed gone before it was removed, or after the decision"


def _leakage(papers: Papers) -> Rules:
    """A snapshot that an action left behind costs money: leaving it out would claim that as saved."""
    netted = {leak["resource"].get("id") for leak in papers.measurement["leakage"]}
    for step in papers.steps:
        if step["name"] == _SNAPSHOT_STEP:
            made = step["result_id"]
            yield made in netted, f"measurement: what the snapshot {made[:80]} cost isn't netted"


def _result(papers: Papers) -> Rules:
    receipt, measurement = papers.receipt, papers.measurement
    result, currency = measurement["result"], measurement["currency"]
    for name in ("economic", "cash"):
        same = receipt[name] == {"amount": result[name], "currency": currency}
        yield same, f"receipt: {name} isn't the measurement's"
    interval = {"low": result["interval_low"], "high": result["interval_high"]}
    yield receipt["interval"] == interval, "receipt: its interval isn't the measurement's"
    yield receipt["decision"] == result["decision"], "receipt: its decision isn't the measurement's"
    yield receipt["provisional"] == measurement["provisional"], "receipt: provisional isn't the measurement's"
