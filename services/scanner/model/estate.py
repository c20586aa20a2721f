"""Makes resources of EC2's entries: the one place that knows how AWS spells a volume, snapshot, address or instance.

Pure. A fact that AWS didn't give is absent; what couldn't be read (images, volumes) leaves its detail absent, so that
detections say "undetermined" instead of guessing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from services.scanner.model.reading import Outcome, UnitReading
from services.scanner.model.resource import Resource, ResourceKey, moment, tags_digest, timestamp

_STOPPED_AT = re.compile(r"\((\d{4}-\d{2}-\d{2}) (\d{2}:\d{2}:\d{2}) (?:GMT|UTC)\)")


def resources_of(account: str, region: str, units: Sequence[UnitReading]) -> list[Resource]:
    """The resources of one account and region, cross-referenced with each other."""
    entries: dict[str, Sequence[Mapping[str, Any]]] = {
        reading.coverage.unit.api: reading.entries
        for reading in units
        if reading.coverage.outcome is Outcome.COMPLETE or reading.entries
    }
    whole = {reading.coverage.unit.api for reading in units if reading.coverage.outcome is Outcome.COMPLETE}
    volumes = entries.get("ec2:DescribeVolumes", ())
    used_by = (
        _snapshot_users(entries) if {"ec2:DescribeImages", "ec2:DescribeLaunchTemplateVersions"} <= whole else None
    )
    attached = _attached(volumes) if "ec2:DescribeVolumes" in whole else None
    place = _Place(account, region)
    return [
        *(place.volume(entry) for entry in volumes),
        *(place.snapshot(entry, used_by) for entry in entries.get("ec2:DescribeSnapshots", ())),
        *(place.address(entry) for entry in entries.get("ec2:DescribeAddresses", ())),
        *(place.instance(entry, attached) for entry in entries.get("ec2:DescribeInstances", ())),
    ]


class _Place:
    """Names and shapes resources of one account and region."""

    def __init__(self, account: str, region: str) -> None:
        self._account, self._region = account, region

    def _key(self, kind: str, identifier: str) -> ResourceKey:
        return ResourceKey("aws", partition_of(self._region), self._account, self._region, kind, identifier)

    def volume(self, entry: Mapping[str, Any]) -> Resource:
        tags = _tags(entry)
        facts = {
            "state": str(entry["State"]),
            "volume_type": str(entry["VolumeType"]),
            "size_gib": str(entry["Size"]),
            "iops": str(entry.get("Iops", "")),
            "throughput_mibps": str(entry.get("Throughput", "")),
            "created_at": timestamp(entry["CreateTime"]),
            "attachments": str(len(entry.get("Attachments", []))),
            "encrypted": "true" if entry.get("Encrypted") else "false",
            "tags_sha256": tags_digest(tags),
        }
        return Resource(self._key("ec2.volume", entry["VolumeId"]), facts, tags)

    def snapshot(self, entry: Mapping[str, Any], used_by: Mapping[str, Sequence[str]] | None) -> Resource:
        tags = _tags(entry)
        facts = {
            "state": str(entry["State"]),
            "size_gib": str(entry["VolumeSize"]),
            "started_at": timestamp(entry["StartTime"]),
            "volume_id": str(entry.get("VolumeId", "")),
            "storage_tier": str(entry.get("StorageTier", "standard")),
            "tags_sha256": tags_digest(tags),
        }
        details = {}
        if used_by is not None:
            users = list(used_by.get(entry["SnapshotId"], ()))
            users += ["AWS Backup"] if any(key.startswith("aws:backup:") for key in tags) else []
            details["used_by"] = ", ".join(sorted(users)[:10])
        return Resource(self._key("ec2.snapshot", entry["SnapshotId"]), facts, tags, details)

    def address(self, entry: Mapping[str, Any]) -> Resource:
        tags = _tags(entry)
        facts = {
            "public_ip": str(entry["PublicIp"]),
            "association_id": str(entry.get("AssociationId", "")),
            "network_interface_id": str(entry.get("NetworkInterfaceId", "")),
            "tags_sha256": tags_digest(tags),
        }
        return Resource(self._key("ec2.address", entry["AllocationId"]), facts, tags)

    def instance(self, entry: Mapping[str, Any], attached: Mapping[str, Sequence[str]] | None) -> Resource:
        tags = _tags(entry)
        facts = {
            "state": str(entry["State"]["Name"]),
            "instance_type": str(entry["InstanceType"]),
            "launched_at": timestamp(entry["LaunchTime"]),
            "tags_sha256": tags_digest(tags),
        }
        details = {"stopped_at": stopped_at(str(entry.get("StateTransitionReason", "")))}
        if attached is not None:
            details["volumes"] = ";".join(attached.get(entry["InstanceId"], ()))
        return Resource(self._key("ec2.instance", entry["InstanceId"]), facts, tags, details)


def partition_of(region: str) -> str:
    """The AWS partition of a region."""
    return "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"


def stopped_at(reason: str) -> str:
    """The moment in "User initiated (2026-10-01 12:00:00 GMT)", or "" when EC2 doesn't say."""
    found = _STOPPED_AT.search(reason)
    text = f"{found[1]}T{found[2]}Z" if found else ""
    return text if moment(text) else ""


def _tags(entry: Mapping[str, Any]) -> dict[str, str]:
    return {str(tag["Key"]): str(tag["Value"]) for tag in entry.get("Tags", [])}


def _snapshot_users(entries: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[str]]:
    users: dict[str, list[str]] = defaultdict(list)
    for image in entries["ec2:DescribeImages"]:
        for snapshot in _snapshots(image.get("BlockDeviceMappings", [])):
            users[snapshot].append(str(image["ImageId"]))
    for version in entries["ec2:DescribeLaunchTemplateVersions"]:
        for snapshot in _snapshots(version.get("LaunchTemplateData", {}).get("BlockDeviceMappings", [])):
            users[snapshot].append(str(version["LaunchTemplateId"]))
    return users


def _snapshots(mappings: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    return (str(m["Ebs"]["SnapshotId"]) for m in mappings if m.get("Ebs", {}).get("SnapshotId"))


def _attached(volumes: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    attached: dict[str, list[str]] = defaultdict(list)
    for volume in volumes:
        for attachment in volume.get("Attachments", []):
            attached[str(attachment.get("InstanceId", ""))].append(
                f"{volume['VolumeId']}:{volume['VolumeType']}:{volume['Size']}"
            )
    return attached
