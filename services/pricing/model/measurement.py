"""Measures the saving of a window against a frozen baseline, and writes the document that lets anybody repeat it.

The whole of verifier/METHOD.md comes together here; where the rows come from is the store's business.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import rfc8785

from services.pricing.model import bootstrap
from services.pricing.model.arithmetic import ZERO, a12, exactly, median, plain, scaled
from services.pricing.model.baseline import METHOD, Baseline
from services.pricing.model.bill import Batch, batch_order
from services.pricing.model.counterfactual import Counterfactual, Measure, Price, prices_of
from services.pricing.model.decision import Cause, DailySaving, Decision, Evidence, Verdict, judge, obstacle
from services.pricing.model.explanation import AMOUNT_NAMES, Amounts, explain
from services.pricing.model.modelcheck import Model, ModelCheck, check_model
from services.pricing.model.rows import CostRow, Line, ResourceKey, Sums, in_order


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: the plan's frozen part, the window, and what the cloud said of the resource."""

    plan_hash: str
    baseline: Baseline
    baseline_sha256: str
    from_day: date
    days: int
    estimate: Decimal
    estimate_currency: str
    expected_gone: bool
    confirmed_gone: bool
    confirmed_at: datetime | None

    @property
    def window(self) -> tuple[date, ...]:
        """The whole days that are measured, ascending."""
        return tuple(self.from_day + timedelta(days=number) for number in range(self.days))


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """What the action left behind or put in place, and its rows in the window."""

    resource: ResourceKey
    rows: tuple[CostRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the current bills say about a window. `reporting` has the account's sums by line."""

    complete_days: frozenset[date]
    rows: tuple[CostRow, ...]
    leakage: tuple[Leak, ...]
    reporting: Mapping[Line, Sums]
    spanning: bool
    batches: tuple[Batch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A measured saving. Amounts and interval are None where the decision doesn't allow any."""

    decision: Decision
    amounts: Amounts | None
    currency: str
    provisional: bool
    explanation: str
    document: bytes
    batches: tuple[Batch, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the document, hexadecimal."""
        return hashlib.sha256(self.document).hexdigest()


def measure(question: Question, observed: Observation, today: date) -> Measurement:
    """Measure a window. Pure, and some tenths of a second of computing: run it in a thread."""
    with exactly():
        return _Measuring(question, observed, today).measurement()


class _Measuring:
    """One measurement on its way: its parts refer to each other."""

    def __init__(self, question: Question, observed: Observation, today: date) -> None:
        self._asked, self._seen, self._today = question, observed, today
        baseline = question.baseline
        self._check: ModelCheck = check_model(baseline)
        self._prices: tuple[Price, ...] = prices_of(baseline.rows, observed.reporting)
        self._would = Counterfactual(baseline.days, baseline.rows, self._prices)
        self._leaked = tuple(row for leak in observed.leakage for row in leak.rows)

    def measurement(self) -> Measurement:
        evidence = self._evidence()
        verdict = obstacle(evidence, self._today)
        amounts: Amounts | None = None
        daily: tuple[DailySaving, ...] = ()
        if verdict is None or not verdict.cause.leaves_no_amounts:
            daily = self._daily()
            amounts = self._amounts(daily)
        if verdict is None:
            assert amounts is not None  # Nothing stands in the way, so that they were computed.
            verdict = judge(
                evidence,
                daily,
                economic=amounts.economic,
                low=amounts.low,
                high=amounts.high,
                monthly_estimate=self._asked.estimate,
            )
        return self._written(verdict, evidence, amounts, daily)

    def _evidence(self) -> Evidence:
        asked, seen = self._asked, self._seen
        return Evidence(
            window=asked.window,
            complete_days=seen.complete_days,
            days_with_rows=frozenset(row.day for row in seen.rows),
            currency=asked.baseline.currency,
            currencies=frozenset(batch.currency for batch in seen.batches),
            spanning=seen.spanning,
            pricing_categories=frozenset(row.line.pricing_category for row in (*asked.baseline.rows, *seen.rows)),
            is_fit=self._check.model is not Model.UNFIT,
            expected_gone=asked.expected_gone,
            confirmed_gone=asked.confirmed_gone,
        )

    def _daily(self) -> tuple[DailySaving, ...]:
        return tuple(DailySaving(*each) for each in self._by_day(Measure.ECONOMIC))

    def _by_day(self, measure: Measure) -> list[tuple[date, Decimal, Decimal, Decimal]]:
        actual, leakage = _totals(self._seen.rows, measure), _totals(self._leaked, measure)
        return [(d, self._counterfactual(d, measure), actual[d], leakage[d]) for d in self._asked.window]

    def _counterfactual(self, d: date, measure: Measure) -> Decimal:
        return a12(median([self._would.cost(t, d, measure) for t in self._would.pool(d)]))

    def _saved(self, measure: Measure) -> Decimal:
        return a12(sum((DailySaving(*each).saving for each in self._by_day(measure)), ZERO))

    def _amounts(self, daily: Sequence[DailySaving]) -> Amounts:
        low, high = self._interval(daily)
        economic, cash, listed = (self._saved(each) for each in Measure)
        return Amounts(economic, cash, listed, low, high)

    def _interval(self, daily: Sequence[DailySaving]) -> tuple[Decimal, Decimal]:
        spent = {day.day: scaled(day.actual) + scaled(day.leakage) for day in daily}

        def cost(t: date, d: date) -> int:
            return scaled(self._would.cost(t, d, Measure.ECONOMIC))

        draws = bootstrap.Draws(self._asked.plan_hash, self._asked.days)
        bounds = bootstrap.interval(draws, self._would.days, self._asked.window, cost, spent)
        low, high = (Decimal(bound).scaleb(-12) for bound in bounds)
        return low, high

    def _provisional(self, verdict: Verdict) -> bool:
        """Whether a billing period of the window is open, or not there at all; and it is still waited for."""
        if verdict == (Decision.INCONCLUSIVE, Cause.DAY_MISSING):
            return False
        periods = {day.replace(day=1) for day in self._asked.window}
        is_open = any(not batch.period_closed for batch in self._seen.batches if batch.billing_period in periods)
        return is_open or not periods <= {batch.billing_period for batch in self._seen.batches}

    def _written(
        self, verdict: Verdict, evidence: Evidence, amounts: Amounts | None, daily: Sequence[DailySaving]
    ) -> Measurement:
        currency, provisional = self._asked.baseline.currency, self._provisional(verdict)
        told = explain(verdict, evidence, amounts, daily, self._asked.estimate)
        result = {
            "decision": verdict.decision.value,
            "explanation": told,
            **(amounts.document() if amounts else dict.fromkeys(AMOUNT_NAMES, "")),
            "cv_rmse": self._check.text,
            "model": self._check.model.value,
            "daily": [_daily_document(day) for day in daily],
        }
        return Measurement(
            decision=verdict.decision,
            amounts=amounts,
            currency=currency,
            provisional=provisional,
            explanation=told,
            document=rfc8785.dumps({**self._facts(), "provisional": provisional, "result": result}),
            batches=self._seen.batches,
        )

    def _facts(self) -> dict[str, Any]:
        """What the result rests on."""
        asked, seen = self._asked, self._seen
        return {
            "v": 1,
            "method": METHOD,
            "plan_hash": asked.plan_hash,
            "baseline_sha256": asked.baseline_sha256,
            "resource": asked.baseline.resource.document(),
            "currency": asked.baseline.currency,
            "from_day": asked.window[0].isoformat(),
            "to_day": asked.window[-1].isoformat(),
            "days": asked.days,
            "expected_gone": asked.expected_gone,
            "confirmed_gone": asked.confirmed_gone,
            "confirmed_at": _moment(asked.confirmed_at),
            "estimate": {"amount": plain(asked.estimate), "currency": asked.estimate_currency},
            "complete_days": [day.isoformat() for day in asked.window if day in seen.complete_days],
            "spanning": seen.spanning,
            "rows": [row.document() for row in in_order(seen.rows)],
            "leakage": [
                {"resource": leak.resource.document(), "rows": [row.document() for row in in_order(leak.rows)]}
                for leak in seen.leakage
            ],
            "prices": [price.document() for price in self._prices],
            "batches": [batch.document() for batch in sorted(seen.batches, key=batch_order)],
        }


def _totals(rows: Sequence[CostRow], measure: Measure) -> dict[date, Decimal]:
    totals: dict[date, Decimal] = defaultdict(lambda: ZERO)
    for row in rows:
        totals[row.day] += getattr(row, measure.value)
    return totals


def _daily_document(day: DailySaving) -> dict[str, str]:
    return {
        "day": day.day.isoformat(),
        "counterfactual": plain(day.counterfactual),
        "actual": plain(a12(day.actual)),
        "leakage": plain(a12(day.leakage)),
    }


def _moment(moment: datetime | None) -> str:
    """RFC 3339 in UTC with whole seconds; empty for none."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if moment else ""
