"""Reads what bills are made of: days, decimals, rows and batches, each in its one spelling. Raises what it refuses."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from recoup_verify.documents import Disproved, shape, shaped

MAX_ROWS, MAX_BATCHES, MAX_LEAKING = 20_000, 1_000, 100
# At most 60 digits before the point, and 60 after it.
_WHOLE, _FRACTION = "(?:0|[1-9][0-9]{0,59})", r"\.[0-9]{0,59}[1-9]"
_DECIMAL = re.compile(f"0|-?(?:[1-9][0-9]{{0,59}}|{_WHOLE}{_FRACTION})")
# Of this millennium: a window around a day is then always days, too.
_DAY = re.compile(r"2[0-9]{3}-[0-9]{2}-[0-9]{2}")
_PERIOD = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CURRENCY = re.compile(r"[A-Z]{3}")
PROVENANCES = ("PROVIDER_FETCHED", "USER_UPLOADED")
_LINE = shape(texts="sku_id sku_price_id pricing_category unit")
_SUMS = shape(texts="quantity effective_cost billed_cost list_cost")
_ROW = {**_LINE, **_SUMS, **shape(texts="day contracted_cost")}
_PRICE = {**_LINE, **_SUMS, **shape(texts="source")}
_BATCH = shape(
    texts="batch_id billing_period sha256 provenance object object_version currency complete_through",
    numbers="rows",
    flags="period_closed",
)


class Line(NamedTuple):
    """What a charge is for."""

    sku_id: str
    sku_price_id: str
    pricing_category: str
    unit: str


class Sums(NamedTuple):
    """A quantity and what it cost, by the three measures."""

    quantity: Decimal
    effective: Decimal
    billed: Decimal
    list: Decimal


class Row(NamedTuple):
    """All charges of one resource on one day for one line."""

    day: date
    line: Line
    sums: Sums


def decimal_of(text: Any, where: str) -> Decimal:
    """A decimal as METHOD.md writes it. Raises Disproved."""
    if not isinstance(text, str) or not _DECIMAL.fullmatch(text):
        raise Disproved(f"{where} isn't a decimal in its plain spelling")
    return Decimal(text)


def day_of(text: Any, where: str) -> date:
    """A UTC day. Raises Disproved."""
    try:
        if not isinstance(text, str) or not _DAY.fullmatch(text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise Disproved(f"{where} isn't a day") from None


def days_of(texts: Sequence[Any], where: str) -> list[date]:
    """Days, ascending, each once. Raises Disproved."""
    days = [day_of(text, f"a day of {where}") for text in texts]
    if any(later <= earlier for earlier, later in itertools.pairwise(days)):
        raise Disproved(f"{where} must be days in ascending order, each once")
    return days


def currency_of(text: str, where: str) -> str:
    """A currency's code (ISO 4217). Raises Disproved."""
    if not _CURRENCY.fullmatch(text):
        raise Disproved(f"{where} isn't a currency")
    return text


def sums_of(document: Any, where: str) -> Sums:
    """The four sums of a row or price. Raises Disproved."""
    return Sums(*(decimal_of(document[name], f"{where}: {name}") for name in _SUMS))


def line_of(document: Any) -> Line:
    """The line of a row or price."""
    return Line(*(document[name] for name in _LINE))


def rows_of(documents: Sequence[Any], where: str, days: Collection[date]) -> list[Row]:
    """Rows on these days, by day and line, each once. Raises Disproved, CannotTell."""
    if len(documents) > MAX_ROWS:
        raise Disproved(f"{where} are more than {MAX_ROWS}")
    rows = [_row(document, f"row {number} of {where}", days) for number, document in enumerate(documents, 1)]
    keys = [(row.day, row.line) for row in rows]
    if any(later <= earlier for earlier, later in itertools.pairwise(keys)):
        raise Disproved(f"{where} must be in the order of day and line, each once")
    return rows


def _row(document: Any, where: str, days: Collection[date]) -> Row:
    shaped(document, where, _ROW)
    day = day_of(document["day"], where)
    if day not in days:
        raise Disproved(f"{where} is of {day}, which isn't one of its days")
    if document["contracted_cost"]:
        decimal_of(document["contracted_cost"], f"{where}: contracted_cost")
    return Row(day, line_of(document), sums_of(document, where))


class Price(NamedTuple):
    """The sums behind a line's unit price, and whether they're of the reporting period or of the baseline."""

    source: str
    sums: Sums


def prices_of(documents: Sequence[Any]) -> dict[Line, Price]:
    """The prices, in the order of their lines, each once. Raises Disproved, CannotTell."""
    found: dict[Line, Price] = {}
    for number, document in enumerate(documents, 1):
        where = f"price {number}"
        shaped(document, where, _PRICE)
        if document["source"] not in ("REPORTING", "BASELINE"):
            raise Disproved(f"{where} has an unknown source")
        if found and line_of(document) <= next(reversed(found)):
            raise Disproved("the prices must be in the order of their lines, each once")
        found[line_of(document)] = Price(document["source"], sums_of(document, where))
    return found


def check_batches(documents: Sequence[Any], where: str) -> None:
    """Raise Disproved, CannotTell unless these are batches, by period and id, each once."""
    if len(documents) > MAX_BATCHES:
        raise Disproved(f"the batches of {where} are more than {MAX_BATCHES}")
    for number, document in enumerate(documents, 1):
        _check_batch(document, f"batch {number} of {where}")
    keys = [(document["billing_period"], document["batch_id"]) for document in documents]
    if any(later <= earlier for earlier, later in itertools.pairwise(keys)):
        raise Disproved(f"the batches of {where} must be in the order of period and id, each once")
    if len({document["batch_id"] for document in documents}) != len(documents):
        raise Disproved(f"{where} has a batch in two billing periods")


def _check_batch(document: Any, where: str) -> None:
    shaped(document, where, _BATCH)
    currency_of(document["currency"], f"{where}: its currency")
    if document["complete_through"]:
        day_of(document["complete_through"], f"{where}: complete_through")
    if not _PERIOD.fullmatch(document["billing_period"]) or not _DIGEST.fullmatch(document["sha256"]):
        raise Disproved(f"{where} has no billing period or no digest")
    if document["provenance"] not in PROVENANCES or document["rows"] < 0 or not document["batch_id"]:
        raise Disproved(f"{where} has an unknown provenance, a negative count or no id")
