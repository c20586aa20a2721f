"""The parts of the savings method one by one, and the documents that they are written into."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from services.pricing.model.arithmetic import a12, exactly, median, plain, scaled, whole_median
from services.pricing.model.baseline import Baseline, choose_days, read_baseline
from services.pricing.model.bill import Batch
from services.pricing.model.bootstrap import Draws
from services.pricing.model.counterfactual import Counterfactual, Measure, PriceSource, pool, prices_of
from services.pricing.model.modelcheck import Model, ModelCheck, check_model
from services.pricing.model.rows import CostRow, Line, ResourceKey, Sums, in_order, read_row

DAY = timedelta(days=1)
THROUGH = date(2026, 3, 1)
VOLUME = ResourceKey("aws", "aws", "111111111111", "us-east-1", "ec2.volume", "vol-1")
LINE = Line("SKU", "SKU.1", "Standard", "Hours")


def days_back(first: int, last: int = 0) -> list[date]:
    return [THROUGH - DAY * back for back in range(first, last - 1, -1)]


def row(day: date, quantity: str = "1", amount: str = "2", line: Line = LINE) -> CostRow:
    return CostRow(day, line, Decimal(quantity), Decimal(amount), Decimal(amount), Decimal(amount), None)


def batch(period: date = date(2026, 2, 1), number: int = 1) -> Batch:
    moment = datetime(2026, 3, 2, tzinfo=UTC)
    return Batch(
        batch_id=UUID(int=number),
        billing_period=period,
        sha256="0" * 64,
        provenance="PROVIDER_FETCHED",
        object="s3://b/k",
        object_version="v",
        rows=3,
        currency="USD",
        complete_through=None,
        period_closed=False,
        imported_at=moment,
    )


def frozen(amounts: list[str]) -> Baseline:
    days = days_back(len(amounts) - 1)
    rows = tuple(row(day, amount, amount) for day, amount in zip(days, amounts, strict=True) if amount)
    return Baseline(VOLUME, "USD", THROUGH, tuple(days), rows)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1E+3", "1000"),
        ("-0.00", "0"),
        ("0E-9", "0"),
        ("1.500", "1.5"),
        ("100", "100"),
        ("1E-38", "0." + "0" * 37 + "1"),
        ("-2.10", "-2.1"),
    ],
)
def test_a_decimal_is_written_plainly(value: str, text: str) -> None:
    assert plain(Decimal(value)) == text


def test_rounding_is_half_even_at_the_twelfth_place() -> None:
    halves = [Decimal(f"0.00000000000{end}") for end in ("05", "15", "25")]
    assert [plain(a12(half)) for half in halves] == ["0", "0.000000000002", "0.000000000002"]
    assert [scaled(Decimal(text)) for text in ("0.0000000000005", "0.0000000000015", "-0.0000000000025")] == [0, 2, -2]


def test_medians() -> None:
    with exactly():
        assert median([Decimal(3), Decimal(1), Decimal(2), Decimal(10)]) == Decimal("2.5")
    assert whole_median([3, 1, 2]) == 2
    assert whole_median([1, 2]) == 1
    assert whole_median([-1, -2]) == -2  # Rounded down, not towards zero.


def test_a_baseline_has_the_latest_28_complete_days() -> None:
    complete = days_back(60)
    assert list(choose_days(THROUGH, complete, set(complete))) == days_back(27)
    holes = {THROUGH - DAY * 3, THROUGH - DAY * 9}
    assert list(choose_days(THROUGH, set(complete) - holes, set(complete))) == [
        day for day in days_back(29) if day not in holes
    ]


def test_a_baseline_looks_back_35_days_and_no_further() -> None:
    holes = set(days_back(20, 5))
    chosen = choose_days(THROUGH, set(days_back(60)) - holes, set(days_back(60)))
    assert (chosen[0], len(chosen)) == (THROUGH - DAY * 34, 35 - 16)
    assert THROUGH + DAY not in choose_days(THROUGH, [*days_back(20), THROUGH + DAY], set(days_back(20)))


def test_the_day_on_which_a_resource_was_made_is_left_out() -> None:
    made = THROUGH - DAY * 20
    assert choose_days(THROUGH, days_back(34), set(days_back(20)))[0] == made + DAY
    # One that was there on the first complete day was there before.
    assert choose_days(THROUGH, days_back(20), set(days_back(20)))[0] == made
    assert choose_days(THROUGH, days_back(34), set()) == ()
    # Its days without use later on stay.
    assert len(choose_days(THROUGH, days_back(27), {THROUGH - DAY * 27})) == 28


def test_units_by_the_month_are_told_by_their_end() -> None:
    by_month = ["GB-Months", "GB-month", "IOPS-MONTH", "Months"]
    assert [LINE._replace(unit=unit).is_by_the_month for unit in by_month] == [True] * 4
    assert not any(LINE._replace(unit=unit).is_by_the_month for unit in ("Hours", "GB", "Monthly", "month-GB", ""))


def test_prices_are_the_account_s_where_it_used_any() -> None:
    other = LINE._replace(sku_id="SKU2")
    rows = [row(THROUGH, "2", "6"), row(THROUGH - DAY, "1", "3"), row(THROUGH, "4", "4", other)]
    sums = Sums(Decimal(10), Decimal(5), Decimal(4), Decimal(7))
    first, second = prices_of(rows, {LINE: sums})
    assert (first.line, first.source, first.sums) == (LINE, PriceSource.REPORTING, sums)
    assert (second.source, second.sums.quantity, second.sums.effective_cost) == (PriceSource.BASELINE, 4, 4)
    negative = sums._replace(quantity=Decimal(-1))
    assert prices_of(rows, {LINE: negative})[0].source is PriceSource.BASELINE


def test_a_line_without_any_quantity_costs_nothing() -> None:
    rows = [row(THROUGH, "0", "6")]
    would = Counterfactual([THROUGH], rows, prices_of(rows, {}))
    with exactly():
        assert would.cost(THROUGH, THROUGH + DAY, Measure.ECONOMIC) == 0


def test_a_pool_is_the_weekday_s_or_all() -> None:
    days = days_back(13)
    assert pool(days, THROUGH + DAY * 7) == (THROUGH - DAY * 7, THROUGH)
    assert pool(days[:3], THROUGH + DAY * 7) == tuple(days[:3])


@pytest.mark.parametrize(
    ("amounts", "cv_rmse", "model"),
    [
        (["2"] * 28, "0", Model.STABLE),
        (["2"] * 21 + ["2.08"] * 7, "0.0385", Model.STABLE),
        (["2"] * 21 + ["3"] * 7, "0.3333", Model.UNFIT),
        (["2"] * 21 + ["2.5"] * 7, "0.2", Model.VARIABLE),
        # A day without use is one with a cost of zero.
        ([""] * 14 + ["2"] + [""] * 13, "0", Model.STABLE),
        (["2"] * 21 + [""] * 7, "", Model.UNFIT),
    ],
)
def test_the_model_check(amounts: list[str], cv_rmse: str, model: Model) -> None:
    with exactly():
        check = check_model(frozen(amounts))
    assert (check.text, check.model) == (cv_rmse, model)


def test_the_model_is_judged_before_rounding() -> None:
    assert ModelCheck(Decimal("0.04999")).model is Model.STABLE
    assert ModelCheck(Decimal("0.04999")).text == "0.05"
    assert ModelCheck(Decimal("0.05")).model is Model.VARIABLE
    assert ModelCheck(Decimal("0.25")).model is Model.UNFIT


def test_draws_follow_the_stream_and_reject_what_would_be_uneven() -> None:
    seed = hashlib.sha256(f"recoup-savings/1/{'ab' * 32}/7".encode()).digest()
    stream = b"".join(hashlib.sha256(seed + n.to_bytes(8, "big")).digest() for n in range(100))
    words = [int.from_bytes(stream[at : at + 4], "big") for at in range(0, len(stream), 4)]
    draws = Draws("ab" * 32, 7)
    assert [draws.below(28) for _ in range(20)] == [word % 28 for word in words[:20]]
    # Just above half of all words: about every second one must be taken again.
    n = 2**31 + 1
    draws = Draws("ab" * 32, 7)
    assert [draws.below(n) for _ in range(50)] == [word for word in words if word < n][:50]
    assert Draws("ab" * 32, 14).below(2**32) != words[0]


def test_a_baseline_s_document_is_canonical_and_read_back() -> None:
    baseline = frozen(["2"] * 28)
    document = baseline.document([batch(number=2), batch(date(2026, 1, 1), 3), batch(number=1)])
    content = json.loads(document)
    assert rfc8785.dumps(content) == document
    assert list(content["rows"][0]) == sorted(content["rows"][0])
    assert content["rows"][0] == {
        "billed_cost": "2",
        "contracted_cost": "",
        "day": "2026-02-02",
        "effective_cost": "2",
        "list_cost": "2",
        "pricing_category": "Standard",
        "quantity": "2",
        "sku_id": "SKU",
        "sku_price_id": "SKU.1",
        "unit": "Hours",
    }
    assert [(b["billing_period"], b["batch_id"][-1]) for b in content["batches"]] == [
        ("2026-01", "3"),
        ("2026-02", "1"),
        ("2026-02", "2"),
    ]
    assert (content["v"], content["method"], content["batches"][0]["rows"]) == (1, "recoup-savings/1", 3)
    assert read_baseline(document) == baseline


CONTENT = json.loads(frozen(["2"] * 28).document([batch()]))
BROKEN = {
    "not canonical": json.dumps(CONTENT).encode(),
    "not JSON": b"{",
    "not UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "a field more": rfc8785.dumps({**CONTENT, "more": 1}),
    "a field less": rfc8785.dumps({name: value for name, value in CONTENT.items() if name != "currency"}),
    "another method": rfc8785.dumps({**CONTENT, "method": "recoup-savings/2"}),
    "too few days": rfc8785.dumps({**CONTENT, "days": CONTENT["days"][-13:], "rows": CONTENT["rows"][-13:]}),
    "days that don't ascend": rfc8785.dumps({**CONTENT, "days": CONTENT["days"][::-1]}),
    "a row twice": rfc8785.dumps({**CONTENT, "rows": [CONTENT["rows"][0], *CONTENT["rows"]]}),
    "rows out of order": rfc8785.dumps({**CONTENT, "rows": CONTENT["rows"][::-1]}),
    "a row on another day": rfc8785.dumps({**CONTENT, "days": CONTENT["days"][1:]}),
    "no row": rfc8785.dumps({**CONTENT, "rows": []}),
    "a padded decimal": rfc8785.dumps({**CONTENT, "rows": [{**CONTENT["rows"][0], "quantity": "2.0"}]}),
    "a number": rfc8785.dumps({**CONTENT, "rows": [{**CONTENT["rows"][0], "quantity": 2}]}),
    "a resource without id": rfc8785.dumps({**CONTENT, "resource": {"provider": "aws"}}),
    "a currency that is none": rfc8785.dumps({**CONTENT, "currency": 1}),
}


@pytest.mark.parametrize("document", BROKEN.values(), ids=list(BROKEN))
def test_a_document_that_the_method_doesn_t_write_is_refused(document: bytes) -> None:
    with pytest.raises(ValueError):
        read_baseline(document)


_AMOUNTS = st.decimals(-(10**9), 10**9, places=11)


@given(st.tuples(_AMOUNTS, _AMOUNTS, _AMOUNTS, _AMOUNTS), st.none() | _AMOUNTS, st.dates())
def test_a_row_survives_its_document(costs: tuple[Decimal, ...], contracted: Decimal | None, day: date) -> None:
    made = CostRow(day, LINE, *costs, contracted)
    assert read_row(json.loads(rfc8785.dumps(made.document()))) == made


LINES = [LINE._replace(unit=unit, sku_id=sku) for sku in ("A", "B") for unit in ("GB", "Hours")]


@given(st.permutations([row(day, line=line) for day in days_back(1) for line in LINES]))
def test_rows_have_one_order(rows: list[CostRow]) -> None:
    assert [(each.day, each.line) for each in in_order(rows)] == [(day, line) for day in days_back(1) for line in LINES]


def test_keys_are_written_in_full() -> None:
    assert replace(VOLUME, partition="").document() == {
        "provider": "aws",
        "partition": "",
        "account": "111111111111",
        "region": "us-east-1",
        "type": "ec2.volume",
        "id": "vol-1",
    }
