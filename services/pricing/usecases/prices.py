"""What pricing decides about catalogue prices, one function a decision."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from services.pricing.model.catalogue import Catalogue, Price, PriceKey


def lookup_prices(catalogue: Catalogue, keys: Iterable[PriceKey]) -> list[Price]:
    """The prices that are known; an unknown one is left out, never zero."""
    return [price for key in keys if (price := catalogue.find(key)) is not None]


def list_prices(
    catalogue: Catalogue, *, region: str, sku_prefix: str, after: PriceKey | None, limit: int
) -> list[Price]:
    """Prices in the order of their keys; one more than `limit` shows that there are more."""
    return list(islice(catalogue.list(region=region, sku_prefix=sku_prefix, after=after), limit + 1))
