"""Says in a sentence or two, for somebody in finance, what a measurement found and what it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import NamedTuple

from services.pricing.model.arithmetic import ZERO, plain
from services.pricing.model.decision import (
    PATIENCE,
    Cause,
    DailySaving,
    Decision,
    Evidence,
    Verdict,
    estimate_for,
)

_CENT = Decimal("0.01")
AMOUNT_NAMES = ("economic", "cash", "list", "interval_low", "interval_high")


class Amounts(NamedTuple):
    """The saving of a window by each measure, and the interval of the economic one; 12 places each."""

    economic: Decimal
    cash: Decimal
    list: Decimal
    low: Decimal
    high: Decimal

    def document(self) -> dict[str, str]:
        """As documents have them."""
        return {name: plain(value) for name, value in zip(AMOUNT_NAMES, self, strict=True)}


def explain(
    verdict: Verdict,
    evidence: Evidence,
    amounts: Amounts | None,
    daily: Sequence[DailySaving],
    monthly_estimate: Decimal,
) -> str:
    """The explanation of a verdict. Amounts are shown in hundredths, rounded once, half-even."""
    if verdict.cause:
        return _obstacle(verdict, evidence)
    assert amounts is not None  # A verdict without a cause is a statement about amounts.
    span, currency = _span(evidence), evidence.currency
    spent = sum((day.actual + day.leakage for day in daily), ZERO)
    would = sum((day.counterfactual for day in daily), ZERO)
    basis = f"{span}, it would have cost {_shown(would)} {currency} and did cost {_shown(spent)} {currency}"
    interval = f"with 90 % confidence from {_shown(amounts.low)} to {_shown(amounts.high)} {currency}"
    saving = f"the saving of {_shown(amounts.economic)} {currency}"
    expected = f"{_shown(estimate_for(monthly_estimate, len(daily)))} {currency}"
    if verdict.decision is Decision.VERIFIED:
        return f"{basis}: {saving} ({interval}) is real."
    if verdict.decision is Decision.PARTIAL:
        return f"{basis}: {saving} ({interval}) is real, but less than 80 % of the {expected} that were estimated."
    if verdict.decision is Decision.NOT_REALIZED:
        return f"{basis}. {saving.capitalize()} ({interval}) can't be told from nothing."
    if verdict.decision is Decision.NEGATIVE:
        return f"{basis}: it costs more than before ({interval})."
    return f"{basis}. {_regression(evidence)}"


def _regression(evidence: Evidence) -> str:
    if not evidence.expected_gone:
        return "The saving of the last days is much smaller than that of the first: the cost came back."
    if not evidence.confirmed_gone:
        return "The resource was to be removed and still exists."
    return "The resource was to be removed, and its cost came back."


def _obstacle(verdict: Verdict, evidence: Evidence) -> str:
    span = _span(evidence)
    if verdict.cause is Cause.DAY_MISSING:
        missing = len(set(evidence.window) - evidence.complete_days)
        lack = f"{span}: the bill doesn't completely cover {missing} of the days"
        if verdict.decision is Decision.PENDING:
            return f"{lack} yet. It is measured when it does."
        return f"{lack}, {PATIENCE.days} days after their end. Nothing can be said about the saving."
    return f"{span}: nothing certain can be said about the saving. {_CAUSES[verdict.cause]}"


_CAUSES = {
    Cause.CURRENCY: "The bill is in another currency than before the action.",
    Cause.SPANNING: "A charge spans several days, and splitting it would invent daily figures.",
    Cause.COMMITMENT: "A commitment or another special price covers the usage, so that the bill as a whole may not"
    " have become smaller; that has to be measured for all that the commitment covers.",
    Cause.UNFIT: "Before the action, the cost varied too much from day to day to be predicted.",
    Cause.ROW_MISSING: "On some days the bill has no charge of the resource, and an absent charge isn't a cost of zero"
    " for a resource that should exist or wasn't seen to be gone.",
}


def _span(evidence: Evidence) -> str:
    return f"Over {len(evidence.window)} days from {evidence.window[0]} to {evidence.window[-1]}"


def _shown(amount: Decimal) -> str:
    shown = amount.quantize(_CENT, ROUND_HALF_EVEN)
    return f"{shown if shown else abs(shown):f}"
