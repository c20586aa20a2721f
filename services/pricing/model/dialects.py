"""Reads the values of a FOCUS bill: what FOCUS 1.0-1.2 prescribes, and the deviations listed in `DIALECTS`.

Nothing else is tolerated: a value that is neither is refused. Pure functions of one text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TypeVar

from services.pricing.model.refusal import FieldRefused

T = TypeVar("T")

# Every deviation from the specification that real exports show and that loses nothing when it is read.
DIALECTS: dict[str, str] = {
    "null_word": "NULL, unquoted or quoted, is null.",
    "null_empty": "An empty field is null.",
    "zone_missing": "A timestamp without a zone is UTC, as FOCUS prescribes UTC for all of them.",
    "space_separator": "A blank may stand where a timestamp has its T.",
    "zone_zero": "+00:00 may stand where a timestamp has its Z.",
    "fraction_zero": "A fraction of a second may be written if it is zero.",
    "exponent": "A number may have an exponent (4E-7): FOCUS forbids it, data frames write it, and nothing is lost.",
    "extra_columns": "Columns that we don't need, FOCUS's own or others, in any order, are not looked at.",
    "byte_order_mark": "The file may start with UTF-8's byte order mark.",
    "sub_account_null": "Without SubAccountId the charge belongs to the billing account, as FOCUS says.",
    "contracted_cost_null": "Without ContractedCost (Oracle) that measure is unknown for the day; it isn't zero.",
    "sku_price_id_null": "Without SkuPriceId (Oracle) the SkuId stands for it.",
    "ec2_arn": "An EC2 ResourceId written as an ARN (snapshots, addresses) is the id at its end.",
}

# 20 digits before the point are beyond any bill; 38 after it hold whatever a double or a decimal(38) can say.
MAX_INTEGER_DIGITS = 20
MAX_FRACTION_DIGITS = 38
# No cloud was billed before, and nothing is billed so far ahead: days and moments near the calendar's ends, which date
# arithmetic would run over, are somebody's placeholder.
FIRST_DAY, LAST_DAY = date(2000, 1, 1), date(2199, 12, 31)
MAX_TEXT_BYTES = 1024  # What the database can index with room to spare.

PLAUSIBLE = f"Only days from {FIRST_DAY} to {LAST_DAY} are read."

_NUMBER = re.compile(r"-?[0-9]{1,60}(?:\.[0-9]{1,60})?(?:[eE][+-]?[0-9]{1,3})?")
_TIMESTAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.0{1,9})?(?:Z|\+00:00)?")
_CURRENCY = re.compile(r"[A-Z]{3}")
_EC2_ARN = re.compile(r"arn:aws[a-z-]*:ec2:[a-z0-9-]*:[0-9]*:[a-z-]+/([a-z]+-[0-9a-f]+)")


class Parsed(dict[str, T]):
    """Values by their text, each parsed once: a bill repeats its days, prices and zeros.

    Bounded: a full memory is emptied, which costs time and never changes a result.
    """

    _MOST = 50_000

    def __init__(self, parse: Callable[[str], T]) -> None:
        super().__init__()
        self._parse = parse

    def __missing__(self, text: str) -> T:
        if len(self) >= self._MOST:
            self.clear()
        value = self[text] = self._parse(text)
        return value


def parse_text(text: str) -> str | None:
    """A text, or null."""
    if text == "" or text == "NULL":
        return None
    if len(text) * 4 > MAX_TEXT_BYTES and len(text.encode()) > MAX_TEXT_BYTES:
        raise FieldRefused(
            "text", f"the text is longer than {MAX_TEXT_BYTES} bytes.", "No known provider writes such ids."
        )
    return text


def parse_number(text: str) -> Decimal | None:
    """An exact decimal, or null. Never passes through a float."""
    if text == "" or text == "NULL":
        return None
    if not _NUMBER.fullmatch(text):
        raise FieldRefused("number", f"{_shown(text)} is not a number.", 'Write it plainly, such as "-1234.5".')
    number = Decimal(text)
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)  # The grammar above has neither NaN nor infinity.
    if -exponent > MAX_FRACTION_DIGITS or (number and number.adjusted() >= MAX_INTEGER_DIGITS):
        most = f"{MAX_INTEGER_DIGITS} digits before the point and {MAX_FRACTION_DIGITS} after it"
        raise FieldRefused("number", f"{_shown(text)} has too many digits.", f"At most {most} are read.")
    return number if exponent <= 0 else number.quantize(Decimal(1))


def parse_timestamp(text: str) -> datetime | None:
    """An instant in UTC with whole seconds, or null."""
    if text == "" or text == "NULL":
        return None
    found = _TIMESTAMP.fullmatch(text)
    try:
        moment = datetime.fromisoformat(f"{found[1]}T{found[2]}+00:00") if found else _not_utc(text)
    except ValueError:
        return _not_utc(text)
    if not is_plausible(moment.date()):
        raise FieldRefused("date_range", f"{_shown(text)} is no time of a bill.", PLAUSIBLE)
    return moment.astimezone(UTC)


def is_plausible(day: date) -> bool:
    """Whether a bill can have to do with a day."""
    return FIRST_DAY <= day <= LAST_DAY


def parse_currency(text: str) -> str | None:
    """An ISO 4217 code, or null."""
    if text == "" or text == "NULL":
        return None
    if not _CURRENCY.fullmatch(text):
        raise FieldRefused("currency", f"{_shown(text)} is not a currency code.", 'Write ISO 4217, such as "USD".')
    return text


def parse_resource_id(text: str) -> str | None:
    """A resource's id as the provider's API names it, or null."""
    value = parse_text(text)
    found = _EC2_ARN.fullmatch(value) if value else None
    return found[1] if found else value


def _not_utc(text: str) -> datetime:
    raise FieldRefused(
        "timestamp",
        f"{_shown(text)} is not a UTC timestamp.",
        'Write it as "2024-09-01T00:00:00Z"; other zones are refused.',
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
