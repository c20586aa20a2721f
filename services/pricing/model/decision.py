"""What a measured window means: the first rule that applies decides (verifier/METHOD.md, "Decision")."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import NamedTuple

from services.pricing.model.arithmetic import ZERO

PATIENCE = timedelta(days=45)
REBOUND = Decimal("0.1")
PARTIAL_BELOW = Decimal("0.8")
_EDGE_DAYS = 3
_DAYS_A_YEAR = 365
_STANDARD = "Standard"


class Decision(enum.StrEnum):
    """What a checkpoint found."""

    VERIFIED = "VERIFIED"
    PARTIAL = "PARTIAL"
    NOT_REALIZED = "NOT_REALIZED"
    NEGATIVE = "NEGATIVE"
    REGRESSED = "REGRESSED"
    INCONCLUSIVE = "INCONCLUSIVE"
    PENDING = "PENDING"


class Cause(enum.StrEnum):
    """Why no statement is possible."""

    NONE = ""
    DAY_MISSING = "DAY_MISSING"
    CURRENCY = "CURRENCY"
    SPANNING = "SPANNING"
    COMMITMENT = "COMMITMENT"
    UNFIT = "UNFIT"
    ROW_MISSING = "ROW_MISSING"

    @property
    def leaves_no_amounts(self) -> bool:
        """Whether the cause is such that no amount may be given at all."""
        return self in (Cause.DAY_MISSING, Cause.CURRENCY)


class Verdict(NamedTuple):
    """A decision, and the cause of one that isn't a statement."""

    decision: Decision
    cause: Cause = Cause.NONE


class DailySaving(NamedTuple):
    """One window day by the economic measure."""

    day: date
    counterfactual: Decimal
    actual: Decimal
    leakage: Decimal

    @property
    def saving(self) -> Decimal:
        """What was saved on the day."""
        return self.counterfactual - self.actual - self.leakage


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a decision rests on, apart from the amounts."""

    window: Sequence[date]
    complete_days: frozenset[date]
    days_with_rows: frozenset[date]
    currency: str
    currencies: frozenset[str]
    spanning: bool
    pricing_categories: frozenset[str]
    is_fit: bool
    expected_gone: bool
    confirmed_gone: bool


def obstacle(evidence: Evidence, today: date) -> Verdict | None:
    """The decision where the data allows no statement: PENDING or INCONCLUSIVE; None where it does."""
    if not evidence.complete_days.issuperset(evidence.window):
        late = today - evidence.window[-1] >= PATIENCE
        return Verdict(Decision.INCONCLUSIVE if late else Decision.PENDING, Cause.DAY_MISSING)
    cause = _cause(evidence)
    return Verdict(Decision.INCONCLUSIVE, cause) if cause else None


def _cause(evidence: Evidence) -> Cause:
    if evidence.currencies - {evidence.currency}:
        return Cause.CURRENCY
    if evidence.spanning:
        return Cause.SPANNING
    if evidence.pricing_categories - {_STANDARD}:
        return Cause.COMMITMENT
    if not evidence.is_fit:
        return Cause.UNFIT
    # An absent row is $0 only for a resource that was meant to go, and was seen to be gone.
    if not (evidence.expected_gone and evidence.confirmed_gone) and set(evidence.window) - evidence.days_with_rows:
        return Cause.ROW_MISSING
    return Cause.NONE


def judge(
    evidence: Evidence,
    daily: Sequence[DailySaving],
    *,
    economic: Decimal,
    low: Decimal,
    high: Decimal,
    monthly_estimate: Decimal,
) -> Verdict:
    """The decision of a window that nothing stands in the way of, within `exactly()`."""
    if _came_back(evidence, daily) if evidence.expected_gone else _fades(daily):
        return Verdict(Decision.REGRESSED)
    if high < 0:
        return Verdict(Decision.NEGATIVE)
    if low <= 0:
        return Verdict(Decision.NOT_REALIZED)
    # Nothing is divided before it is compared: a tie mustn't hang on a rounding.
    if economic * _DAYS_A_YEAR < PARTIAL_BELOW * monthly_estimate * 12 * len(daily):
        return Verdict(Decision.PARTIAL)
    return Verdict(Decision.VERIFIED)


def estimate_for(monthly: Decimal, days: int) -> Decimal:
    """A monthly estimate for so many days of a year of 365."""
    return monthly * 12 * days / _DAYS_A_YEAR


def _came_back(evidence: Evidence, daily: Sequence[DailySaving]) -> bool:
    return not evidence.confirmed_gone or any(day.actual > REBOUND * day.counterfactual for day in daily)


def _fades(daily: Sequence[DailySaving]) -> bool:
    """Whether the last days save less than the first, by more than a tenth of what a day would have cost."""
    first = sum((day.saving for day in daily[:_EDGE_DAYS]), ZERO)
    last = sum((day.saving for day in daily[-_EDGE_DAYS:]), ZERO)
    would = sum((day.counterfactual for day in daily), ZERO)
    return (first - last) * len(daily) > REBOUND * would * _EDGE_DAYS
