"""The price catalogue: what one unit costs where, by which source of which date.

Pure lookup. An unknown price is PriceUnknown and never zero; figures are the public on-demand list prices, in no
customer's discount.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple


class PriceUnknown(Exception):
    """No price is known for this unit."""

    def __init__(self, key: PriceKey) -> None:
        super().__init__(f"No price is known for {key.sku} in {key.region} of {key.provider}.")
        self.key = key


class CatalogueBroken(Exception):
    """A catalogue that can't be used; raised when the process starts."""


class PriceKey(NamedTuple):
    """A unit to price, such as ("aws", "us-east-1", "ebs.gp3.gb_month")."""

    provider: str
    region: str
    sku: str


@dataclass(frozen=True)
class Price:
    """What one `unit` costs, in `currency`."""

    key: PriceKey
    unit: str
    unit_price: Decimal
    currency: str
    source: str
    source_date: date


class Catalogue:
    """All prices, and the version that names exactly these figures: SHA-256 of their canonical form."""

    def __init__(self, prices: Iterable[Price]) -> None:
        """Raises CatalogueBroken on a price that is there twice, or is not above zero."""
        self._prices: dict[PriceKey, Price] = {}
        for price in prices:
            if price.key in self._prices:
                raise CatalogueBroken(f"{price.key} is there twice")
            if price.unit_price <= 0:
                raise CatalogueBroken(f"{price.key} costs {price.unit_price}; leave out what isn't known")
            self._prices[price.key] = price
        self._sorted = sorted(self._prices.values(), key=lambda price: price.key)
        self.version = _version(self._sorted)

    def __len__(self) -> int:
        return len(self._prices)

    def find(self, key: PriceKey) -> Price | None:
        """The price, or None where it isn't known."""
        return self._prices.get(key)

    def get(self, key: PriceKey) -> Price:
        """The price. Raises PriceUnknown."""
        price = self.find(key)
        if price is None:
            raise PriceUnknown(key)
        return price

    def list(self, *, region: str = "", sku_prefix: str = "", after: PriceKey | None = None) -> Iterator[Price]:
        """Prices in the order of their keys, from behind `after`."""
        for price in self._sorted:
            if after is not None and price.key <= after:
                continue
            if region in ("", price.key.region) and price.key.sku.startswith(sku_prefix):
                yield price


def prices_of(document: Mapping[str, Any]) -> Iterator[Price]:
    """The prices of a data file: {provider, currency, source, source_date, units: {sku: {unit, prices: {region}}}}.

    Prices are decimal strings. A unit may name a source and date of its own.
    """
    for sku, unit in document["units"].items():
        for region, figure in unit["prices"].items():
            yield Price(
                key=PriceKey(document["provider"], region, sku),
                unit=unit["unit"],
                unit_price=Decimal(figure),
                currency=document["currency"],
                source=unit.get("source", document["source"]),
                source_date=date.fromisoformat(unit.get("source_date", document["source_date"])),
            )


def _version(prices: Iterable[Price]) -> str:
    digest = hashlib.sha256()
    for price in prices:
        figure = format(price.unit_price.normalize(), "f")
        record = [*price.key, price.unit, figure, price.currency, price.source, price.source_date.isoformat()]
        digest.update(json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()
