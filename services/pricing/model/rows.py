"""What one resource used and cost on one day for one line, and how documents write it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from services.pricing.model.arithmetic import plain

_NUMBER = re.compile(r"0|-?(?:0|[1-9][0-9]{0,59})(?:\.[0-9]{0,59}[1-9])?")


@dataclass(frozen=True, slots=True)
class ResourceKey:
    """What names a cloud resource everywhere; the fields are those of `recoup.mesh.v1.ResourceKey`."""

    provider: str
    partition: str
    account: str
    region: str
    type: str
    id: str

    def document(self) -> dict[str, str]:
        """The key as it stands in canonical documents."""
        return {name: getattr(self, name) for name in self.__slots__}


class Line(NamedTuple):
    """What tells the charges of one resource and day apart. `unit` is what the quantity counts."""

    sku_id: str
    sku_price_id: str
    pricing_category: str
    unit: str

    @property
    def is_by_the_month(self) -> bool:
        """Whether the unit's price is that of a month, so that a day of a longer month costs less."""
        return self.unit.lower().endswith(("month", "months"))


class CostRow(NamedTuple):
    """The sum of all charges of one resource on one day for one line. Sorted, rows are in the documents' order."""

    day: date
    line: Line
    quantity: Decimal
    effective_cost: Decimal
    billed_cost: Decimal
    list_cost: Decimal
    contracted_cost: Decimal | None

    def document(self) -> dict[str, str]:
        """The row as documents have it: texts by name."""
        return {
            "day": self.day.isoformat(),
            **self.line._asdict(),
            "quantity": plain(self.quantity),
            "effective_cost": plain(self.effective_cost),
            "billed_cost": plain(self.billed_cost),
            "list_cost": plain(self.list_cost),
            "contracted_cost": "" if self.contracted_cost is None else plain(self.contracted_cost),
        }


class Sums(NamedTuple):
    """What several rows come to."""

    quantity: Decimal
    effective_cost: Decimal
    billed_cost: Decimal
    list_cost: Decimal


def sums_of(rows: Iterable[CostRow]) -> Sums:
    """The sums of rows, in their order."""
    total = Sums(Decimal(0), Decimal(0), Decimal(0), Decimal(0))
    for row in rows:
        total = Sums(
            total.quantity + row.quantity,
            total.effective_cost + row.effective_cost,
            total.billed_cost + row.billed_cost,
            total.list_cost + row.list_cost,
        )
    return total


def in_order(rows: Iterable[CostRow]) -> tuple[CostRow, ...]:
    """Rows by day and line."""
    return tuple(sorted(rows, key=lambda row: (row.day, row.line)))


def read_row(document: Mapping[str, Any]) -> CostRow:
    """A document's row. Raises ValueError or KeyError for anything that `CostRow.document` doesn't write."""
    contracted = document["contracted_cost"]
    made = CostRow(
        date.fromisoformat(document["day"]),
        Line(*(_text(document[name]) for name in Line._fields)),
        read_decimal(document["quantity"]),
        read_decimal(document["effective_cost"]),
        read_decimal(document["billed_cost"]),
        read_decimal(document["list_cost"]),
        None if contracted == "" else read_decimal(contracted),
    )
    if made.document() != document:
        raise ValueError("a row isn't written as the method says")
    return made


def read_decimal(text: Any) -> Decimal:
    """A decimal as documents write it. Raises ValueError."""
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise ValueError(f"{str(text)[:40]!r} isn't a decimal as the method writes it")
    return Decimal(text)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a line's fields are texts")
    return value
