"""The savings method against bills whose truth is known: what was really saved is what it says, and nothing else."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.pricing.model.arithmetic import a12, exactly, plain
from services.pricing.model.baseline import Baseline, choose_days
from services.pricing.model.bill import Batch
from services.pricing.model.measurement import Leak, Measurement, Observation, Question, measure
from services.pricing.model.rows import CostRow, Line, ResourceKey, in_order, sums_of

VOLUME = ResourceKey("aws", "aws", "111111111111", "us-east-1", "ec2.volume", "vol-1")
SNAPSHOT = replace(VOLUME, type="ec2.snapshot", id="snap-1")
HOURS = Line("SKU-H", "SKU-H.1", "Standard", "Hours")
GP2 = Line("SKU-2", "SKU-2.1", "Standard", "GB-Months")
GP3 = Line("SKU-3", "SKU-3.1", "Standard", "GB-Months")
DAY = timedelta(days=1)


def cost(day: date, amount: Decimal | str, line: Line = HOURS, unit_price: str = "1") -> CostRow:
    """A row that comes to `amount`; billed and list cost are told apart from it."""
    amount = Decimal(amount)
    return CostRow(day, line, amount / Decimal(unit_price), amount, amount * 2, amount * 3, None)


def batch(number: int, month: date, currency: str = "USD", *, closed: bool = True) -> Batch:
    return Batch(
        batch_id=UUID(int=number),
        billing_period=month.replace(day=1),
        sha256="a" * 64,
        provenance="PROVIDER_FETCHED",
        object="s3://bucket/key",
        object_version="1",
        rows=1,
        currency=currency,
        complete_through=None,
        period_closed=closed,
        imported_at=datetime(2026, 6, 1, tzinfo=UTC),
    )


@dataclass
class World:
    """A bill around an action on the day `acted`: by default a resource of 2.00 a day that is deleted, and is gone."""

    acted: date = date(2026, 3, 2)
    days: int = 7
    before: dict[date, list[CostRow]] = field(default_factory=dict)
    after: list[CostRow] = field(default_factory=list)
    others: list[CostRow] = field(default_factory=list)
    leaked: list[CostRow] = field(default_factory=list)
    missing: frozenset[date] = frozenset()
    expected_gone: bool = True
    confirmed_gone: bool = True
    spanning: bool = False
    currency: str = "USD"
    closed: bool = True
    estimate: str = "60.83"
    plan_hash: str = "0" * 64
    measured: date | None = None

    @property
    def history(self) -> list[date]:
        return [self.acted - DAY * back for back in range(28, 0, -1)]

    @property
    def window(self) -> list[date]:
        return [self.acted + DAY * ahead for ahead in range(1, self.days + 1)]

    def baseline(self) -> Baseline:
        before = self.before or {day: [cost(day, "2")] for day in self.history}
        days = choose_days(self.acted - DAY, self.history, before.keys())
        rows = in_order(row for day in days for row in before.get(day, ()))
        return Baseline(VOLUME, "USD", self.acted - DAY, days, rows)

    def question(self) -> Question:
        return Question(
            plan_hash=self.plan_hash,
            baseline=self.baseline(),
            baseline_sha256="b" * 64,
            from_day=self.window[0],
            days=self.days,
            estimate=Decimal(self.estimate),
            estimate_currency="USD",
            expected_gone=self.expected_gone,
            confirmed_gone=self.confirmed_gone,
            confirmed_at=datetime(2026, 3, 10, 5, 6, 7, 890, tzinfo=UTC) if self.confirmed_gone else None,
        )

    def observation(self) -> Observation:
        by_line = defaultdict(list)
        for row in (*self.after, *self.others):
            by_line[row.line].append(row)
        months = sorted({day.replace(day=1) for day in self.window})
        return Observation(
            complete_days=frozenset(self.window) - self.missing,
            rows=tuple(self.after),
            leakage=(Leak(resource=SNAPSHOT, rows=tuple(self.leaked)),) if self.leaked else (),
            reporting={line: sums_of(rows) for line, rows in by_line.items()},
            spanning=self.spanning,
            batches=tuple(batch(n, month, self.currency, closed=self.closed) for n, month in enumerate(months, 1)),
        )

    def measure(self) -> Measurement:
        return measure(self.question(), self.observation(), self.measured or self.window[-1] + DAY * 3)


def result(found: Measurement) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(found.document)["result"]
    return content


def economic(found: Measurement) -> Decimal:
    assert found.amounts is not None
    return found.amounts.economic


def daily(days: Iterable[date], amount: str, line: Line = HOURS) -> dict[date, list[CostRow]]:
    return {day: [cost(day, amount, line)] for day in days}


@pytest.mark.parametrize("days", [7, 14, 30])
def test_what_a_deleted_resource_no_longer_costs_is_saved(days: int) -> None:
    found = World(days=days).measure()
    assert found.decision == "VERIFIED"
    assert result(found)["economic"] == str(2 * days)
    assert (result(found)["cash"], result(found)["list"]) == (str(4 * days), str(6 * days))
    assert (result(found)["interval_low"], result(found)["interval_high"]) == (str(2 * days), str(2 * days))
    assert (result(found)["model"], result(found)["cv_rmse"]) == ("STABLE", "0")


def test_a_price_cut_is_not_claimed() -> None:
    world = World()
    # Others of the account pay half of what was paid before.
    world.others = [cost(day, "5", unit_price="0.5") for day in world.window]
    assert economic(world.measure()) == Decimal(7)
    world.others = [cost(day, "5", unit_price="1") for day in world.window]
    assert economic(world.measure()) == Decimal(14)


def test_a_line_that_nobody_pays_for_any_more_has_the_price_of_the_baseline() -> None:
    world = World()
    world.others = [cost(day, "5", GP3, "0.5") for day in world.window]
    (price,) = json.loads(world.measure().document)["prices"]
    assert (price["source"], price["quantity"], price["effective_cost"]) == ("BASELINE", "56", "56")
    world.others = [CostRow(world.window[0], HOURS, Decimal(0), *[Decimal(1)] * 3, None)]
    assert json.loads(world.measure().document)["prices"][0]["source"] == "BASELINE"


def test_a_conversion_to_another_sku_saves_the_difference() -> None:
    world = World(acted=date(2026, 3, 23), expected_gone=False, confirmed_gone=False, estimate="2")
    size = Decimal(100)
    world.before = {day: [cost(day, size / _length(day) * Decimal("0.10"), GP2, "0.10")] for day in world.history}
    world.after = [cost(day, size / _length(day) * Decimal("0.08"), GP3, "0.08") for day in world.window]
    found = world.measure()
    with exactly():
        expected = sum((size / _length(day) * Decimal("0.02") for day in world.window), Decimal(0))
    assert found.decision == "VERIFIED"
    assert abs(economic(found) - expected) < Decimal("1E-10")


def _length(day: date) -> int:
    return ((day.replace(day=28) + timedelta(days=4)).replace(day=1) - DAY).day


@pytest.mark.parametrize(
    ("acted", "days_in_month"),
    [
        (date(2026, 10, 31), 30),  # Baseline in October, window in November.
        (date(2026, 1, 31), 28),
        (date(2028, 1, 31), 29),  # A leap year's February.
        (date(2026, 11, 30), 31),
    ],
)
def test_a_month_s_price_buys_less_a_day_in_a_longer_month(acted: date, days_in_month: int) -> None:
    world = World(acted=acted)
    world.before = {day: [cost(day, Decimal(93) / _length(day), GP2)] for day in world.history}
    assert abs(economic(world.measure()) - Decimal(93 * 7) / days_in_month) < Decimal("1E-10")
    # An hour is an hour, whatever the month.
    world.before = {day: [cost(day, "3", HOURS)] for day in world.history}
    assert economic(world.measure()) == 21


def test_what_the_action_leaves_behind_is_netted() -> None:
    world = World()
    world.leaked = [cost(day, "0.5", GP3) for day in world.window]
    found = world.measure()
    assert economic(found) == Decimal("10.5")
    assert {day["leakage"] for day in result(found)["daily"]} == {"0.5"}
    # A leak that costs more than what was saved is reported as such.
    world.leaked = [cost(day, "3", GP3) for day in world.window]
    assert (world.measure().decision, economic(world.measure())) == ("NEGATIVE", -7)


def test_a_weekday_pattern_is_compared_with_its_own_weekday() -> None:
    world = World(days=14)
    world.before = {day: [cost(day, "4" if day.weekday() >= 5 else "10")] for day in world.history}
    found = world.measure()
    assert (found.decision, economic(found), result(found)["model"]) == ("VERIFIED", 116, "STABLE")
    assert [day["counterfactual"] for day in result(found)["daily"][:7]] == ["10", "10", "10", "10", "4", "4", "10"]


def test_a_load_that_nobody_could_predict_allows_no_statement() -> None:
    world = World()
    world.before = {day: [cost(day, "1" if n % 3 else "20")] for n, day in enumerate(world.history)}
    found = world.measure()
    assert (found.decision, result(found)["model"]) == ("INCONCLUSIVE", "UNFIT")
    assert found.amounts is not None
    assert "varied too much" in found.explanation


def test_a_load_that_varies_within_reason_is_measured() -> None:
    world = World()
    noise = random.Random(7)
    world.before = {day: [cost(day, str(round(2 * noise.uniform(0.85, 1.15), 4)))] for day in world.history}
    found = world.measure()
    assert (found.decision, result(found)["model"]) == ("VERIFIED", "VARIABLE")
    assert found.amounts is not None
    assert found.amounts.low < found.amounts.economic < found.amounts.high


def test_a_day_that_the_bill_lacks_is_waited_for_and_then_given_up() -> None:
    world = World(missing=frozenset([date(2026, 3, 5)]))
    for waited, decision in ((1, "PENDING"), (44, "PENDING"), (45, "INCONCLUSIVE")):
        world.measured = world.window[-1] + DAY * waited
        found = world.measure()
        assert found.decision == decision
        assert found.amounts is None
        assert result(found)["economic"] == result(found)["interval_low"] == ""
        assert result(found)["daily"] == []


def test_an_absent_row_is_no_zero_unless_the_resource_was_seen_to_be_gone() -> None:
    for expected, confirmed, decision in (
        (True, True, "VERIFIED"),
        (True, False, "INCONCLUSIVE"),
        (False, True, "INCONCLUSIVE"),
        (False, False, "INCONCLUSIVE"),
    ):
        assert World(expected_gone=expected, confirmed_gone=confirmed).measure().decision == decision


def test_usage_under_a_commitment_is_not_measured_by_the_resource() -> None:
    committed = HOURS._replace(pricing_category="Committed")
    before, after = World(), World()
    before.before = daily(before.history, "2", committed)
    after.after = [cost(after.window[3], "0.01", committed)]
    for world in (before, after):
        found = world.measure()
        assert (found.decision, "commitment" in found.explanation) == ("INCONCLUSIVE", True)


def test_a_charge_of_several_days_allows_no_statement() -> None:
    assert World(spanning=True).measure().decision == "INCONCLUSIVE"


def test_another_currency_allows_neither_statement_nor_amounts() -> None:
    found = World(currency="EUR").measure()
    assert (found.decision, found.amounts, result(found)["daily"]) == ("INCONCLUSIVE", None, [])
    assert "currency" in found.explanation


def test_a_resource_that_is_there_again_has_regressed() -> None:
    still_there = World(confirmed_gone=False)
    still_there.after = [cost(day, "2") for day in still_there.window]
    assert still_there.measure().decision == "REGRESSED"
    for amount, decision in (("0.2", "VERIFIED"), ("0.21", "REGRESSED")):
        recreated = World(estimate="10")
        recreated.after = [cost(recreated.window[-1], amount)]
        assert recreated.measure().decision == decision


def test_a_saving_that_fades_has_regressed() -> None:
    for last, decision in (("1.2", "VERIFIED"), ("1.21", "REGRESSED")):
        world = World(expected_gone=False, confirmed_gone=False, estimate="10")
        amounts = ["1", "1", "1", "1", last, last, last]
        world.after = [cost(day, amount) for day, amount in zip(world.window, amounts, strict=True)]
        assert world.measure().decision == decision


@pytest.mark.parametrize("unit", ["0.01", "0.7", "1", "3", "11"])
@pytest.mark.parametrize("days", [7, 14, 30])
def test_a_saving_that_fades_by_exactly_a_tenth_has_not(days: int, unit: str) -> None:
    world = World(days=days, expected_gone=False, confirmed_gone=False, estimate="0.01")
    one = Decimal(unit)
    world.before = {day: [cost(day, one * 10)] for day in world.history}
    # The last three days save a day's tenth less each, on the average: the very threshold.
    spent = [one * 2, one * 2, one * 2, *[one] * (days - 6), one * 2, one * 3, one * 4]
    world.after = [cost(day, each) for day, each in zip(world.window, spent, strict=True)]
    assert world.measure().decision == "VERIFIED"
    world.after[-1] = cost(world.window[-1], one * 4 + Decimal("1E-9"))
    assert world.measure().decision == "REGRESSED"


def test_doing_nothing_saves_nothing() -> None:
    for seed in range(20):
        noise = random.Random(seed)
        world = World(expected_gone=False, confirmed_gone=False, plan_hash=f"{seed:064x}")
        world.before = {day: [cost(day, _noisy(noise, day))] for day in world.history}
        world.after = [cost(day, _noisy(noise, day)) for day in world.window]
        found = world.measure()
        assert found.decision in ("NOT_REALIZED", "NEGATIVE", "REGRESSED", "VERIFIED", "PARTIAL")
        assert abs(economic(found)) < Decimal("1.2")
    exact = World(expected_gone=False, confirmed_gone=False)
    exact.after = [cost(day, "2") for day in exact.window]
    assert (exact.measure().decision, economic(exact.measure())) == ("NOT_REALIZED", 0)


def test_placebos_are_hardly_ever_called_savings() -> None:
    claimed = 0
    for seed in range(60):
        noise = random.Random(1000 + seed)
        world = World(expected_gone=False, confirmed_gone=False, plan_hash=f"{seed:064x}", estimate="0.01")
        world.before = {day: [cost(day, _noisy(noise, day))] for day in world.history}
        world.after = [cost(day, _noisy(noise, day)) for day in world.window]
        claimed += world.measure().decision in ("VERIFIED", "PARTIAL")
    assert claimed <= 60 * 0.12


def test_the_interval_covers_the_truth_nine_times_in_ten() -> None:
    covered, runs = 0, 200
    for seed in range(runs):
        noise = random.Random(seed)
        world = World(plan_hash=f"{seed:064x}")
        world.before = {day: [cost(day, _noisy(noise, day))] for day in world.history}
        truth = sum((Decimal(_noisy(noise, day)) for day in world.window), Decimal(0))
        found = world.measure()
        assert found.amounts is not None
        covered += found.amounts.low <= truth <= found.amounts.high
    assert 0.82 <= covered / runs <= 0.97


def _noisy(noise: random.Random, day: date) -> str:
    """A load of about 2 a day, less at the weekend, give or take some percent."""
    return str(round((1.4 if day.weekday() >= 5 else 2) * max(0.5, noise.gauss(1, 0.06)), 6))


def test_less_than_four_fifths_of_the_estimate_is_partial() -> None:
    # 14.00 in 7 days are 60.83 a month of 365/12 days.
    for estimate, decision in (("76.04", "VERIFIED"), ("76.05", "PARTIAL")):
        assert World(estimate=estimate).measure().decision == decision


def test_a_result_is_provisional_until_every_period_of_its_window_is_closed() -> None:
    assert World(closed=False).measure().provisional
    assert not World(closed=True).measure().provisional
    world = World()
    asked, seen = world.question(), replace(world.observation(), batches=())
    assert measure(asked, seen, world.window[-1]).provisional


def test_a_bill_that_never_comes_leaves_a_final_result() -> None:
    """What is given up must not be looked at for ever; a bill that may still come is waited for."""
    world = World(closed=False)
    world.missing = frozenset(world.window[-1:])
    for days, decision, provisional in ((44, "PENDING", True), (45, "INCONCLUSIVE", False)):
        world.measured = world.window[-1] + DAY * days
        found = world.measure()
        assert (found.decision, found.provisional) == (decision, provisional)
        assert json.loads(found.document)["provisional"] is provisional
        never = measure(world.question(), replace(world.observation(), batches=()), world.measured)
        assert (never.decision, never.provisional) == (decision, provisional)
    # Other causes may pass as long as the bill changes.
    open_end = World(closed=False, spanning=True, measured=world.measured).measure()
    assert (open_end.decision, open_end.provisional) == ("INCONCLUSIVE", True)


@given(st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_the_order_of_rows_and_batches_changes_nothing(shuffler: random.Random) -> None:
    world = World(days=30, expected_gone=False, confirmed_gone=False)
    world.before = {day: [cost(day, "2"), cost(day, "0.7", GP2), cost(day, "0.1", GP3)] for day in world.history}
    world.after = [cost(day, "1.5") for day in world.window] + [cost(day, "0.3", GP2) for day in world.window]
    expected = world.measure()
    shuffler.shuffle(world.after)
    seen = world.observation()
    batches = list(seen.batches)
    shuffler.shuffle(batches)
    asked = world.question()
    rows = list(asked.baseline.rows)
    shuffler.shuffle(rows)
    shuffled = replace(asked, baseline=replace(asked.baseline, rows=tuple(rows)))
    found = measure(shuffled, replace(seen, batches=tuple(batches)), world.window[-1] + DAY * 3)
    assert found.document == expected.document


@given(st.lists(st.decimals(0, 50, places=6), min_size=28, max_size=28), st.decimals(0, 9, places=4))
@settings(max_examples=25, deadline=None)
def test_the_amount_is_the_sum_of_its_days(amounts: list[Decimal], leaked: Decimal) -> None:
    world = World()
    world.before = {day: [cost(day, amount)] for day, amount in zip(world.history, amounts, strict=True)}
    world.leaked = [cost(day, leaked, GP3) for day in world.window]
    found = world.measure()
    total = sum(
        (Decimal(day["counterfactual"]) - Decimal(day["actual"]) - Decimal(day["leakage"]))
        for day in result(found)["daily"]
    )
    assert result(found)["economic"] == plain(a12(total))
    assert found.amounts is not None
    assert found.amounts.low <= found.amounts.high
