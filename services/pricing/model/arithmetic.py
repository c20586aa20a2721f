"""The method's arithmetic (verifier/METHOD.md, "Arithmetic"): 60 digits, half-even, never a float.

Whoever computes by the method does so within `exactly()`; Python's own context has 28 digits.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow, localcontext

_CONTEXT = Context(prec=60, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow])
_PLACES_12 = Decimal("1E-12")
ZERO = Decimal(0)


def exactly() -> AbstractContextManager[Context]:
    """Within this, Decimal computes as the method says."""
    return localcontext(_CONTEXT)


def plain(value: Decimal) -> str:
    """A decimal as documents write it: no exponent, no plus, no zeros at the end of a fraction, "0" for zero."""
    if not value:
        return "0"
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def a12(value: Decimal) -> Decimal:
    """Rounded once, half-even, to 12 places after the point."""
    return value.quantize(_PLACES_12, rounding=ROUND_HALF_EVEN, context=_CONTEXT)


def scaled(value: Decimal) -> int:
    """The integer that the interval computes with: times 10^12, rounded half-even."""
    return int((value * 10**12).to_integral_value(ROUND_HALF_EVEN))


def median(values: Sequence[Decimal]) -> Decimal:
    """The median; of an even count the mean of the two in the middle."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def whole_median(values: Sequence[int]) -> int:
    """The median of integers; of an even count the sum of the two in the middle, divided by 2, rounded down."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) // 2


def days_in_month(day: date) -> int:
    """How many days the month of a day has."""
    return calendar.monthrange(day.year, day.month)[1]
