"""The kinds of action: their steps, what each may touch, how they are taken back.

Owns the catalogue. Adding a kind is adding an entry here and its calls in `clients/aws.py`; nothing else names one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from services.actions.model.plan import ResourceKey


@dataclass(frozen=True, slots=True)
class Statement:
    """One Allow statement of a session policy."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One change to the cloud. `waits` says that its completion is awaited before anything follows."""

    name: str
    irreversible: bool
    waits: bool = False


@dataclass(frozen=True, slots=True)
class ActionKind:
    """A kind of action. Steps after the first irreversible one wait out `quarantine_hours`."""

    action_type: str
    resource_type: str
    summary: str
    rollback: str
    steps: tuple[StepSpec, ...]
    quarantine_hours: int
    parameter_keys: Mapping[str, str]
    removes_resource: bool

    @property
    def irreversible(self) -> bool:
        """Whether any step can't be taken back completely."""
        return any(step.irreversible for step in self.steps)

    def step(self, name: str) -> StepSpec:
        """The step of that name; raises KeyError."""
        return {step.name: step for step in self.steps}[name]

    def next_step(self, confirmed: frozenset[str]) -> StepSpec | None:
        """The first step that isn't confirmed yet, or None when all are."""
        return next((step for step in self.steps if step.name not in confirmed), None)


DELETE_VOLUME = ActionKind(
    action_type="aws.ebs.delete_volume",
    resource_type="ec2.volume",
    summary="Snapshot volume {id} ({size_gib} GiB {volume_type}), wait 24 hours, then delete the volume.",
    rollback="Create a volume from the snapshot; it gets a new id.",
    steps=(StepSpec("create_snapshot", irreversible=False, waits=True), StepSpec("delete_volume", irreversible=True)),
    quarantine_hours=24,
    parameter_keys={},
    removes_resource=True,
)

CONVERT_GP3 = ActionKind(
    action_type="aws.ebs.convert_gp3",
    resource_type="ec2.volume",
    summary="Convert volume {id} ({size_gib} GiB) from gp2 to gp3 at equal IOPS and throughput.",
    rollback="Modify the volume back to gp2, six hours later at the earliest.",
    steps=(StepSpec("modify_volume", irreversible=False),),
    quarantine_hours=0,
    parameter_keys={"gp3_iops": "iops", "gp3_throughput_mibps": "throughput_mibps"},
    removes_resource=False,
)

RELEASE_ADDRESS = ActionKind(
    action_type="aws.ec2.release_address",
    resource_type="ec2.address",
    summary="Release the unassociated address {public_ip} ({id}).",
    rollback="Allocate the same address again, as long as nobody else has it (best effort).",
    steps=(StepSpec("release_address", irreversible=True),),
    quarantine_hours=0,
    parameter_keys={},
    removes_resource=True,
)

KINDS: Mapping[str, ActionKind] = {kind.action_type: kind for kind in (DELETE_VOLUME, CONVERT_GP3, RELEASE_ADDRESS)}

FACT_PREFIX = "fact."


def preconditions(evidence: Mapping[str, str]) -> dict[str, str]:
    """The facts of a finding that a plan freezes as preconditions, without their prefix."""
    return {key.removeprefix(FACT_PREFIX): value for key, value in evidence.items() if key.startswith(FACT_PREFIX)}


def basis(evidence: Mapping[str, str]) -> dict[str, str]:
    """What else a finding rested on: shown to the approver and frozen, but not compared again."""
    return {key: value for key, value in evidence.items() if not key.startswith(FACT_PREFIX)}


def parameters(kind: ActionKind, evidence: Mapping[str, str]) -> dict[str, str]:
    """What the change will set, taken from the finding; raises KeyError when the finding doesn't say."""
    return {name: evidence[key] for key, name in kind.parameter_keys.items()}


def arn(resource: ResourceKey) -> str:
    """The resource's Amazon Resource Name, as policies name it."""
    noun = {"ec2.volume": "volume", "ec2.snapshot": "snapshot", "ec2.address": "elastic-ip"}[resource.type]
    return f"arn:{resource.partition}:ec2:{resource.region}:{resource.account}:{noun}/{resource.id}"


# Describe calls have no resource-level permissions in EC2, so "*" is the narrowest that exists (Service Authorization
# Reference, Amazon EC2).
READS = Statement(
    ("ec2:DescribeVolumes", "ec2:DescribeSnapshots", "ec2:DescribeAddresses", "ec2:DescribeVolumesModifications"),
    ("*",),
)


def step_statements(kind: ActionKind, step: StepSpec, resource: ResourceKey) -> tuple[Statement, ...]:
    """The session policy of one step: the reads that surround it and the one change, on the one resource."""
    if step.name == "create_snapshot":
        snapshots = f"arn:{resource.partition}:ec2:{resource.region}::snapshot/*"
        change = Statement(("ec2:CreateSnapshot", "ec2:CreateTags"), (arn(resource), snapshots))
    else:
        operation = {
            "delete_volume": "ec2:DeleteVolume",
            "modify_volume": "ec2:ModifyVolume",
            "release_address": "ec2:ReleaseAddress",
        }[step.name]
        change = Statement((operation,), (arn(resource),))
    return (READS, change)


def describe(kind: ActionKind, resource: ResourceKey, facts: Mapping[str, str]) -> str:
    """What will be done, in words, for the person who approves it."""
    return kind.summary.format_map(_Facts({**facts, "id": resource.id}))


class _Facts(dict[str, str]):
    """Facts for a summary; an unknown one is shown as "?" rather than failing the request."""

    def __missing__(self, key: str) -> str:
        return "?"
