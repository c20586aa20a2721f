"""Findings: what the detections make of a reading, with prices. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from services._mesh.ids import uuid7
from services.scanner.model.resource import ResourceKey


@dataclass(frozen=True, slots=True)
class Finding:
    """Spend that could be recovered. `saving` is for a month, None when a price isn't known."""

    finding_id: UUID
    connection_id: UUID
    scan_id: UUID
    detection_id: str
    resource: ResourceKey
    resource_name: str
    actionability: str
    saving: Decimal | None
    currency: str
    price_version: str
    severity: str
    confidence: str
    evidence: Mapping[str, str]
    action_type: str
    first_seen_at: datetime
    last_seen_at: datetime


@dataclass(frozen=True, slots=True)
class PriceBook:
    """Catalogue prices of one region in one currency, and the catalogue's version."""

    prices: Mapping[str, Decimal]
    currency: str
    version: str

    def unit(self, sku: str) -> Decimal | None:
        """The price of one unit, or None when it isn't known."""
        return self.prices.get(sku)


def new_id() -> UUID:
    """The id of a finding that may turn out to be new."""
    return uuid7()


Evidence = Mapping[str, str]
Undetermined = Sequence[tuple[ResourceKey, str, str]]
