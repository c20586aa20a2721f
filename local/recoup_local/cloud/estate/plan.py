"""The plan of the estate: every resource with the days on which something happens to it. Pure.

Day 0 is the day of the actions; days before it are negative. The plan is the same for the same scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from recoup_local.cloud.launch import ACCOUNTS, REGIONS

FIRST_SCAN_DAY = -35
# Between two of these no condition starts that would have to be seen in between for the truth to hold.
RECOMMENDED_SCAN_DAYS = (-35, -31, -28, -24, -20, -15, -12, -9, -8, -5, -2, 0)

Tags = dict[str, str]
Change = tuple[int, str]


@dataclass(frozen=True)
class InstancePlan:
    """`changes`: (day, "stop" | "start"), in order. Sizes in GiB."""

    ref: str
    day: int
    instance_type: str
    root_gib: int
    root_type: str
    tags: Tags
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class VolumePlan:
    """`changes`: (day, "attach" | "detach"), in order; it is attached to the instance `host`."""

    ref: str
    day: int
    size_gib: int
    volume_type: str
    tags: Tags
    host: str = ""
    iops: int | None = None
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class SnapshotPlan:
    """A snapshot of a planned volume; `in_template`: a launch template names it."""

    ref: str
    day: int
    volume: str
    description: str
    tags: Tags
    in_template: bool = False


@dataclass(frozen=True)
class AddressPlan:
    """`changes`: (day, "associate" | "disassociate"), in order."""

    ref: str
    day: int
    tags: Tags
    host: str = ""
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True)
class ImagePlan:
    """An AMI of an instance (or a bare one); its snapshot is an orphan from `deregister_day` on."""

    ref: str
    day: int
    name: str
    source: str = ""
    deregister_day: int | None = None


Kind = Literal["volume", "snapshot", "address", "instance"]


@dataclass
class RegionPlan:
    """What exists in one account and region."""

    account: str
    region: str
    images: list[ImagePlan] = field(default_factory=list)
    instances: list[InstancePlan] = field(default_factory=list)
    volumes: list[VolumePlan] = field(default_factory=list)
    snapshots: list[SnapshotPlan] = field(default_factory=list)
    addresses: list[AddressPlan] = field(default_factory=list)


@dataclass(frozen=True)
class EstatePlan:
    """The whole estate."""

    regions: tuple[RegionPlan, ...]

    def days(self) -> list[int]:
        """The days on which anything is done, in order."""
        found: set[int] = set()
        for region in self.regions:
            for image in region.images:
                found |= {image.day, *(d for d in (image.deregister_day,) if d is not None)}
            found |= {item.day for item in region.snapshots}
            changing: list[InstancePlan | VolumePlan | AddressPlan] = [*region.instances, *region.volumes]
            for item in [*changing, *region.addresses]:
                found |= {item.day, *(day for day, _ in item.changes)}
        return sorted(found)

    def size(self) -> int:
        """How many resources there will be (an image counts with its snapshot, an instance with its root)."""
        return sum(
            2 * len(r.images) + 2 * len(r.instances) + len(r.volumes) + len(r.snapshots) + len(r.addresses)
            for r in self.regions
        )


_APPS = ("checkout", "ledger-api", "search", "media-proxy", "reporting", "ci", "warehouse-sync", "auth")
_TEAMS = ("payments", "platform", "data", "growth")
_TYPES = ("t3.medium", "m5.large", "c5.large", "r5.large", "t3.micro")
# Marks under which a resource belongs to somebody else's automation, as they look in real estates.
HOLD: Tags = {"recoup:hold": "until the audit is over"}
TERRAFORM: Tags = {"ManagedBy": "Terraform", "terraform": "true"}
STACK: Tags = {"aws:cloudformation:stack-name": "edge-stack", "aws:cloudformation:logical-id": "Resource"}
AUTOSCALED: Tags = {"aws:autoscaling:groupName": "workers-asg"}
BACKUP: Tags = {"aws:backup:source-resource": "vault/daily"}


def build_plan(*, accounts: Sequence[str] = ACCOUNTS, regions: Sequence[str] = REGIONS, scale: int = 1) -> EstatePlan:
    """The estate for every account and region; `scale` multiplies the ordinary resources, not the edges."""
    return EstatePlan(tuple(_Builder(account, region, scale).build() for account in accounts for region in regions))


class _Builder:
    """Plans one account and region. Its random numbers are seeded by account and region."""

    def __init__(self, account: str, region: str, scale: int) -> None:
        self._random = Random(f"{account}/{region}")
        self._scale = scale
        self._plan = RegionPlan(account, region)
        self._count = 0

    def build(self) -> RegionPlan:
        self._plan.images.append(ImagePlan("golden", -200, "golden-al2023-x86-64"))
        self._healthy()
        self._stopped()
        self._unattached()
        self._addresses()
        self._snapshots()
        return self._plan

    def _tags(self, extra: Tags | None = None) -> Tags:
        app = self._random.choice(_APPS)
        env = self._random.choice(("prod", "prod", "staging", "dev"))
        name = f"{app}-{env}-{self._random.randrange(100):02d}"
        return {"Name": name, "env": env, "team": self._random.choice(_TEAMS), **(extra or {})}

    def _ref(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def _instance(self, extra: Tags | None = None, changes: tuple[Change, ...] = (), root: str = "gp3") -> str:
        ref = self._ref("instance")
        size = self._random.choice((16, 20, 30, 40))
        kind = self._random.choice(_TYPES)
        self._plan.instances.append(InstancePlan(ref, -200, kind, size, root, self._tags(extra), changes))
        return ref

    def _volume(
        self,
        kind: str,
        extra: Tags | None = None,
        *,
        host: str = "",
        changes: tuple[Change, ...] = (),
        day: int = -200,
        sizes: Sequence[int] = (20, 50, 80, 100, 150, 400, 500),
    ) -> str:
        ref = self._ref("volume")
        size = self._random.choice(tuple(sizes))
        iops = min(50 * size, 4000) if kind == "io1" else None
        self._plan.volumes.append(VolumePlan(ref, day, size, kind, self._tags(extra), host, iops, changes))
        return ref

    def _healthy(self) -> None:
        """Running instances with attached volumes; some of them on gp2."""
        for number in range(11 * self._scale):
            host = self._instance(root="gp2" if number % 4 == 0 else "gp3")
            kind = ("gp3", "gp2", "gp3", "io1", "gp3", "st1")[number % 6]
            self._volume(kind, host=host, changes=((-200, "attach"),), sizes=(100, 150, 500))
        for extra in (AUTOSCALED, STACK):
            host = self._instance(extra, root="gp2")
            self._volume("gp2", extra, host=host, changes=((-200, "attach"),))
        held = self._instance()
        self._volume("gp2", HOLD, host=held, changes=((-200, "attach"),))
        self._volume("gp2", TERRAFORM, host=held, changes=((-200, "attach"),))

    def _stopped(self) -> None:
        """Stopped for 30 days: on both sides, held, managed, and started in between."""
        histories: tuple[tuple[tuple[Change, ...], Tags | None], ...] = (
            (((-40, "stop"),), None), (((-120, "stop"),), None), (((-31, "stop"),), None),
            (((-29, "stop"),), None), (((-10, "stop"),), None), (((-60, "stop"),), HOLD),
            (((-50, "stop"),), AUTOSCALED), (((-50, "stop"),), TERRAFORM),
            (((-50, "stop"), (-20, "start")), None), (((-60, "stop"), (-24, "start"), (-5, "stop")), None),
        )  # fmt: skip
        for changes, extra in histories:
            host = self._instance(extra, changes)
            self._volume("gp3", host=host, changes=((-200, "attach"),), sizes=(100, 200))

    def _unattached(self) -> None:
        """Unattached for 14 days: on both sides, held, managed, and attached in between."""
        host = self._instance()
        once: tuple[Change, ...] = ((-200, "attach"),)
        for kind in ("gp3", "gp2", "io1", "st1")[: 3 + (self._scale > 1)]:
            self._volume(kind)
        for day in (-35, -20, -20, -15, -13, -12, -9, -2):
            kind = "gp2" if day in (-35, -9) else "gp3"
            self._volume(kind, host=host, changes=(*once, (day, "detach")))
        self._volume("gp3", day=-15)
        self._volume("gp3", day=-13)
        for extra in (HOLD, TERRAFORM, STACK, AUTOSCALED):
            self._volume("gp3", extra, host=host, changes=(*once, (-60, "detach")))
        self._volume("gp3", host=host, changes=(*once, (-24, "detach"), (-15, "attach")))
        back = ((-24, "detach"), (-12, "attach"), (-9, "detach"))
        self._volume("gp3", host=host, changes=(*once, *back))

    def _addresses(self) -> None:
        """Unassociated for 7 days: on both sides, held, managed, and associated in between."""
        hosts = [item.ref for item in self._plan.instances if not item.changes]
        once: tuple[Change, ...] = ((-200, "associate"),)
        histories: tuple[tuple[tuple[Change, ...], Tags | None], ...] = (
            (once, None), (once, None), (once, None), (once, STACK), ((), None), ((), None),
            ((*once, (-35, "disassociate")), None), ((*once, (-8, "disassociate")), None),
            ((*once, (-6, "disassociate")), None), ((*once, (-2, "disassociate")), None),
            ((), HOLD), ((), TERRAFORM), ((*once, (-20, "disassociate"), (-5, "associate")), None),
            ((*once, (-20, "disassociate"), (-12, "associate"), (-6, "disassociate")), None),
        )  # fmt: skip
        for host, (changes, extra) in zip(hosts, histories, strict=False):
            self._plan.addresses.append(AddressPlan(self._ref("address"), -200, self._tags(extra), host, changes))

    def _snapshots(self) -> None:
        """Older than 90 days: on both sides, held, managed, in an image, in a template, of AWS Backup."""
        attached = [item.ref for item in self._plan.volumes if item.host][: 11 * self._scale]
        ages = (*(-200, -150, -120) * (2 * self._scale), -91, -91, -89, -89, -40, -31, -15, -5, -2)
        for number, day in enumerate(ages):
            self._snapshot(day, attached[number % len(attached)], "nightly backup")
        for extra in (HOLD, TERRAFORM, STACK):
            self._snapshot(-150, attached[0], "before migration", extra)
        note = "This snapshot is created by the AWS Backup service."
        self._snapshot(-150, attached[1], note, BACKUP)
        self._snapshot(-150, attached[2], "data seed for workers", in_template=True)
        running = next(item.ref for item in self._plan.instances if not item.changes)
        self._plan.images.append(ImagePlan(self._ref("image"), -150, "checkout-release-41", running))
        self._plan.images.append(ImagePlan(self._ref("image"), -150, "checkout-release-40", running, -120))
        self._plan.images.append(ImagePlan(self._ref("image"), -40, "checkout-release-39", running, -31))

    def _snapshot(
        self, day: int, volume: str, description: str, extra: Tags | None = None, *, in_template: bool = False
    ) -> None:
        tags = self._tags(extra)
        ref = self._ref("snapshot")
        self._plan.snapshots.append(SnapshotPlan(ref, day, volume, description, tags, in_template))
