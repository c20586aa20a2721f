"""What each purpose may do at most, and the session policy of one grant.

The grant says what is wanted; this says what may be wanted. Both must allow it, and the role itself in the customer's
account is the third lock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from services._mesh.errors import Denied, Reason
from services._mesh.session_policies import MAX_POLICY_CHARACTERS, policy_text

_SCAN = frozenset(
    {
        "ec2:DescribeVolumes",
        "ec2:DescribeSnapshots",
        "ec2:DescribeAddresses",
        "ec2:DescribeInstances",
        "ec2:DescribeImages",
        "ec2:DescribeLaunchTemplateVersions",
        "ec2:DescribeVolumesModifications",
    }
)
_ACT = _SCAN | {"ec2:CreateSnapshot", "ec2:CreateTags", "ec2:DeleteVolume", "ec2:ModifyVolume", "ec2:ReleaseAddress"}
ALLOWED: Mapping[str, frozenset[str]] = {
    "scan": _SCAN,
    "verify": _SCAN,
    "bill": frozenset({"s3:GetObject", "s3:ListBucket"}),
    "act": _ACT,
    "probe": _ACT,
}
# What work may have opened, by the kind in its grant. Which process grants which kinds stands in deploy/config, so that
# who may have bills read can't have anything changed, whatever else it signs.
_LOOKED_AT = frozenset({"verify", "probe", "azure.check", "gcp.check"})
OPENED_FOR: Mapping[str, frozenset[str]] = {
    "verify_connection": _LOOKED_AT,
    "check_connection": _LOOKED_AT,
    "rotate_credential": _LOOKED_AT | {"scan"},
    "scan": frozenset({"scan"}),
    "import_bill": frozenset({"bill"}),
    "execute": frozenset({"act"}),
    "checkpoint": frozenset({"verify"}),
}
# What work may have its roles tried, which gives nobody a session.
TRIED_FOR: Mapping[str, frozenset[str]] = {
    kind: frozenset({"scan", "act"}) for kind in ("verify_connection", "check_connection", "rotate_credential")
}
# Which of an account's two roles a purpose assumes: reading and acting are different roles.
ROLE_OF: Mapping[str, str] = {"scan": "scan", "verify": "scan", "bill": "scan", "act": "act", "probe": "act"}
# What a probe of the role for acting may name: ids that no resource has, so that its session can't change anything.
# Snapshots stand for what a call would make; tags are set on nothing else (see session_policies.py).
_NOTHING = re.compile(
    r"arn:aws[a-z-]*:ec2:\*:[0-9]{12}:(volume/vol-0{17}|elastic-ip/eipalloc-0{17})|arn:aws[a-z-]*:ec2:\*::snapshot/\*"
)
# What a change or a read of data may name: one resource, or what lies below one prefix; snapshots stand for those that
# a call makes. No other pattern: a grant is for what was planned.
_ONE = re.compile(
    r"arn:aws[a-z-]*:ec2:[a-z0-9-]+:[0-9]{12}:(volume|elastic-ip)/[A-Za-z0-9-]+|arn:aws[a-z-]*:ec2:[a-z0-9-]+::snapshot/\*"
    r"|arn:aws[a-z-]*:s3:::[a-z0-9.-]{3,63}(/[^*?$]+/\*)?"
)
_NEEDS_RESOURCE = frozenset(
    {"ec2:DeleteVolume", "ec2:ModifyVolume", "ec2:ReleaseAddress", "ec2:CreateSnapshot", "ec2:CreateTags"}
) | frozenset({"s3:GetObject", "s3:ListBucket"})


def session_policy(purpose: str, statements: Sequence[Mapping[str, Sequence[str]]]) -> str:
    """The session policy as JSON: the grant's statements and nothing else.

    Raises Denied (GRANT_INVALID) for an unknown purpose, an empty grant, an action outside of the purpose, a change
    without a resource, or a policy that is longer than AWS takes (who grants divides it).
    """
    allowed = ALLOWED.get(purpose)
    if allowed is None:
        raise _refused(f"no such purpose: {purpose}")
    if not statements:
        raise _refused("the grant names no action")
    for statement in statements:
        _check(purpose, allowed, statement)
    text = policy_text(statements)
    if len(text) > MAX_POLICY_CHARACTERS:
        raise _refused(f"its session policy has {len(text)} characters, and AWS takes {MAX_POLICY_CHARACTERS}")
    return text


def _check(purpose: str, allowed: frozenset[str], statement: Mapping[str, Sequence[str]]) -> None:
    actions, resources = statement.get("actions", ()), statement.get("resources", ())
    outside = sorted(set(actions) - allowed)
    if outside or not actions or not resources:
        raise _refused(f"purpose {purpose} doesn't allow {', '.join(outside) or 'an empty statement'}")
    if not set(actions) & _NEEDS_RESOURCE:
        return
    if purpose == "probe" and not all(map(_NOTHING.fullmatch, resources)):
        raise _refused("a probe may name no resource that there could be")
    if purpose != "probe" and not all(map(_ONE.fullmatch, resources)):
        raise _refused("a change must name its resource")


def _refused(why: str) -> Denied:
    return Denied(Reason.ERROR_REASON_GRANT_INVALID, f"The grant can't be used: {why}.")
