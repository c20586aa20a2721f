"""What is true about the estate on a given day: the detections that ought to be found, and why. Pure.

Derived from the plan's history alone, by its own arithmetic, never from anything in the cloud or in Recoup.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from recoup_local.cloud.estate.plan import Change, EstatePlan, RegionPlan, Tags

# Monthly list prices of us-east-1 in USD (as of 2024): enough to say which volume type is cheaper.
_GP2_GIB, _GP3_GIB = Decimal("0.10"), Decimal("0.08")
_GP3_IOPS, _GP3_MIBPS = Decimal("0.005"), Decimal("0.04")


@dataclass(frozen=True)
class Expected:
    """One resource. `detections`: id -> why. `since_day`: when the condition of the ageing one began.

    `scan_from`/`scan_until`: for conditions that the provider keeps no date of, a scan must have seen the
    resource between these days for its own first-seen ledger to be old enough. `blocked_by`: hold, iac or
    autoscaler: reported, but not proposed.
    """

    id: str
    kind: str
    account: str
    region: str
    detections: dict[str, str]
    blocked_by: str | None
    since_day: int | None = None
    scan_from: int | None = None
    scan_until: int | None = None


def expectations(plan: EstatePlan, ids: dict[str, str], day: int = 0) -> dict[str, Any]:
    """{"day", "resources": {id: Expected as JSON}, "counts": {detection: number, …}} for everything made."""
    found: list[Expected] = []
    for region in plan.regions:
        found += _RegionTruth(region, ids, day).all()
    counts: dict[str, int] = {}
    for item in found:
        for detection in item.detections:
            counts[detection] = counts.get(detection, 0) + 1
    return {"day": day, "resources": {item.id: asdict(item) for item in found}, "counts": counts}


def blocked_by(tags: Tags) -> str | None:
    """Whose resource it is, if not simply the customer's to change."""
    if "recoup:hold" in tags:
        return "hold"
    if "aws:autoscaling:groupName" in tags:
        return "autoscaler"
    iac = ("aws:cloudformation:stack-name", "terraform", "ManagedBy")
    return "iac" if any(key in tags for key in iac) else None


def gp3_is_cheaper(size_gib: int) -> bool:
    """Whether gp3 with gp2's IOPS and throughput costs less than gp2 of that size."""
    iops = min(16000, max(100, 3 * size_gib))
    mibps = 128 if size_gib <= 170 else 250
    gp3 = _GP3_GIB * size_gib + _GP3_IOPS * max(0, iops - 3000) + _GP3_MIBPS * max(0, mibps - 125)
    return gp3 < _GP2_GIB * size_gib


class _RegionTruth:
    def __init__(self, plan: RegionPlan, ids: dict[str, str], day: int) -> None:
        self._plan = plan
        self._day = day
        prefix = f"{plan.account}/{plan.region}/"
        self._ids = {key.removeprefix(prefix): value for key, value in ids.items() if key.startswith(prefix)}

    def all(self) -> list[Expected]:
        return [*self._volumes(), *self._roots(), *self._addresses(), *self._instances(), *self._snapshots()]

    def _expected(
        self,
        kind: str,
        ref: str,
        tags: Tags,
        detections: dict[str, str],
        since: int | None = None,
        ledger_days: int | None = None,
    ) -> list[Expected]:
        if ref not in self._ids:
            return []
        aged = ledger_days is not None and since is not None and since <= self._day - ledger_days
        until = self._day - ledger_days if aged and ledger_days is not None else None
        where = (self._plan.account, self._plan.region)
        scan_from = since if aged else None
        return [Expected(self._ids[ref], kind, *where, detections, blocked_by(tags), since, scan_from, until)]

    def _volumes(self) -> list[Expected]:
        found: list[Expected] = []
        for item in self._plan.volumes:
            state, since = _latest(item.changes, self._day, ("detach", item.day))
            detections: dict[str, str] = {}
            free_since = since if state == "detach" else None
            if free_since is not None and free_since <= self._day - 14:
                detections["aws.ebs.unattached"] = f"unattached since day {free_since}"
            detections |= _gp2(item.volume_type, item.size_gib)
            found += self._expected("volume", item.ref, item.tags, detections, free_since, 14)
        return found

    def _roots(self) -> list[Expected]:
        found: list[Expected] = []
        for item in self._plan.instances:
            detections = _gp2(item.root_type, item.root_gib)
            found += self._expected("volume", f"{item.ref}.root", item.tags, detections)
        return found

    def _addresses(self) -> list[Expected]:
        found: list[Expected] = []
        for item in self._plan.addresses:
            state, since = _latest(item.changes, self._day, ("disassociate", item.day))
            free_since = since if state == "disassociate" else None
            detections: dict[str, str] = {}
            if free_since is not None and free_since <= self._day - 7:
                detections["aws.eip.unassociated"] = f"unassociated since day {free_since}"
            found += self._expected("address", item.ref, item.tags, detections, free_since, 7)
        return found

    def _instances(self) -> list[Expected]:
        found: list[Expected] = []
        for item in self._plan.instances:
            state, since = _latest(item.changes, self._day, ("start", item.day))
            stopped_since = since if state == "stop" else None
            detections: dict[str, str] = {}
            if stopped_since is not None and stopped_since <= self._day - 30:
                detections["aws.ec2.stopped"] = f"stopped since day {stopped_since}"
            found += self._expected("instance", item.ref, item.tags, detections, stopped_since)
        return found

    def _snapshots(self) -> list[Expected]:
        found: list[Expected] = []
        for item in self._plan.snapshots:
            detections: dict[str, str] = {}
            used = item.in_template or "aws:backup:source-resource" in item.tags
            if item.day <= self._day - 90 and not used:
                detections["aws.snapshot.old"] = f"taken on day {item.day}, used by nothing"
            found += self._expected("snapshot", item.ref, item.tags, detections, item.day)
        for image in self._plan.images:
            detections = {}
            gone = image.deregister_day is not None and image.deregister_day <= self._day
            if gone and image.day <= self._day - 90:
                detections["aws.snapshot.old"] = f"its image was deregistered on day {image.deregister_day}"
            found += self._expected("snapshot", f"{image.ref}.snapshot", {}, detections, image.day)
        return found


def _latest(changes: tuple[Change, ...], day: int, initial: tuple[str, int]) -> tuple[str, int]:
    """The last change up to `day` and its day; at first `initial`."""
    state, since = initial
    for when, change in changes:
        if when <= day:
            state, since = change, when
    return state, since


def _gp2(volume_type: str, size_gib: int) -> dict[str, str]:
    if volume_type == "gp2" and gp3_is_cheaper(size_gib):
        return {"aws.ebs.gp2": f"{size_gib} GiB of gp2 cost more than gp3 of equal IOPS and throughput"}
    return {}
