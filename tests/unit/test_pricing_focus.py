"""FOCUS import: what is read, what is tolerated, and that everything else refuses the whole bill with its place."""

import csv
import gzip
import io
import os
import tracemalloc
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from services.pricing.model.daily import CostKind, DailyCost, DailyCosts
from services.pricing.model.dialects import DIALECTS
from services.pricing.model.focus import COLUMNS, BillLimits, FocusRow, read_bill
from services.pricing.model.refusal import BillRefused

SHARED = Path(os.environ.get("RECOUP_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))

ROW = {
    "BilledCost": "0.40",
    "BillingAccountId": "111111111111",
    "BillingCurrency": "USD",
    "BillingPeriodEnd": "2024-10-01T00:00:00Z",
    "BillingPeriodStart": "2024-09-01T00:00:00Z",
    "ChargeCategory": "Usage",
    "ChargeClass": "",
    "ChargePeriodEnd": "2024-09-03T00:00:00Z",
    "ChargePeriodStart": "2024-09-02T00:00:00Z",
    "ContractedCost": "0.39",
    "EffectiveCost": "0.38",
    "ListCost": "0.41",
    "PricingCategory": "Standard",
    "PricingQuantity": "5",
    "PricingUnit": "GB-Months",
    "ProviderName": "AWS",
    "RegionId": "us-east-1",
    "ResourceId": "vol-0123456789abcdef0",
    "SkuId": "SKU1",
    "SkuPriceId": "SKU1.ONDEMAND",
    "SubAccountId": "222222222222",
}


def bill(*rows: dict[str, str], columns: Iterable[str] | None = None) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(columns or ROW), extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def read(data: bytes, gzipped: bool = False, limits: BillLimits | None = None) -> list[FocusRow]:
    return list(read_bill(io.BytesIO(data), gzipped=gzipped, limits=limits or BillLimits()))


def one(**changes: str) -> FocusRow:
    (row,) = read(bill(ROW | changes))
    return row


def refused(data: bytes, **how: object) -> BillRefused:
    with pytest.raises(BillRefused) as caught:
        read(data, **how)  # type: ignore[arg-type]
    return caught.value


def daily(*rows: dict[str, str], **how: object) -> list[DailyCost]:
    costs = DailyCosts(**how)  # type: ignore[arg-type]
    return [cost for piece in costs.sum(read(bill(*rows))) for cost in piece]


def test_a_row_as_focus_has_it() -> None:
    assert one() == FocusRow(
        number=1,
        billing_period=date(2024, 9, 1),
        provider="aws",
        account="222222222222",
        region="us-east-1",
        resource_id="vol-0123456789abcdef0",
        category="Usage",  # type: ignore[arg-type]
        is_correction=False,
        starts_at=datetime(2024, 9, 2, tzinfo=UTC),
        ends_at=datetime(2024, 9, 3, tzinfo=UTC),
        sku_id="SKU1",
        sku_price_id="SKU1.ONDEMAND",
        pricing_category="Standard",
        quantity=Decimal("5"),
        unit="GB-Months",
        effective_cost=Decimal("0.38"),
        billed_cost=Decimal("0.40"),
        list_cost=Decimal("0.41"),
        contracted_cost=Decimal("0.39"),
        currency="USD",
    )


def test_the_shared_sample_imports() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no shared data at {SHARED}")
    costs = DailyCosts()
    with (SHARED / "focus_sample_1.0.csv").open("rb") as file:
        pieces = list(costs.sum(read_bill(file, gzipped=False)))
    assert costs.facts.rows == 1000
    assert costs.facts.currency == "USD"
    assert costs.facts.billing_periods == {date(2024, 9, 1), date(2024, 10, 1)}
    assert costs.facts.left_out == {"Adjustment": 2, "Credit": 1, "without ResourceId": 74}
    assert sum(cost.rows for piece in pieces for cost in piece) == 1000 - 2 - 1 - 74
    # What an independent reading of the same file with another tool's arithmetic says.
    with (SHARED / "focus_sample_1.0.csv").open(newline="") as file:
        expected = sum(
            Decimal(row["BilledCost"])
            for row in csv.DictReader(file)
            if row["ChargeCategory"] == "Usage" and row["ResourceId"] != "NULL"
        )
    assert sum(cost.billed_cost for piece in pieces for cost in piece) == expected


# One entry for each tolerated dialect: the test below fails when the table and this list part.
TOLERATED = {
    "null_word": lambda: one(ResourceId="NULL").resource_id is None,
    "null_empty": lambda: one(ResourceId="").resource_id is None,
    "zone_missing": lambda: one(ChargePeriodStart="2024-09-02T00:00:00").starts_at == datetime(2024, 9, 2, tzinfo=UTC),
    "space_separator": lambda: (
        one(ChargePeriodStart="2024-09-02 00:00:00").starts_at == datetime(2024, 9, 2, tzinfo=UTC)
    ),
    "zone_zero": lambda: one(ChargePeriodStart="2024-09-02T00:00:00+00:00").starts_at.day == 2,
    "fraction_zero": lambda: one(ChargePeriodStart="2024-09-02T00:00:00.000Z").starts_at.day == 2,
    "exponent": lambda: one(EffectiveCost="3.8E-7").effective_cost == Decimal("0.00000038"),
    "extra_columns": lambda: read(bill(ROW | {"x_More": "?"}, columns=["x_More", *reversed(ROW)]))[0] == one(),
    "byte_order_mark": lambda: read(b"\xef\xbb\xbf" + bill(ROW)) == [one()],
    "sub_account_null": lambda: one(SubAccountId="").account == "111111111111",
    "contracted_cost_null": lambda: one(ContractedCost="NULL").contracted_cost is None,
    "sku_price_id_null": lambda: one(SkuPriceId="").sku_price_id == "SKU1",
    "ec2_arn": lambda: (
        one(ResourceId="arn:aws:ec2:us-east-1:222222222222:snapshot/snap-0a1b").resource_id == "snap-0a1b"
        and one(ResourceId="arn:aws:s3:::bucket/key").resource_id == "arn:aws:s3:::bucket/key"
    ),
}


def test_every_listed_dialect_has_its_case() -> None:
    assert set(TOLERATED) == set(DIALECTS)


@pytest.mark.parametrize("name", sorted(TOLERATED))
def test_dialect(name: str) -> None:
    assert TOLERATED[name]()


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("BilledCost", "", "null"),
        ("EffectiveCost", "NULL", "null"),
        ("EffectiveCost", "1,5", "number"),
        ("EffectiveCost", "$1", "number"),
        ("EffectiveCost", "+1", "number"),
        ("EffectiveCost", " 1", "number"),
        ("EffectiveCost", "NaN", "number"),
        ("EffectiveCost", "Infinity", "number"),
        ("EffectiveCost", "١", "number"),
        ("EffectiveCost", "1E+999", "number"),
        ("EffectiveCost", "1E-999", "number"),
        ("EffectiveCost", "1" * 21, "number"),
        ("EffectiveCost", "null", "number"),
        ("ListCost", "1.2.3", "number"),
        ("PricingQuantity", "", "null"),
        ("PricingUnit", "", "null"),
        ("SkuId", "", "null"),
        ("ProviderName", "", "null"),
        ("BillingAccountId", "NULL", ""),
        ("BillingCurrency", "usd", "currency"),
        ("BillingCurrency", "", "null"),
        ("ChargeCategory", "usage", "charge_category"),
        ("ChargeCategory", "", "charge_category"),
        ("ChargeClass", "Refund", "charge_class"),
        ("ChargePeriodStart", "2024-09-02T00:00:00+02:00", "timestamp"),
        ("ChargePeriodStart", "02.09.2024", "timestamp"),
        ("ChargePeriodStart", "2024-09-31T00:00:00Z", "timestamp"),
        ("ChargePeriodStart", "2024-09-02T00:00:00.5Z", "timestamp"),
        ("ChargePeriodStart", "", "null"),
        ("ChargePeriodStart", "1999-12-31T23:59:59Z", "date_range"),
        ("ChargePeriodStart", "0001-01-01T00:00:00Z", "date_range"),
        ("ChargePeriodStart", "0000-01-01T00:00:00Z", "timestamp"),
        ("ChargePeriodStart", "9999-12-31T00:00:00Z", "date_range"),
        ("ChargePeriodEnd", "2200-01-01T00:00:00Z", "date_range"),
        ("BillingPeriodStart", "9999-12-01T00:00:00Z", "date_range"),
        ("BillingPeriodEnd", "9999-12-31T00:00:00Z", "date_range"),
        ("ChargePeriodEnd", "2024-09-02T00:00:00Z", "charge_period"),
        ("BillingPeriodStart", "2024-09-02T00:00:00Z", "billing_period"),
        ("BillingPeriodStart", "2024-08-01T00:00:00Z", "billing_period"),
        ("ResourceId", "x" * 1025, "text"),
        ("ResourceId", "é" * 600, "text"),
    ],
)
def test_what_does_not_conform_is_refused_with_row_and_column(column: str, value: str, rule: str) -> None:
    if column == "BillingAccountId":  # Needed only where no sub-account stands in for it.
        assert one(BillingAccountId=value).account == "222222222222"
        column, rule, bad = "BillingAccountId", "null", ROW | {column: value, "SubAccountId": ""}
    else:
        bad = ROW | {column: value}
    error = refused(bill(ROW, ROW, bad, ROW))
    assert (error.row, error.column, error.rule) == (3, column, rule)
    assert error.way_out
    assert f"row 3, column {column}" in str(error)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_missing_column_is_named(column: str) -> None:
    error = refused(bill(ROW, columns=[name for name in ROW if name != column]))
    assert (error.row, error.column, error.rule) == (0, column, "column_missing")


def test_a_column_that_is_there_twice_is_ambiguous() -> None:
    header, line = bill(ROW).splitlines()
    error = refused(header + b",ListCost\r\n" + line + b",9\r\n")
    assert (error.column, error.rule) == ("ListCost", "column_twice")


@pytest.mark.parametrize(
    ("damage", "rule", "row"),
    [
        (lambda data: data + b"1,2,3\r\n", "field_count", 3),
        (lambda data: data + b"\r\n", "field_count", 3),
        (lambda data: data + b'"never closed', "csv", 3),
        (lambda data: data.replace(b"USD", b"U\xffD"), "encoding", 1),
        (lambda data: data.replace(b"USD", b"U\x00D"), "encoding", 1),
        (lambda data: b"", "column_missing", 0),
        (lambda data: b"\xff\xfe" + data, "encoding", 0),
        (lambda data: data + b"x" * (3 * 1024 * 1024), "csv", 3),
        (lambda data: gzip.compress(data), "encoding", 0),
    ],
)
def test_a_damaged_file_is_refused(damage, rule: str, row: int) -> None:  # type: ignore[no-untyped-def]
    error = refused(damage(bill(ROW, ROW)))
    assert (error.rule, error.row) == (rule, row)


def test_gzip_is_read_and_damage_to_it_is_seen() -> None:
    packed = gzip.compress(bill(*[ROW] * 50))
    assert len(read(packed, gzipped=True)) == 50
    assert refused(packed[:-9], gzipped=True).rule == "gzip"
    assert refused(packed[:-8] + b"\0\0\0\0" + packed[-4:], gzipped=True).rule == "gzip"
    assert refused(bill(ROW), gzipped=True).rule == "gzip"


def test_limits_refuse_a_bill_that_is_too_large() -> None:
    assert refused(bill(ROW, ROW, ROW), limits=BillLimits(max_rows=2)).rule == "size"
    packed = gzip.compress(bill(*[ROW] * 5000))
    assert len(packed) < 10_000
    assert refused(packed, gzipped=True, limits=BillLimits(max_bytes=100_000)).rule == "size"


def test_reading_needs_memory_for_a_chunk_and_not_for_the_bill() -> None:
    data = gzip.compress(bill(*[ROW] * 60_000))  # About 15 MB unpacked.
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_bill(io.BytesIO(data), gzipped=True)) == 60_000
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_hours_are_summed_to_their_utc_day() -> None:
    hours = [
        ROW | {"ChargePeriodStart": f"2024-09-02T{hour:02}:00:00Z", "ChargePeriodEnd": f"2024-09-02T{hour:02}:59:59Z"}
        for hour in range(24)
    ]
    (cost,) = daily(*hours)
    assert (cost.key.day, cost.key.kind, cost.rows) == (date(2024, 9, 2), CostKind.USAGE, 24)
    assert (cost.quantity, cost.effective_cost, cost.billed_cost) == (Decimal(120), Decimal("9.12"), Decimal("9.60"))
    assert (cost.list_cost, cost.contracted_cost) == (Decimal("9.84"), Decimal("9.36"))


def test_sums_are_exact_beyond_double_and_default_decimal_precision() -> None:
    tiny, huge = "0.00000000000000000000000000000000000001", "99999999999999999999"
    (cost,) = daily(ROW | {"EffectiveCost": tiny}, ROW | {"EffectiveCost": huge})
    assert str(cost.effective_cost) == huge + tiny[1:]


def test_one_unknown_contracted_cost_makes_the_day_unknown() -> None:
    (cost,) = daily(ROW, ROW | {"ContractedCost": "NULL"}, ROW)
    assert cost.contracted_cost is None


def test_tax_credit_purchase_and_adjustment_stay_out_and_corrections_apart() -> None:
    others = [
        ROW | {"ChargeCategory": name, "EffectiveCost": "-900"} for name in ("Tax", "Credit", "Purchase", "Adjustment")
    ]
    correction = ROW | {"ChargeClass": "Correction", "EffectiveCost": "-0.10", "PricingQuantity": "", "PricingUnit": ""}
    usage, corrected = daily(ROW, *others, correction)
    assert (usage.key.kind, usage.effective_cost) == (CostKind.USAGE, Decimal("0.38"))
    assert (corrected.key.kind, corrected.effective_cost) == (CostKind.CORRECTION, Decimal("-0.10"))


def test_a_charge_of_several_days_is_kept_apart_and_not_split() -> None:
    (cost,) = daily(ROW | {"ChargePeriodEnd": "2024-09-04T00:00:00Z"})
    assert (cost.key.kind, cost.key.day, cost.effective_cost) == (CostKind.SPANNING, date(2024, 9, 2), Decimal("0.38"))


def test_leap_day_is_a_day() -> None:
    period = {"BillingPeriodStart": "2024-02-01T00:00:00Z", "BillingPeriodEnd": "2024-03-01T00:00:00Z"}
    (cost,) = daily(
        ROW | period | {"ChargePeriodStart": "2024-02-29T00:00:00Z", "ChargePeriodEnd": "2024-03-01T00:00:00Z"}
    )
    assert (cost.key.day, cost.key.kind) == (date(2024, 2, 29), CostKind.USAGE)
    assert refused(bill(ROW | {"ChargePeriodStart": "2023-02-29T00:00:00Z"})).rule == "timestamp"


def test_two_currencies_refuse_the_batch() -> None:
    with pytest.raises(BillRefused) as caught:
        daily(ROW, ROW, ROW | {"BillingCurrency": "EUR"})
    assert (caught.value.row, caught.value.column, caught.value.rule) == (3, "BillingCurrency", "currency_mixed")


def test_a_row_of_another_billing_period_refuses_the_batch() -> None:
    with pytest.raises(BillRefused) as caught:
        daily(ROW, billing_period=date(2024, 10, 1))
    assert (caught.value.row, caught.value.rule) == (1, "billing_period_foreign")
    assert daily(ROW, billing_period=date(2024, 9, 1))


def test_a_large_bill_comes_in_pieces_that_add_up() -> None:
    rows = [ROW | {"ResourceId": f"vol-{at % 7}"} for at in range(70)]
    costs = DailyCosts(max_open=3)
    pieces = list(costs.sum(read(bill(*rows))))
    assert max(map(len, pieces)) <= 3
    total = {f"vol-{at}": Decimal(0) for at in range(7)}
    for cost in (cost for piece in pieces for cost in piece):
        total[cost.key.resource_id] += cost.effective_cost
    assert set(total.values()) == {Decimal("3.80")}


def test_a_file_may_be_without_rows_but_no_bill() -> None:
    assert read(bill()) == []
    with pytest.raises(BillRefused) as caught:
        daily()
    assert (caught.value.rule, caught.value.row) == ("empty", 0)
