"""What a customer sets up for Recoup: the base user with its key, and the scan and act roles per account.

The roles trust only the base user with the external id; their policies are least privilege and refuse any
change of a resource that carries the hold tag. Recoup itself never calls this.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from recoup_local.cloud.aws_clients import AwsClients
from recoup_local.cloud.launch import ACCOUNTS, PAYER_ACCOUNT

BASE_USER = "recoup-base"
SCAN_ROLE = "RecoupScan"
ACT_ROLE = "RecoupAct"
HOLD_TAG = "recoup:hold"
_READS = [
    "ec2:DescribeAddresses", "ec2:DescribeAvailabilityZones", "ec2:DescribeImages", "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplates", "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeRegions",
    "ec2:DescribeSnapshots", "ec2:DescribeTags", "ec2:DescribeVolumes", "ec2:DescribeVolumesModifications",
]  # fmt: skip
_CHANGES = {
    "arn:aws:ec2:*:*:volume/*": [
        "ec2:CreateSnapshot", "ec2:CreateVolume", "ec2:DeleteVolume", "ec2:ModifyVolume", "ec2:CreateTags",
    ],
    "arn:aws:ec2:*::snapshot/*": ["ec2:CreateSnapshot", "ec2:DeleteSnapshot", "ec2:CreateTags"],
    "arn:aws:ec2:*:*:elastic-ip/*": ["ec2:AllocateAddress", "ec2:ReleaseAddress", "ec2:CreateTags"],
}  # fmt: skip


@dataclass(frozen=True)
class BaseUser:
    """The one long-lived key that a customer gives to Recoup; it may do nothing but assume the roles."""

    arn: str
    access_key_id: str
    secret_access_key: str = field(repr=False)


@dataclass(frozen=True)
class RoleArns:
    """The two roles of one account."""

    account: str
    scan: str
    act: str


def role_arns(account: str) -> RoleArns:
    """The ARNs that `install_roles` gives the roles of an account; known before they exist."""
    prefix = f"arn:aws:iam::{account}:role/"
    return RoleArns(account, prefix + SCAN_ROLE, prefix + ACT_ROLE)


def create_base_user(clients: AwsClients, accounts: Sequence[str] = ACCOUNTS) -> BaseUser:
    """Creates the base user in the payer account with a key that may assume the roles of `accounts`."""
    iam = clients.client("iam", PAYER_ACCOUNT)
    user = iam.create_user(UserName=BASE_USER)["User"]
    arns = [arn for account in accounts for arn in (role_arns(account).scan, role_arns(account).act)]
    actions = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
    document = _policy({"Effect": "Allow", "Action": actions, "Resource": arns})
    iam.put_user_policy(UserName=BASE_USER, PolicyName="AssumeRecoupRoles", PolicyDocument=document)
    key = iam.create_access_key(UserName=BASE_USER)["AccessKey"]
    return BaseUser(user["Arn"], key["AccessKeyId"], key["SecretAccessKey"])


def install_roles(
    clients: AwsClients,
    base_user_arn: str,
    external_id: str,
    *,
    accounts: Sequence[str] = ACCOUNTS,
    bill_bucket: str | None = None,
) -> dict[str, RoleArns]:
    """Creates the roles, or updates their trust and policies, as a customer does once Recoup has shown
    the external id. `bill_bucket`: lets the payer account's scan role read the bill export in it.
    """
    for account in accounts:
        iam = clients.client("iam", account)
        trust = _trust(base_user_arn, external_id)
        bucket = bill_bucket if account == PAYER_ACCOUNT else None
        for name, document in ((SCAN_ROLE, scan_policy(bucket)), (ACT_ROLE, act_policy())):
            _put_role(iam, name, trust)
            iam.put_role_policy(RoleName=name, PolicyName=f"{name}Access", PolicyDocument=document)
    return {account: role_arns(account) for account in accounts}


def scan_policy(bill_bucket: str | None) -> str:
    """Reading only: the described resource types, metrics, and the bill export where there is one."""
    statements: list[dict[str, Any]] = [
        {"Effect": "Allow", "Action": [*_READS, "cloudwatch:GetMetricData"], "Resource": "*"}
    ]
    if bill_bucket:
        bucket = f"arn:aws:s3:::{bill_bucket}"
        listing = ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketLocation", "s3:GetBucketVersioning"]
        statements.append({"Effect": "Allow", "Action": listing, "Resource": bucket})
        reading = ["s3:GetObject", "s3:GetObjectVersion"]
        statements.append({"Effect": "Allow", "Action": reading, "Resource": f"{bucket}/*"})
    return _policy(*statements)


def act_policy() -> str:
    """What the actions and their rollbacks do, and a refusal for everything that carries the hold tag."""
    statements: list[dict[str, Any]] = [{"Effect": "Allow", "Action": _READS, "Resource": "*"}]
    statements += [
        {"Effect": "Allow", "Action": actions, "Resource": resource} for resource, actions in _CHANGES.items()
    ]
    held = {"Null": {f"aws:ResourceTag/{HOLD_TAG}": "false"}}
    changes = ["ec2:DeleteVolume", "ec2:ModifyVolume", "ec2:ReleaseAddress", "ec2:DeleteSnapshot"]
    statements.append({"Effect": "Deny", "Action": changes, "Resource": "*", "Condition": held})
    return _policy(*statements)


def _trust(base_user_arn: str, external_id: str) -> str:
    caller = {"Effect": "Allow", "Principal": {"AWS": base_user_arn}}
    condition = {"StringEquals": {"sts:ExternalId": external_id}}
    assume = {**caller, "Action": "sts:AssumeRole", "Condition": condition}
    return _policy(assume, {**caller, "Action": ["sts:SetSourceIdentity", "sts:TagSession"]})


def _put_role(iam: Any, name: str, trust: str) -> None:
    try:
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust, Description="Used by Recoup")
    except iam.exceptions.EntityAlreadyExistsException:
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust)


def _policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
