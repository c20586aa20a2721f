"""Turns what existed when into metered usage: per resource and day, quantities with unit prices. Pure.

Quantities follow the provider's arithmetic: GiB-months are GiB x hours / hours of that month.
"""

from __future__ import annotations

import calendar
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from recoup_local.cloud.bill import prices

QUANTUM = Decimal("0.0000000001")
Attributes = dict[str, str]


@dataclass
class Segment:
    """A stretch of time with the same billable attributes; still going on if `end` is None."""

    start: datetime
    end: datetime | None
    attributes: Attributes


@dataclass
class Metered:
    """One resource as the meter knows it. `kind`: volume, snapshot, address or instance."""

    kind: str
    id: str
    account: str
    region: str
    zone: str
    tags: dict[str, str]
    segments: list[Segment] = field(default_factory=list)


@dataclass(frozen=True)
class Usage:
    """One metered line: `quantity` of `unit` at `unit_price` (USD), before discounts."""

    usage_type: str
    operation: str
    unit: str
    quantity: Decimal
    unit_price: Decimal
    description: str


def hours_on(segment: Segment, day: date) -> Decimal:
    """How many hours of a UTC day a segment covers."""
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    end = begin + timedelta(days=1)
    covered = min(segment.end or end, end) - max(segment.start, begin)
    return max(Decimal(int(covered.total_seconds())), Decimal(0)) / 3600


def month_hours(day: date) -> int:
    """The hours of the month that a day is in."""
    return 24 * calendar.monthrange(day.year, day.month)[1]


def usage_of(resource: Metered, day: date) -> list[Usage]:
    """What a resource used on a day, with equal lines of its segments added up."""
    totals: dict[str, Usage] = {}
    for segment in resource.segments:
        hours = hours_on(segment, day)
        if hours <= 0:
            continue
        for line in _METERS[resource.kind](resource, segment.attributes, hours, day):
            before = totals[line.usage_type].quantity if line.usage_type in totals else Decimal(0)
            quantity = before + line.quantity
            totals[line.usage_type] = Usage(
                line.usage_type, line.operation, line.unit, quantity, line.unit_price, line.description
            )
    return [line for line in totals.values() if line.quantity > 0]


def _volume(resource: Metered, attributes: Attributes, hours: Decimal, day: date) -> Iterator[Usage]:
    region = prices.priced_region(resource.region)
    kind, share = attributes["type"], hours / month_hours(day)
    prefix = prices.USAGE_PREFIXES.get(resource.region, "")
    price = prices.VOLUME_GIB_MONTH[region][kind]
    usage_type = f"{prefix}EBS:VolumeUsage" + ("" if kind == "standard" else f".{kind}")
    text = f"${price} per GB-month of {kind} provisioned storage"
    yield Usage(usage_type, "CreateVolume", "GB-Months", _q(Decimal(attributes["size"]) * share), price, text)
    extra_iops = int(attributes.get("iops") or 0) - prices.INCLUDED_IOPS.get(kind, 10**9)
    if extra_iops > 0:
        price = prices.VOLUME_IOPS_MONTH[region][kind]
        text = f"${price} per IOPS-month provisioned ({kind})"
        usage_type = f"{prefix}EBS:VolumeP-IOPS.{kind}"
        yield Usage(usage_type, "CreateVolume", "IOPS-Months", _q(extra_iops * share), price, text)
    extra_mibps = int(attributes.get("throughput") or 0) - prices.INCLUDED_MIBPS.get(kind, 10**9)
    if extra_mibps > 0:
        price = prices.VOLUME_MIBPS_MONTH[region]
        text = f"${price} per MiBps-month provisioned ({kind})"
        usage_type = f"{prefix}EBS:VolumeP-Throughput.{kind}"
        yield Usage(usage_type, "CreateVolume", "MiBps-Months", _q(extra_mibps * share), price, text)


def unique_gib(snapshot_id: str, size_gib: int) -> Decimal:
    """The blocks that only this snapshot holds: between 15 and 85 % of the volume, fixed by its id.

    The provider bills these, not the volume's size, and says neither in any API that lists snapshots.
    """
    number = int.from_bytes(hashlib.sha256(snapshot_id.encode("utf-8")).digest()[:4], "big")
    return (Decimal(size_gib) * (15 + number % 71) / 100).quantize(Decimal("0.01"))


def _snapshot(resource: Metered, attributes: Attributes, hours: Decimal, day: date) -> Iterator[Usage]:
    tier = attributes["tier"]
    price = prices.SNAPSHOT_GIB_MONTH[tier]
    prefix = prices.USAGE_PREFIXES.get(resource.region, "")
    quantity = unique_gib(resource.id, int(attributes["size"])) * hours / month_hours(day)
    usage_type = f"{prefix}EBS:SnapshotUsage" if tier == "standard" else f"{prefix}EBS:SnapshotArchiveStorage"
    text = f"${price} per GB-Month of snapshot data stored"
    yield Usage(usage_type, "CreateSnapshot", "GB-Months", _q(quantity), price, text)


def _address(resource: Metered, attributes: Attributes, hours: Decimal, day: date) -> Iterator[Usage]:
    prefix = prices.USAGE_PREFIXES.get(resource.region, "USE1-" if resource.region == "us-east-1" else "")
    word = "Idle" if attributes["idle"] == "true" else "InUse"
    text = f"${prices.PUBLIC_IPV4_HOUR} per {word} public IPv4 address per hour"
    operation = "AllocateAddressVPC" if word == "Idle" else "AssociateAddressVPC"
    name = f"{prefix}PublicIPv4:{word}Address"
    yield Usage(name, operation, "Hours", _q(hours), prices.PUBLIC_IPV4_HOUR, text)


def _instance(resource: Metered, attributes: Attributes, hours: Decimal, day: date) -> Iterator[Usage]:
    if attributes["running"] != "true":
        return
    kind, region = attributes["type"], prices.priced_region(resource.region)
    price = prices.INSTANCE_HOUR[region].get(kind, Decimal("0.1"))
    prefix = prices.USAGE_PREFIXES.get(resource.region, "")
    text = f"${price} per On Demand Linux {kind} Instance Hour"
    yield Usage(f"{prefix}BoxUsage:{kind}", "RunInstances", "Hours", _q(hours), price, text)
    gigabytes = _noisy(resource.id, day, Decimal(4)) * hours / 24
    text = f"${prices.TRANSFER_GB} per GB - data transfer out"
    yield Usage(f"{prefix}DataTransfer-Out-Bytes", "RunInstances", "GB", _q(gigabytes), prices.TRANSFER_GB, text)


def _noisy(resource_id: str, day: date, mean: Decimal) -> Decimal:
    """A day's variable use: `mean` give or take 15 %, a third less at the weekend; fixed by id and day."""
    digest = hashlib.sha256(f"{resource_id}/{day}".encode()).digest()
    factor = Decimal(850 + int.from_bytes(digest[:4], "big") % 301) / 1000
    return mean * factor * (Decimal(2) / 3 if day.weekday() >= 5 else 1)


def _q(value: Decimal) -> Decimal:
    return value.quantize(QUANTUM)


_METERS = {"volume": _volume, "snapshot": _snapshot, "address": _address, "instance": _instance}
