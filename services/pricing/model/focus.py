"""Reads a FOCUS 1.0-1.2 bill row by row, strictly and in bounded memory.

It knows the columns and their rules; which deviations are tolerated stands in `dialects.py`. It must not sum, store or
correct anything: the first row that breaks a rule refuses the whole bill.
"""

from __future__ import annotations

import codecs
import csv
import enum
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import BinaryIO, NamedTuple, TypeVar, cast

from services.pricing.model.dialects import (
    Parsed,
    parse_currency,
    parse_number,
    parse_resource_id,
    parse_text,
    parse_timestamp,
)
from services.pricing.model.refusal import BillRefused, FieldRefused

T = TypeVar("T")

# What we need of FOCUS. Everything else in a bill is passed over.
COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "ListCost",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "RegionId",
    "ResourceId",
    "SkuId",
    "SkuPriceId",
    "SubAccountId",
)

MAX_LINE_BYTES = 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_PROVIDERS = {"AWS": "aws", "Amazon Web Services": "aws", "Microsoft": "azure", "Google Cloud": "gcp"}


class ChargeCategory(enum.StrEnum):
    """FOCUS ChargeCategory. Only Usage counts towards what a resource costs (SAVINGS, point 4)."""

    USAGE = "Usage"
    PURCHASE = "Purchase"
    TAX = "Tax"
    CREDIT = "Credit"
    ADJUSTMENT = "Adjustment"


class FocusRow(NamedTuple):
    """One charge. Costs are exact decimals in `currency`; `contracted_cost` is None where the provider omits it."""

    number: int
    billing_period: date
    provider: str
    account: str
    region: str
    resource_id: str | None
    category: ChargeCategory
    is_correction: bool
    starts_at: datetime
    ends_at: datetime
    sku_id: str
    sku_price_id: str
    pricing_category: str
    quantity: Decimal
    unit: str
    effective_cost: Decimal
    billed_cost: Decimal
    list_cost: Decimal
    contracted_cost: Decimal | None
    currency: str


@dataclass(frozen=True)
class BillLimits:
    """What a bill may have before it is refused as too large."""

    max_rows: int = 50_000_000
    max_bytes: int = 64 * 1024**3


def read_bill(stream: BinaryIO, *, gzipped: bool, limits: BillLimits = BillLimits()) -> Iterator[FocusRow]:
    """The bill's rows, in order. Memory is bounded by one chunk and one row. Raises BillRefused."""
    plain = cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if gzipped else stream
    records = csv.reader(_lines(plain, limits), strict=True)
    done = -1  # The number of the last record that was read; the header is 0.
    try:
        reader = _RowReader(next(records, []))
        done = 0
        for done, record in enumerate(records, start=1):
            if done > limits.max_rows:
                raise BillRefused("size", f"more than {limits.max_rows} rows.", "Split the export by account.")
            yield reader.row(done, record)
    except FieldRefused as refused:
        raise refused.at(done + 1, "") from refused
    except csv.Error as error:
        raise BillRefused("csv", f"not CSV as RFC 4180 has it: {error}.", "Export it again.", row=done + 1) from error
    except (EOFError, OSError, zlib.error) as error:
        raise BillRefused(
            "gzip", f"the file is cut off or damaged: {error}.", "Fetch it again.", row=done + 1
        ) from error


def _lines(stream: BinaryIO, limits: BillLimits) -> Iterator[str]:
    """The stream's lines. csv alone would read a file without line breaks into memory."""
    rest = stream.read(len(codecs.BOM_UTF8))
    rest, size = (b"" if rest == codecs.BOM_UTF8 else rest), len(rest)
    while chunk := stream.read(_CHUNK_BYTES):
        size += len(chunk)
        if size > limits.max_bytes:
            raise FieldRefused("size", f"over {limits.max_bytes} bytes unpacked.", "Split the export by account.")
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise FieldRefused("csv", f"a line is longer than {MAX_LINE_BYTES} bytes.", "Export it again.")
        yield from (_text(line) + "\n" for line in whole)
    if rest:
        yield _text(rest)


def _text(line: bytes) -> str:
    if b"\0" in line:
        raise FieldRefused("encoding", "a NUL character.", "Export it as UTF-8 text.")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise FieldRefused("encoding", "not UTF-8.", "Export it as UTF-8 text.") from error


class _RowReader:
    """Turns the records of one file into rows. Holds where its columns are, and values that were parsed before."""

    def __init__(self, header: list[str]) -> None:
        self._width = len(header)
        self._at = _positions(header)
        self._texts = Parsed(parse_text)
        self._numbers = Parsed(parse_number)
        self._times = Parsed(parse_timestamp)
        self._currencies = Parsed(parse_currency)
        self._record: list[str] = []
        self._number = 0

    def row(self, number: int, record: list[str]) -> FocusRow:
        self._record, self._number = record, number
        if len(record) != self._width:
            raise self._refused(
                "", "field_count", f"{len(record)} fields instead of {self._width}.", "Export it again."
            )
        category = self._category()
        is_correction = self._is_correction()
        # FOCUS lets quantity, unit and SKU be null for corrections, and for charges that are neither used nor bought.
        priced = category is ChargeCategory.USAGE and not is_correction
        starts_at, ends_at = self._charge_period()
        sku_id = self._needed("SkuId", self._texts) if priced else self._value("SkuId", self._texts) or ""
        provider = self._needed("ProviderName", self._texts)
        return FocusRow(
            number=number,
            billing_period=self._billing_period(),
            provider=_PROVIDERS.get(provider, provider.lower()),
            account=self._value("SubAccountId", self._texts) or self._needed("BillingAccountId", self._texts),
            region=self._value("RegionId", self._texts) or "global",
            resource_id=self._resource_id(),
            category=category,
            is_correction=is_correction,
            starts_at=starts_at,
            ends_at=ends_at,
            sku_id=sku_id,
            sku_price_id=self._value("SkuPriceId", self._texts) or sku_id,
            pricing_category=self._value("PricingCategory", self._texts) or "",
            quantity=self._quantity(priced),
            unit=self._needed("PricingUnit", self._texts) if priced else self._value("PricingUnit", self._texts) or "",
            effective_cost=self._needed("EffectiveCost", self._numbers),
            billed_cost=self._needed("BilledCost", self._numbers),
            list_cost=self._needed("ListCost", self._numbers),
            contracted_cost=self._value("ContractedCost", self._numbers),
            currency=self._needed("BillingCurrency", self._currencies),
        )

    def _value(self, column: str, parsed: Parsed[T | None]) -> T | None:
        try:
            return parsed[self._record[self._at[column]]]
        except FieldRefused as refused:
            raise refused.at(self._number, column) from refused

    def _needed(self, column: str, parsed: Parsed[T | None]) -> T:
        value = self._value(column, parsed)
        if value is None:
            raise self._refused(column, "null", "must not be null here.", "FOCUS requires it; ask the provider.")
        return value

    def _quantity(self, priced: bool) -> Decimal:
        if priced:
            return self._needed("PricingQuantity", self._numbers)
        return self._value("PricingQuantity", self._numbers) or Decimal(0)

    def _resource_id(self) -> str | None:
        # Ids rarely repeat in the order of a bill, so that remembering them would cost more than it saves.
        try:
            return parse_resource_id(self._record[self._at["ResourceId"]])
        except FieldRefused as refused:
            raise refused.at(self._number, "ResourceId") from refused

    def _category(self) -> ChargeCategory:
        text = self._record[self._at["ChargeCategory"]]
        category = _CATEGORIES.get(text)
        if category is None:
            known = ", ".join(ChargeCategory)
            raise self._refused(
                "ChargeCategory", "charge_category", f"{text[:40]!r} is unknown.", f"FOCUS has: {known}."
            )
        return category

    def _is_correction(self) -> bool:
        text = self._value("ChargeClass", self._texts)
        if text not in (None, "Correction"):
            raise self._refused(
                "ChargeClass", "charge_class", f"{text[:40]!r} is unknown.", "FOCUS has: Correction or null."
            )
        return text is not None

    def _charge_period(self) -> tuple[datetime, datetime]:
        starts_at = self._needed("ChargePeriodStart", self._times)
        ends_at = self._needed("ChargePeriodEnd", self._times)
        if ends_at <= starts_at:
            raise self._refused(
                "ChargePeriodEnd", "charge_period", "doesn't lie after ChargePeriodStart.", "Export it again."
            )
        return starts_at, ends_at

    def _billing_period(self) -> date:
        start = self._needed("BillingPeriodStart", self._times)
        end = self._needed("BillingPeriodEnd", self._times)
        if start.day != 1 or start.timetz().replace(tzinfo=None) != datetime.min.time() or end != _next_month(start):
            rule = "must be one calendar month in UTC, from its first midnight to the next one's."
            raise self._refused("BillingPeriodStart", "billing_period", rule, "Other billing periods aren't supported.")
        return start.date()

    def _refused(self, column: str, rule: str, message: str, way_out: str) -> BillRefused:
        return BillRefused(rule, message, way_out, row=self._number, column=column)


_CATEGORIES = {str(category): category for category in ChargeCategory}


def _positions(header: list[str]) -> dict[str, int]:
    for column in COLUMNS:
        if column not in header:
            raise BillRefused(
                "column_missing", "the column is missing.", "Export all columns of FOCUS 1.0.", column=column
            )
        if header.count(column) > 1:
            raise BillRefused("column_twice", "the column is there twice.", "Export it again.", column=column)
    return {column: header.index(column) for column in COLUMNS}


def _next_month(first: datetime) -> datetime:
    return (first + timedelta(days=31)).replace(day=1)
