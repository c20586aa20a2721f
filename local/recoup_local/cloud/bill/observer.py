"""Watches the cloud through its API and keeps, in its own small state, what existed when.

Start times are the provider's where it gives them. Of what has vanished the API says nothing: it ends
halfway between the last look that saw it and the first that didn't, so look at least once a day.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recoup_local.cloud.aws_clients import AwsClients
from recoup_local.cloud.bill.meter import Attributes, Metered, Segment

# Gives, per "account/region", a number that grows whenever something there was changed.
Changes = Callable[[], dict[str, int]]
_STOPPED_AT = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:UTC|GMT)\)")


@dataclass(frozen=True)
class _Seen:
    """One resource in one look; `since`: the provider's time of its creation or last change, if any."""

    kind: str
    id: str
    zone: str
    tags: dict[str, str]
    attributes: Attributes
    since: datetime | None


class Observer:
    """The meter's memory of the resources of all accounts and regions."""

    def __init__(
        self,
        clients: AwsClients,
        accounts: Sequence[str],
        regions: Sequence[str],
        state: Path,
        changes: Changes | None = None,
    ) -> None:
        self._clients = clients
        self._changes = changes
        self._seen_changes: dict[str, int] = {}
        self._places = [(account, region) for account in accounts for region in regions]
        self._state = state
        self.resources: dict[str, Metered] = {}
        self.first_look: datetime | None = None
        self.last_look: datetime | None = None
        if state.exists():
            self._load(json.loads(state.read_text("utf-8")))

    def look(self, now: datetime) -> None:
        """Lists everything once and updates the memory. `now`: simulated, aware.

        With `changes` given, a place where nothing was changed since the last look is not listed again.
        """
        changes = self._changes() if self._changes else {}
        due = [place for place in self._places if self._is_due("/".join(place), changes)]
        with ThreadPoolExecutor(max_workers=4) as pool:
            listings = list(pool.map(self._list, due))
        for (account, region), listing in zip(due, listings, strict=True):
            self._update(account, region, listing, now)
        self._seen_changes = changes
        self.first_look = self.first_look or now
        self.last_look = now
        self._save()

    def _is_due(self, place: str, changes: dict[str, int]) -> bool:
        if self._changes is None or self.last_look is None:
            return True
        return changes.get(place, 0) != self._seen_changes.get(place, -1)

    def _list(self, place: tuple[str, str]) -> list[_Seen]:
        ec2 = self._clients.client("ec2", *place)
        return [*_volumes(ec2), *_snapshots(ec2), *_addresses(ec2), *_instances(ec2)]

    def _update(self, account: str, region: str, listing: list[_Seen], now: datetime) -> None:
        ec2 = self._clients.client("ec2", account, region)
        present: set[str] = set()
        for seen in listing:
            key = f"{account}/{region}/{seen.id}"
            present.add(key)
            known = self.resources.get(key)
            if known is None or known.segments[-1].end is not None:
                self._add(key, account, region, seen, now)
            elif known.segments[-1].attributes != seen.attributes:
                changed_at = self._changed_at(ec2, seen, now)
                known.segments[-1].end = changed_at
                known.segments.append(Segment(changed_at, None, seen.attributes))
                known.tags = seen.tags
            else:
                known.tags = seen.tags
        self._end_the_vanished(account, region, present, now)

    def _add(self, key: str, account: str, region: str, seen: _Seen, now: datetime) -> None:
        # Addresses carry no date: one found at the very first look is taken to be older than that day.
        start = seen.since or (self.last_look or now.replace(hour=0, minute=0, second=0, microsecond=0))
        known = self.resources.setdefault(key, Metered(seen.kind, seen.id, account, region, seen.zone, seen.tags))
        known.segments.append(Segment(start, None, seen.attributes))

    def _changed_at(self, ec2: Any, seen: _Seen, now: datetime) -> datetime:
        """When an attribute changed: the provider's time if it is later than the last look, else halfway."""
        since = seen.since
        if seen.kind == "volume":
            found = ec2.describe_volumes_modifications(VolumeIds=[seen.id])["VolumesModifications"]
            since = found[0]["StartTime"] if found else None
        if since is not None and (self.last_look is None or self.last_look <= since <= now):
            return since
        return self._halfway(now)

    def _end_the_vanished(self, account: str, region: str, present: set[str], now: datetime) -> None:
        for key, known in self.resources.items():
            gone = key not in present and (known.account, known.region) == (account, region)
            if gone and known.segments[-1].end is None:
                known.segments[-1].end = max(self._halfway(now), known.segments[-1].start)

    def _halfway(self, now: datetime) -> datetime:
        return now if self.last_look is None else self.last_look + (now - self.last_look) / 2

    def _save(self) -> None:
        document = {
            "first_look": self.first_look, "last_look": self.last_look, "changes": self._seen_changes,
            "resources": {key: asdict(item) for key, item in self.resources.items()},
        }  # fmt: skip
        self._state.parent.mkdir(parents=True, exist_ok=True)
        beside = self._state.with_suffix(".new")
        beside.write_text(json.dumps(document, default=datetime.isoformat), "utf-8")
        beside.replace(self._state)

    def _load(self, document: dict[str, Any]) -> None:
        self.first_look = _time(document["first_look"])
        self.last_look = _time(document["last_look"])
        self._seen_changes = document["changes"]
        for key, item in document["resources"].items():
            segments = [
                Segment(datetime.fromisoformat(s["start"]), _time(s["end"]), s["attributes"])
                for s in item.pop("segments")
            ]
            self.resources[key] = Metered(**item, segments=segments)


def _time(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None


def _tags(item: dict[str, Any]) -> dict[str, str]:
    # The provider's own tags (aws:) are no cost allocation tags that a customer sees in the bill.
    return {t["Key"]: t["Value"] for t in item.get("Tags", []) if not t["Key"].startswith("aws:")}


def _volumes(ec2: Any) -> Iterator[_Seen]:
    for page in ec2.get_paginator("describe_volumes").paginate(PaginationConfig={"PageSize": 500}):
        for item in page["Volumes"]:
            attributes = {
                "type": item["VolumeType"], "size": str(item["Size"]), "iops": str(item.get("Iops", 0)),
                "throughput": str(item.get("Throughput", 0)),
            }  # fmt: skip
            zone = item["AvailabilityZone"]
            yield _Seen("volume", item["VolumeId"], zone, _tags(item), attributes, item["CreateTime"])


def _snapshots(ec2: Any) -> Iterator[_Seen]:
    for page in ec2.get_paginator("describe_snapshots").paginate(OwnerIds=["self"], PaginationConfig={"PageSize": 500}):
        for item in page["Snapshots"]:
            attributes = {"size": str(item["VolumeSize"]), "tier": item.get("StorageTier", "standard")}
            yield _Seen("snapshot", item["SnapshotId"], "", _tags(item), attributes, item["StartTime"])


def _addresses(ec2: Any) -> Iterator[_Seen]:
    for item in ec2.describe_addresses()["Addresses"]:
        attributes = {"idle": "false" if item.get("AssociationId") else "true"}
        yield _Seen("address", item["AllocationId"], "", _tags(item), attributes, None)


def _instances(ec2: Any) -> Iterator[_Seen]:
    for page in ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 500}):
        for item in (found for reservation in page["Reservations"] for found in reservation["Instances"]):
            state = item["State"]["Name"]
            if state == "terminated":
                continue
            running = state == "running"
            since: datetime | None = item["LaunchTime"]
            stopped = _STOPPED_AT.search(item.get("StateTransitionReason", ""))
            if not running and stopped:
                since = datetime.strptime(stopped.group(1), "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
            attributes = {"type": item["InstanceType"], "running": "true" if running else "false"}
            zone = item["Placement"]["AvailabilityZone"]
            yield _Seen("instance", item["InstanceId"], zone, _tags(item), attributes, since)
