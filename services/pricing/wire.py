"""Between pricing's messages and its model."""

from __future__ import annotations

from recoup.mesh.v1 import resource_pb2
from recoup.pricing.v1 import pricing_pb2 as pb
from services.pricing.model.catalogue import Price, PriceKey


def price_key(message: pb.PriceKey) -> PriceKey:
    """A unit to price."""
    return PriceKey(message.provider, message.region, message.sku)


def price(found: Price, version: str) -> pb.Price:
    """A price with its source, date and catalogue version."""
    return pb.Price(
        provider=found.key.provider,
        region=found.key.region,
        sku=found.key.sku,
        unit=found.unit,
        unit_price=resource_pb2.Money(amount=f"{found.unit_price:f}", currency=found.currency),
        source=found.source,
        source_date=found.source_date.isoformat(),
        price_version=version,
    )


def position(found: Price) -> str:
    """Where a list goes on after this price."""
    return "\n".join(found.key)


def after(text: str) -> PriceKey | None:
    """The price that a position names; None at the start."""
    return PriceKey(*text.split("\n")) if text else None
