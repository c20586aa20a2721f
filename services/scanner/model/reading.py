"""What a reading of a cloud consists of: units, what came of each, and the resources seen.

A unit is one API in one region of one account. What wasn't read is said in its coverage, never silently dropped.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.scanner.model.resource import Resource


class Outcome(enum.StrEnum):
    """What came of reading a unit."""

    COMPLETE = "COMPLETE"
    DENIED = "DENIED"
    THROTTLED = "THROTTLED"
    UNREACHABLE = "UNREACHABLE"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, order=True)
class Unit:
    """One API in one region of one account. `api` is the IAM action that it needs."""

    account: str
    region: str
    api: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """The completeness record of one unit."""

    unit: Unit
    outcome: Outcome
    pages: int = 0
    resources: int = 0
    throttles: int = 0
    error_code: str = ""


@dataclass(frozen=True, slots=True)
class UnitReading:
    """What reading one unit gave: its coverage, and the raw entries in the provider's own words."""

    coverage: Coverage
    entries: Sequence[dict[str, object]] = field(default_factory=tuple)
    calls: int = 0


@dataclass(frozen=True, slots=True)
class RegionReading:
    """All units of one account and region, and the resources made of them."""

    account: str
    region: str
    units: Sequence[UnitReading]
    resources: Sequence[Resource]

    def complete_types(self) -> frozenset[str]:
        """The resource types whose own listing was read completely: only theirs may be declared gone."""
        apis = {reading.coverage.unit.api for reading in self.units if reading.coverage.outcome is Outcome.COMPLETE}
        return frozenset(kind for kind, api in LISTED_BY.items() if api in apis)


LISTED_BY = {
    "ec2.volume": "ec2:DescribeVolumes",
    "ec2.snapshot": "ec2:DescribeSnapshots",
    "ec2.address": "ec2:DescribeAddresses",
    "ec2.instance": "ec2:DescribeInstances",
}
# Read for what they say about others: which snapshots an image or a launch template rests on.
SUPPORTING_APIS = ("ec2:DescribeImages", "ec2:DescribeLaunchTemplateVersions")
APIS: tuple[str, ...] = (*LISTED_BY.values(), *SUPPORTING_APIS)


def units_of(accounts: Sequence[str], regions: Sequence[str]) -> list[Unit]:
    """Every unit of a scope, account by account and region by region."""
    return [Unit(account, region, api) for account in accounts for region in regions for api in APIS]
