"""What a detection is: its thresholds, its verdict, and the prices that it may ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from services.scanner.model.ledger import Entry
from services.scanner.model.resource import Resource

# AWS bills a month as 730 hours (365 days * 24 / 12) wherever it quotes a price by the month.
HOURS_A_MONTH = Decimal(730)


class Prices(Protocol):
    """Catalogue prices of one region, in one currency."""

    def unit(self, sku: str) -> Decimal | None:
        """The price of one unit, or None when it isn't known."""


@dataclass(frozen=True, slots=True)
class Sight:
    """All that a detection may look at: one resource, its ledger entry, the prices, other facts of the reading."""

    resource: Resource
    entry: Entry
    prices: Prices
    now: datetime
    settings: Mapping[str, Decimal]

    @property
    def age(self) -> timedelta:
        """How long the resource has been in its condition, as far as our own ledger knows."""
        return self.now - self.entry.since


@dataclass(frozen=True, slots=True)
class Match:
    """A detection's yes. `saving` is for a month, None when a price isn't known: never zero for want of one."""

    saving: Decimal | None
    evidence: Mapping[str, str]
    confidence: str = "HIGH"


@dataclass(frozen=True, slots=True)
class Undetermined:
    """A detection that can't say, and why: a fact or metric is missing. Never counted as a no."""

    reason: str


Verdict = Match | Undetermined | None


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number that an organization may set within limits."""

    default: Decimal
    lowest: Decimal
    highest: Decimal
    unit: str


@dataclass(frozen=True, slots=True)
class Detection:
    """An entry of the catalogue. `judge` is pure; `skus` are the prices that it asks for, by what it's asked about."""

    detection_id: str
    title: str
    resource_type: str
    thresholds: Mapping[str, Threshold]
    severity: str
    reads: tuple[str, ...]
    action_type: str
    action_permissions: tuple[str, ...]
    rollback: str
    rollback_permissions: tuple[str, ...]
    judge: Callable[[Sight], Verdict]
    skus: Callable[[Resource], tuple[str, ...]]

    def settings(self, chosen: Mapping[str, Decimal] | None = None) -> dict[str, Decimal]:
        """The thresholds in force: the defaults, with an organization's own choice held within the limits."""
        chosen = chosen or {}
        return {
            name: min(max(chosen.get(name, threshold.default), threshold.lowest), threshold.highest)
            for name, threshold in self.thresholds.items()
        }


def days(count: Decimal) -> timedelta:
    """A threshold in days as a duration."""
    return timedelta(seconds=float(count * 86400))


def plus(*parts: Decimal | None) -> Decimal | None:
    """A sum that is unknown as soon as one part of it is."""
    total = Decimal(0)
    for part in parts:
        if part is None:
            return None
        total += part
    return total


def times(quantity: Decimal, price: Decimal | None) -> Decimal | None:
    """Quantity times price; unknown when the price is, unless there is nothing to pay for."""
    if quantity == 0:
        return Decimal(0)
    return None if price is None else quantity * price
