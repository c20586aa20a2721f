"""Two implementations of METHOD.md that share no code, on random bills: what pricing measures, the verifier repeats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from uuid import UUID

import pytest

from recoup_verify.log import parse_key
from recoup_verify.receipts.receipt import check_receipt
from services.pricing.model.baseline import Baseline
from services.pricing.model.bill import PROVIDER_FETCHED, Batch
from services.pricing.model.measurement import Leak, Measurement, Observation, Question, measure
from services.pricing.model.rows import CostRow, Line, ResourceKey, Sums, in_order, sums_of
from tests.support import receipt_cases as cases
from tests.support.receipt_cases import EXECUTED
from tests.support.receipt_log import Signatories, sha256
from tests.support.receipts import Issuing, issue

SIGNATORIES = Signatories()
KEY = parse_key(SIGNATORIES.log.verifier_key.text())
UNITS = ("GB-Month", "Hours", "GB-months", "IOPS-MONTH", "Requests")
SEEDS = range(48)
# The day before the request.
THROUGH = EXECUTED.date() - timedelta(days=3)
RESOURCE = ResourceKey(**cases.resource("ec2.volume", "vol-0123"))
SNAPSHOT = ResourceKey(**cases.resource("ec2.snapshot", "snap-1"))


class Bill:
    """A random bill and what happened to one resource of it."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        draw = self.random
        committed = "Committed" if draw.random() < 0.08 else "Standard"
        self.lines = [Line(f"sku-{n}", f"p-{n}", committed, draw.choice(UNITS)) for n in range(draw.randint(1, 3))]
        self.noise = draw.choice((0, 0, 0.02, 0.1, 0.3, 1.5))
        self.places = draw.choice((0, 2, 9, 17))
        self.gone, self.confirmed = draw.random() < 0.5, draw.random() < 0.9
        self.remains = draw.choice((0, 0, 0.05, 0.5, 0.8, 1, 1.2))
        self.window = cases.days(EXECUTED.date() + timedelta(days=1), draw.choice((7, 7, 14, 30)))
        self.days = self._baseline_days()
        self.level = {line: draw.uniform(0.5, 400) for line in self.lines}
        self.weekend = draw.choice((1, 1, 0.4))

    def _baseline_days(self) -> list[date]:
        possible = cases.days(THROUGH - timedelta(days=34), 35)
        return sorted(self.random.sample(possible, self.random.randint(14, 35)))[-28:]

    def decimal(self, value: float) -> Decimal:
        return Decimal(f"{value:.{self.places}f}")

    def rows(self, days: list[date], share: float) -> tuple[CostRow, ...]:
        """A row for almost each day and line, at a price of the line's own that wobbles a little."""
        draw, found = self.random, []
        for day in days:
            for number, line in enumerate(self.lines, 1):
                if draw.random() < 0.02:
                    continue
                quantity = self.level[line] * share * (self.weekend if day.weekday() > 4 else 1)
                quantity = max(quantity * draw.gauss(1, self.noise), 0)
                costs = [self.decimal(quantity * number * factor) for factor in (0.013, 0.011, 0.02)]
                contracted = None if draw.random() < 0.5 else costs[0]
                found.append(CostRow(day, line, self.decimal(quantity), *costs, contracted))
        return in_order(found)

    def baseline(self) -> Baseline:
        rows = self.rows(self.days, 1) or (CostRow(self.days[0], self.lines[0], *[Decimal(1)] * 4, None),)
        return Baseline(RESOURCE, "USD", THROUGH, tuple(self.days), rows)

    def observation(self) -> Observation:
        draw = self.random
        rows = self.rows(self.window, self.remains) if self.remains else ()
        leaked = self.rows(self.window, 0.03) if draw.random() < 0.5 else ()
        missing = draw.sample(self.window, 2) if draw.random() < 0.1 else []
        return Observation(
            complete_days=frozenset(self.window) - set(missing),
            rows=rows,
            leakage=(Leak(resource=SNAPSHOT, rows=leaked),),
            reporting=self._reporting(rows),
            spanning=draw.random() < 0.05,
            batches=self.batches("EUR" if draw.random() < 0.06 else "USD", closed=draw.random() < 0.5),
        )

    def _reporting(self, rows: tuple[CostRow, ...]) -> dict[Line, Sums]:
        """The account's sums: the resource's own and those of others, who may not use a line at all."""
        draw, found = self.random, {}
        for number, line in enumerate(self.lines, 1):
            own = sums_of(row for row in rows if row.line == line)
            others = draw.choice((0, draw.uniform(1, 9999)))
            costs = (self.decimal(others * number * factor) for factor in (0.012, 0.0105, 0.02))
            total = (one + other for one, other in zip(own, (self.decimal(others), *costs), strict=True))
            if draw.random() < 0.9 or own.quantity:
                found[line] = Sums(*total)
        return found

    def batches(self, currency: str, *, closed: bool) -> tuple[Batch, ...]:
        periods = sorted({day.replace(day=1) for day in (*self.days, *self.window)})
        return tuple(
            Batch(
                batch_id=UUID(int=700 + number + (50 if currency == "EUR" or not closed else 0)),
                billing_period=period,
                sha256=sha256(str(period).encode()),
                provenance=PROVIDER_FETCHED,
                object=f"s3://bill/{period}",
                object_version="",
                rows=9,
                currency=currency,
                complete_through=None,
                period_closed=closed,
                imported_at=EXECUTED,
            )
            for number, period in enumerate(periods)
        )


def measured(bill: Bill, issuing: Issuing) -> Measurement:
    """What pricing makes of the bill; the plan's hash, and with it the seed, is that of the receipt's plan."""
    baseline, draw = bill.baseline(), bill.random
    issuing.baseline = json.loads(baseline.document(bill.batches("USD", closed=True)))
    issuing.plan["measurement"]["removes_resource"] = bill.gone
    issuing.hash()
    estimate = Decimal(draw.choice(("0.5", "17.36", "400")))
    issuing.plan["measurement"]["estimate"]["amount"] = f"{estimate:.2f}"
    issuing.hash()
    question = Question(
        plan_hash=issuing.measurement["plan_hash"],
        baseline=baseline,
        baseline_sha256=issuing.measurement["baseline_sha256"],
        from_day=bill.window[0],
        days=len(bill.window),
        estimate=estimate,
        estimate_currency="USD",
        expected_gone=bill.gone,
        confirmed_gone=bill.confirmed,
        confirmed_at=datetime(2026, 4, 20, 1, 2, 3, 999, tzinfo=UTC) if bill.confirmed else None,
    )
    today = draw.choice((bill.window[-1] + timedelta(days=3), EXECUTED.date() + timedelta(days=79)))
    return measure(question, bill.observation(), today)


def measuring(seed: int, found: list[Measurement]) -> Callable[[Issuing], None]:
    """The change of a receipt by which it holds what pricing measured."""

    def change(issuing: Issuing) -> None:
        found.append(measured(Bill(seed), issuing))
        issuing.measurement = json.loads(found[-1].document)

    return change


@pytest.mark.parametrize("seed", SEEDS)
def test_what_pricing_measures_the_verifier_repeats(seed: int) -> None:
    """Every field of the result is compared as text by the verifier itself."""
    found: list[Measurement] = []
    case = cases.deleted_volume()
    check_receipt(issue(case, SIGNATORIES, write=measuring(seed, found)), KEY)
    assert found


def test_the_random_bills_lead_to_each_decision() -> None:
    """The comparison would mean little if all bills were alike."""
    decisions, given_up = Counter[str](), False
    for seed in SEEDS:
        found = measured(Bill(seed), Issuing(cases.deleted_volume(), SIGNATORIES))
        decisions[found.decision] += 1
        is_open = not all(batch.period_closed for batch in found.batches)
        given_up |= is_open and found.decision == "INCONCLUSIVE" and not found.provisional
    wanted = {"VERIFIED", "PARTIAL", "NOT_REALIZED", "NEGATIVE", "REGRESSED", "INCONCLUSIVE", "PENDING"}
    assert decisions.keys() == wanted, decisions
    assert given_up, "no bill that never came in an open period"
