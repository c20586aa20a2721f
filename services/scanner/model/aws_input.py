"""What people give to connect AWS accounts: what is wrong with it, and the way out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from services.scanner.model.connection import Account, NewConnection

_ROLE = re.compile(r"arn:(?P<partition>aws[a-z-]*):iam::(?P<account>[0-9]{12}):role/[A-Za-z0-9+=,.@_/-]{1,512}")
_KEY_ID, _SECRET = re.compile(r"[A-Z0-9]{16,128}"), re.compile(r"\S{16,256}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
_PARTITIONS = {"cn": "aws-cn", "us-gov": "aws-us-gov"}


def faults(given: NewConnection) -> Iterator[tuple[str, str]]:
    """Each field that is wrong, with its rule and the way out. Never says what a secret is."""
    yield from _key_faults(given)
    if not given.accounts:
        yield "aws_accounts", "must name an account with its role, or give azure or gcp in its stead"
    if not given.regions:
        yield "regions", "must name a region, such as eu-west-1"
    for place, region in enumerate(given.regions):
        if not _REGION.fullmatch(region):
            yield f"regions[{place}]", f"must be a region of AWS such as eu-west-1, not {region}; correct it"
    yield from _account_faults(given.accounts, {partition_of(region) for region in given.regions})


def partition_of(region: str) -> str:
    """The partition of a region (AWS general reference, "Amazon Resource Names")."""
    return next((found for start, found in _PARTITIONS.items() if region.startswith(f"{start}-")), "aws")


def _key_faults(given: NewConnection) -> Iterator[tuple[str, str]]:
    if bool(given.access_key_id) != bool(given.secret_access_key):
        empty = "aws_secret_access_key" if given.access_key_id else "aws_access_key_id"
        yield empty, "must be given together with the other half of the key, or neither"
        return
    for name, value, pattern, rule in (
        ("aws_access_key_id", given.access_key_id, _KEY_ID, "16 to 128 capital letters and digits"),
        ("aws_secret_access_key", given.secret_access_key, _SECRET, "16 to 256 characters without blanks"),
    ):
        if value != value.strip():
            yield name, "has a blank or a line break before or after it; copy it again without"
        elif value and not pattern.fullmatch(value):
            yield name, f"must be {rule}; copy it again from the key's page in IAM, or make a new key"


def _account_faults(accounts: Sequence[Account], partitions: set[str]) -> Iterator[tuple[str, str]]:
    if len(partitions) > 1:
        yield (
            "regions",
            f"must be of one partition, not of {' and '.join(sorted(partitions))}; make a connection for each",
        )
        return
    (partition,) = partitions or {"aws"}
    seen: set[str] = set()
    for place, account in enumerate(accounts):
        where = f"aws_accounts[{place}]"
        if account.account_id in seen:
            yield f"{where}.account_id", "must be given once; put both roles into one entry"
        seen.add(account.account_id)
        for name in ("scan_role_arn", "act_role_arn"):
            arn = getattr(account, name)
            if arn and (rule := _role_fault(arn, account.account_id, partition)):
                yield f"{where}.{name}", rule
        if account.scan_role_arn == account.act_role_arn:
            rule = "must be another role than scan_role_arn; leave it empty to be read only"
            yield f"{where}.act_role_arn", rule


def _role_fault(arn: str, account: str, partition: str) -> str:
    example = f"arn:{partition}:iam::{account}:role/RecoupScan"
    found = _ROLE.fullmatch(arn)
    if found is None:
        return f"must be the ARN of an IAM role, such as {example}; copy it from the role's page in IAM"
    if found["account"] != account:
        return f"must be a role of account {account}, and is one of {found['account']}; correct one of the two"
    if found["partition"] != partition:
        return f"must be of the regions' partition {partition}, and is of {found['partition']}; correct one of the two"
    return ""
