"""The decision of METHOD.md: the first rule that applies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from decimal import Context, Decimal, Inexact, localcontext
from typing import Any, NamedTuple

from recoup_verify.savings.bootstrap import Interval, interval
from recoup_verify.savings.method import MEASURES, Day, Evidence, a12, arithmetic, daily, model, plain

_STANDARD = "Standard"
_REBOUND, _ENOUGH = Decimal("0.1"), Decimal("0.8")
# What is compared is compared exactly: here, no digit is ever dropped.
_EXACTLY = Context(prec=1_000, traps=[Inexact])


class Circumstances(NamedTuple):
    """What else the decision rests on. `is_late`: a day that is missing by now won't come any more."""

    plan_hash: str
    estimate: Decimal
    complete_days: frozenset[date]
    same_currency: bool
    spanning: bool
    expected_gone: bool
    confirmed_gone: bool
    is_late: bool


def result_of(evidence: Evidence, given: Circumstances) -> dict[str, Any]:
    """The result as measurements write it, but for the explanation. Raises ArithmeticError on absurd numbers."""
    with arithmetic():
        judged = model(evidence)
        common = {"cv_rmse": judged.text, "model": judged.name}
        if not _is_complete(evidence, given):
            return {**_without_amounts("INCONCLUSIVE" if given.is_late else "PENDING"), **common}
        if not given.same_currency:
            return {**_without_amounts("INCONCLUSIVE"), **common}
        return {**_with_amounts(evidence, given, judged.name), **common}


def _without_amounts(decision: str) -> dict[str, Any]:
    names = ("economic", "cash", "list", "interval_low", "interval_high")
    return {"decision": decision, **dict.fromkeys(names, ""), "daily": []}


def _with_amounts(evidence: Evidence, given: Circumstances, model_name: str) -> dict[str, Any]:
    costs = evidence.costs()
    days = {measure: daily(evidence, costs, measure) for measure in MEASURES}
    amounts = {measure: a12(sum((day.saving for day in days[measure]), Decimal(0))) for measure in MEASURES}
    bounds, economic = interval(evidence, costs, given.plan_hash), days["effective"]
    if given.spanning or _is_committed(evidence) or model_name == "UNFIT" or _lacks_a_row(evidence, given):
        decision = "INCONCLUSIVE"
    elif _is_regressed(economic, given):
        decision = "REGRESSED"
    else:
        decision = _by_amount(amounts["effective"], bounds, given.estimate, len(economic))
    return {
        "decision": decision,
        "economic": plain(amounts["effective"]),
        "cash": plain(amounts["billed"]),
        "list": plain(amounts["list"]),
        "interval_low": plain(bounds.low),
        "interval_high": plain(bounds.high),
        "daily": [_written(day) for day in economic],
    }


def _written(day: Day) -> Mapping[str, str]:
    figures = {"counterfactual": day.counterfactual, "actual": day.actual, "leakage": day.leakage}
    return {"day": day.day.isoformat(), **{name: plain(a12(figure)) for name, figure in figures.items()}}


def _is_complete(evidence: Evidence, given: Circumstances) -> bool:
    return given.complete_days.issuperset(evidence.window)


def _lacks_a_row(evidence: Evidence, given: Circumstances) -> bool:
    """An absent row isn't $0, unless the resource is gone as it was meant to be."""
    missing = set(evidence.window) - {row.day for row in evidence.rows}
    return bool(missing) and not (given.expected_gone and given.confirmed_gone)


def _is_committed(evidence: Evidence) -> bool:
    return any(row.line.pricing_category != _STANDARD for row in (*evidence.baseline_rows, *evidence.rows))


def _is_regressed(days: Sequence[Day], given: Circumstances) -> bool:
    with localcontext(_EXACTLY):
        if given.expected_gone:
            return not given.confirmed_gone or any(day.actual > _REBOUND * day.counterfactual for day in days)
        # Means, of three days each and of all, without dividing.
        fallen = sum(day.saving for day in days[:3]) - sum(day.saving for day in days[-3:])
        return fallen * len(days) > _REBOUND * 3 * sum(day.counterfactual for day in days)


def _by_amount(economic: Decimal, bounds: Interval, estimate: Decimal, days: int) -> str:
    if bounds.high < 0:
        return "NEGATIVE"
    if bounds.low <= 0:
        return "NOT_REALIZED"
    with localcontext(_EXACTLY):
        return "PARTIAL" if economic * 365 < _ENOUGH * estimate * 12 * days else "VERIFIED"
