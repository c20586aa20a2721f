"""Probes the permissions of an AWS session without changing anything: EC2 checks a dry run's permission first.

It must not judge what follows. Reads are dry runs; changes are dry runs of what there isn't, besides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from services._mesh.aws import CALL_DEADLINE_SECONDS, Failure, classify, client
from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.threads import BoundedThreads
from services.scanner.policies.aws import NO_ADDRESS, NO_VOLUME

_TAGS = [{"ResourceType": "snapshot", "Tags": [{"Key": "recoup:action", "Value": "probe"}]}]
# The operation and arguments behind each permission. Tags can only be set by the call that makes a snapshot.
_CALLS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "ec2:DescribeVolumes": ("describe_volumes", {}),
    "ec2:DescribeSnapshots": ("describe_snapshots", {"OwnerIds": ["self"]}),
    "ec2:DescribeAddresses": ("describe_addresses", {}),
    "ec2:DescribeInstances": ("describe_instances", {}),
    "ec2:DescribeImages": ("describe_images", {"Owners": ["self"]}),
    "ec2:DescribeLaunchTemplateVersions": ("describe_launch_template_versions", {"Versions": ["$Latest"]}),
    "ec2:DescribeVolumesModifications": ("describe_volumes_modifications", {}),
    "ec2:CreateSnapshot": ("create_snapshot", {"VolumeId": NO_VOLUME}),
    "ec2:CreateTags": ("create_snapshot", {"VolumeId": NO_VOLUME, "TagSpecifications": _TAGS}),
    "ec2:DeleteVolume": ("delete_volume", {"VolumeId": NO_VOLUME}),
    "ec2:ModifyVolume": ("modify_volume", {"VolumeId": NO_VOLUME, "VolumeType": "gp3"}),
    "ec2:ReleaseAddress": ("release_address", {"AllocationId": NO_ADDRESS}),
}
# A permission that can be told only where another one is allowed: the same call needs both.
_AFTER = {"ec2:CreateTags": "ec2:CreateSnapshot"}
Outcome = tuple[str, str]


async def probe(
    threads: BoundedThreads, settings: AwsSettings, credentials: AwsCredentials, region: str, wanted: Sequence[str]
) -> dict[str, Outcome]:
    """Each permission's outcome ("ALLOWED", "REFUSED", "UNKNOWN") and the cloud's code where it isn't allowed."""

    ec2 = await threads.run(CALL_DEADLINE_SECONDS, client, "ec2", region, settings, credentials)

    async def one(permission: str) -> Outcome:
        try:
            return await threads.run(CALL_DEADLINE_SECONDS, _call, ec2, permission)
        except TimeoutError:
            return "UNKNOWN", "Timeout"

    outcomes = dict(zip(wanted, await asyncio.gather(*(one(permission) for permission in wanted)), strict=True))
    for permission, first in _AFTER.items():
        if permission in outcomes and outcomes[first][0] != "ALLOWED":
            outcomes[permission] = ("UNKNOWN", f"{first} comes first")
    return outcomes


def _call(ec2: Any, permission: str) -> Outcome:
    """In its thread: one dry run. The client may repeat it, since it changes nothing."""
    operation, arguments = _CALLS[permission]
    try:
        getattr(ec2, operation)(**arguments, DryRun=True)
    except Exception as error:  # classify() raises again what isn't the cloud's.
        failure, code = classify(error)
        # A dry run that would succeed is an error of its own; so is one that is let through to what there isn't.
        if code == "DryRunOperation" or code.endswith(".NotFound"):
            return "ALLOWED", ""
        return ("REFUSED" if failure is Failure.DENIED else "UNKNOWN"), code
    return "ALLOWED", ""
