"""The least-privilege roles of an AWS account: one to read with, one to act with, action type by action type.

Everything comes from the catalogue; only where a permission applies is said here. It must never hold a permission to
pass roles, to share snapshots or images, or to read data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services._mesh.errors import invalid_field
from services.scanner.detections import DETECTIONS, READ_PERMISSIONS
from services.scanner.model.reading import APIS

SCAN_ROLE, ACT_ROLE = "RecoupScan", "RecoupAct"
HOLD_TAG = "recoup:hold"
READS: tuple[str, ...] = tuple(sorted({*READ_PERMISSIONS, *APIS}))
_VOLUMES, _ADDRESSES = "arn:{partition}:ec2:*:{account}:volume/*", "arn:{partition}:ec2:*:{account}:elastic-ip/*"
# Snapshots have no account in their ARNs (Service Authorization Reference, Amazon EC2).
_SNAPSHOTS = "arn:{partition}:ec2:*::snapshot/*"
# Where each change applies. A change that the catalogue names and this doesn't can't be planned.
RESOURCES: Mapping[str, tuple[str, ...]] = {
    "ec2:CreateSnapshot": (_VOLUMES, _SNAPSHOTS),
    "ec2:CreateTags": (_SNAPSHOTS,),
    "ec2:DeleteVolume": (_VOLUMES,),
    "ec2:ModifyVolume": (_VOLUMES,),
    "ec2:ReleaseAddress": (_ADDRESSES,),
}
# Tags only in the call that makes a snapshot, never on one that is there already.
_CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "ec2:CreateTags": {"StringEquals": {"ec2:CreateAction": "CreateSnapshot"}}
}
# What is part of another one's call.
_WITH: Mapping[str, str] = {"ec2:CreateTags": "ec2:CreateSnapshot"}
# What a hold tag in the customer's own cloud stops, whatever we say.
_HELD = frozenset({"ec2:DeleteVolume", "ec2:ModifyVolume", "ec2:ReleaseAddress"})

# Ids that no resource has: EC2 checks the permission, and there is nothing that could be changed.
NO_VOLUME, NO_ADDRESS = "vol-" + "0" * 17, "eipalloc-" + "0" * 17

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RolePlan:
    """A role to be made: its name, what it is for ("scan" or "act"), who may assume it, and what it may do."""

    name: str
    use: str
    trust_policy: Document
    policy: Document


def action_types() -> tuple[str, ...]:
    """The action types that the catalogue offers."""
    return tuple(sorted({d.action_type for d in DETECTIONS if d.action_type}))


def permissions_of(action_type: str) -> frozenset[str]:
    """What one action type needs: the reads around it, and its changes. Raises ValueError for one that isn't placed."""
    wanted = [d for d in DETECTIONS if d.action_type == action_type]
    needed = frozenset(p for d in wanted for p in (*d.reads, *d.action_permissions))
    return _placed(needed)


def _placed(needed: frozenset[str]) -> frozenset[str]:
    """The permissions, none of which is a change on everything or a read of data."""
    if lost := sorted(p for p in needed - RESOURCES.keys() if not p.startswith("ec2:Describe")):
        raise ValueError(f"say in RESOURCES where {', '.join(lost)} applies")
    return needed


def act_permissions() -> tuple[str, ...]:
    """What all action types together need."""
    return tuple(sorted(frozenset().union(*(permissions_of(each) for each in action_types()))))


def read_statements() -> tuple[Mapping[str, Sequence[str]], ...]:
    """What a grant says for reading. EC2's Describe calls have no resource-level permissions."""
    return ({"actions": READS, "resources": ("*",)},)


def probe_statements(partition: str, account: str) -> tuple[Mapping[str, Sequence[str]], ...]:
    """What a grant says for probing the role for acting: its reads, and each change of what there isn't.

    What one call needs is one statement, which isn't divided over sessions.
    """
    needed = act_permissions()
    statements: list[Mapping[str, Sequence[str]]] = [
        {"actions": [p for p in needed if p not in RESOURCES], "resources": ["*"]}
    ]
    for change in needed:
        if change in RESOURCES and change not in _WITH:
            arns = [arn.format(partition=partition, account=account) for arn in RESOURCES[change]]
            nothing = [
                a.replace(":volume/*", f":volume/{NO_VOLUME}").replace(":elastic-ip/*", f":elastic-ip/{NO_ADDRESS}")
                for a in arns
            ]
            together = [change, *(p for p in needed if _WITH.get(p) == change)]
            statements.append({"actions": together, "resources": nothing})
    return tuple(statements)


def plan_roles(
    principal_arn: str, external_id: str, chosen: Sequence[str], bill: tuple[str, str] | None = None
) -> tuple[RolePlan, ...]:
    """The roles that let `principal_arn` in with the external id: for reading, and for the chosen action types if any.

    `bill` is the bucket and prefix of the bill export that the role for reading may read, where it may.
    Raises Invalid for an action type that there isn't.
    """
    trust, partition = trust_policy(principal_arn, external_id), principal_arn.split(":")[1]
    scan = RolePlan(SCAN_ROLE, "scan", trust, scan_policy(partition, bill))
    if not chosen:
        return (scan,)
    return scan, RolePlan(ACT_ROLE, "act", trust, act_policy(chosen, partition))


def trust_policy(principal_arn: str, external_id: str) -> Document:
    """Who may assume a role: our principal, and only with the organization's external id.

    The source identity is allowed apart, since it lets nobody in by itself.
    """
    caller = {"Effect": "Allow", "Principal": {"AWS": principal_arn}}
    condition = {"StringEquals": {"sts:ExternalId": external_id}}
    return _document(
        {**caller, "Action": "sts:AssumeRole", "Condition": condition}, {**caller, "Action": "sts:SetSourceIdentity"}
    )


def scan_policy(partition: str = "aws", bill: tuple[str, str] | None = None) -> Document:
    """Reading, and nothing of anybody's data; the bill export where it is asked for."""
    statements = [_allow(READS, ("*",))]
    if bill is not None:
        bucket = f"arn:{partition}:s3:::{bill[0]}"
        statements.append(_allow(("s3:ListBucket",), (bucket,)))
        statements.append(_allow(("s3:GetObject",), (f"{bucket}/{bill[1]}/*",)))
    return _document(*statements)


def act_policy(chosen: Iterable[str], partition: str = "aws", account: str = "*") -> Document:
    """The chosen action types' permissions, change by change, and a refusal for everything with the hold tag.

    Raises Invalid for an action type that there isn't.
    """
    needed: set[str] = set()
    for place, action_type in enumerate(chosen):
        if action_type not in action_types():
            rule = f"must be one of {', '.join(action_types())}"
            raise invalid_field(f"action_types[{place}]", rule)
        needed |= permissions_of(action_type)
    changes = sorted(needed & RESOURCES.keys())
    statements = [_allow(sorted(needed - RESOURCES.keys()), ("*",))]
    for change in changes:
        resources = tuple(arn.format(partition=partition, account=account) for arn in RESOURCES[change])
        statements.append(_allow((change,), resources, _CONDITIONS.get(change)))
    if held := sorted(_HELD.intersection(changes)):
        condition = {"Null": {f"aws:ResourceTag/{HOLD_TAG}": "false"}}
        statements.append({"Effect": "Deny", "Action": held, "Resource": "*", "Condition": condition})
    return _document(*statements)


def _allow(actions: Sequence[str], resources: Sequence[str], condition: Mapping[str, Any] | None = None) -> Document:
    statement: Document = {"Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return {**statement, "Condition": dict(condition)} if condition else statement


def _document(*statements: Document) -> Document:
    return {"Version": "2012-10-17", "Statement": list(statements)}
