"""Reads an AWS account and region: paged, rate-limited, in bounded threads, with a completeness record for each API.

It must not judge what it reads, and never raises for a cloud that refuses: the coverage says so.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services._mesh.aws import Failure, classify, client
from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.threads import BoundedThreads
from services.scanner.model.reading import APIS, Coverage, Outcome, Unit, UnitReading

# EC2's non-mutating calls: a bucket of 100 that refills at 20 a second, for each account and region (EC2 API request
# throttling). We stay under it, so that the customer's own tools keep theirs.
BUCKET_CALLS, REFILL_CALLS_A_SECOND = 50.0, 10.0
PAGE_SIZE = 500
# One unit of the largest estates that we know is read in minutes; an hour means that something hangs.
UNIT_DEADLINE_SECONDS = 900.0
MAX_PAGES = 2000


@dataclass(frozen=True)
class _Listing:
    """How one API is listed: its operation, the key of its entries, and fixed arguments."""

    operation: str
    key: str
    arguments: Mapping[str, Any]
    inner: str = ""


_LISTINGS: Mapping[str, _Listing] = {
    "ec2:DescribeVolumes": _Listing("describe_volumes", "Volumes", {}),
    "ec2:DescribeSnapshots": _Listing("describe_snapshots", "Snapshots", {"OwnerIds": ["self"]}),
    # DescribeAddresses has no pages.
    "ec2:DescribeAddresses": _Listing("describe_addresses", "Addresses", {}),
    "ec2:DescribeInstances": _Listing("describe_instances", "Reservations", {}, inner="Instances"),
    "ec2:DescribeImages": _Listing("describe_images", "Images", {"Owners": ["self"]}),
    "ec2:DescribeLaunchTemplateVersions": _Listing(
        "describe_launch_template_versions", "LaunchTemplateVersions", {"Versions": ["$Latest", "$Default"]}
    ),
}
_OUTCOMES = {
    Failure.DENIED: Outcome.DENIED,
    Failure.THROTTLED: Outcome.THROTTLED,
    Failure.UNREACHABLE: Outcome.UNREACHABLE,
    Failure.AMBIGUOUS: Outcome.UNREACHABLE,
    Failure.REFUSED: Outcome.FAILED,
}


class TokenBucket:
    """Lets calls through at a rate, from many threads. One for each account and region."""

    def __init__(self, size: float, refill_a_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._refill, self._clock = size, refill_a_second, clock
        self._lock, self._left, self._at = threading.Lock(), size, clock()

    def take(self) -> float:
        """Take a place; returns how many seconds to wait before using it."""
        with self._lock:
            now = self._clock()
            self._left = min(self._size, self._left + (now - self._at) * self._refill)
            self._at = now
            self._left -= 1
            return 0.0 if self._left >= 0 else -self._left / self._refill


class RegionReader:
    """Reads the units of one account and region with one session."""

    def __init__(
        self, threads: BoundedThreads, settings: AwsSettings, credentials: AwsCredentials, account: str, region: str
    ) -> None:
        self._threads, self._account, self._region = threads, account, region
        self._bucket = TokenBucket(BUCKET_CALLS, REFILL_CALLS_A_SECOND)
        self._settings, self._credentials = settings, credentials
        self._client: Any = None
        self._building = threading.Lock()

    async def read(self, done: Callable[[UnitReading], Any], apis: Sequence[str] = APIS) -> list[UnitReading]:
        """Read every unit of these APIs, concurrently within the pool; `done` is awaited for each as it finishes."""

        async def one(api: str) -> UnitReading:
            reading = await self.read_unit(api)
            await done(reading)
            return reading

        return list(await asyncio.gather(*(one(api) for api in apis)))

    async def read_unit(self, api: str) -> UnitReading:
        """Read one API to its end, or say why not."""
        unit = Unit(self._account, self._region, api)
        try:
            return await self._threads.run(UNIT_DEADLINE_SECONDS, self._list, unit)
        except TimeoutError:
            return UnitReading(Coverage(unit, Outcome.UNREACHABLE, error_code="Timeout"))

    def _list(self, unit: Unit) -> UnitReading:
        progress = _Progress()
        listing = _LISTINGS[unit.api]
        try:
            self._pages(listing, progress)
        except Exception as error:  # classify() raises again what isn't the cloud's.
            failure, code = classify(error)
            coverage = Coverage(
                unit, _OUTCOMES[failure], progress.pages, len(progress.entries), progress.throttles, code
            )
            return UnitReading(coverage, progress.entries, progress.calls)
        coverage = Coverage(unit, Outcome.COMPLETE, progress.pages, len(progress.entries), progress.throttles)
        return UnitReading(coverage, progress.entries, progress.calls)

    def _pages(self, listing: _Listing, progress: _Progress) -> None:
        ec2 = self._ec2()
        call = getattr(ec2, listing.operation)
        paged = ec2.can_paginate(listing.operation)
        arguments = {**listing.arguments, **({"MaxResults": PAGE_SIZE} if paged else {})}
        for _ in range(MAX_PAGES):
            if wait := self._bucket.take():
                time.sleep(wait)  # In a thread of the pool, never on the event loop.
            answer = call(**arguments)
            progress.take(answer, listing)
            if not paged or not answer.get("NextToken"):
                return
            arguments["NextToken"] = answer["NextToken"]
        raise TimeoutError(f"more than {MAX_PAGES} pages")

    def _ec2(self) -> Any:
        with self._building:
            if self._client is None:
                self._client = client("ec2", self._region, self._settings, self._credentials)
            return self._client


class _Progress:
    """What a listing has read so far; kept when it fails half-way, so that the coverage can say how far it came."""

    def __init__(self) -> None:
        self.pages = self.calls = self.throttles = 0
        self.entries: list[dict[str, Any]] = []

    def take(self, answer: Mapping[str, Any], listing: _Listing) -> None:
        self.pages += 1
        retried = int(answer.get("ResponseMetadata", {}).get("RetryAttempts", 0))
        self.calls += 1 + retried
        self.throttles += retried
        found = answer[listing.key]
        self.entries += [item for outer in found for item in outer[listing.inner]] if listing.inner else found
