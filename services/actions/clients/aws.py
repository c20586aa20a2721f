"""The calls to AWS that actions make: observe a resource, make one change, find out whether a change was applied.

Owns the meaning of EC2's answers. It must not decide anything: what follows from an answer is the use case's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from typing import Any

import rfc8785
from botocore.exceptions import ClientError

from services._mesh.aws import CALL_DEADLINE_SECONDS, CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, client
from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.clock import Clock
from services._mesh.threads import BoundedThreads
from services.actions.model.plan import Plan, ResourceKey, timestamp

# The longest that a change is on its way, with room for what comes around it.
CHANGE_SECONDS = float(CONNECT_TIMEOUT_SECONDS + READ_TIMEOUT_SECONDS + 5)
_GONE = frozenset({"InvalidVolume.NotFound", "InvalidAllocationID.NotFound", "InvalidSnapshot.NotFound"})
_DELETED = frozenset({"deleting", "deleted"})
ACTION_TAG, PLAN_TAG = "recoup:action", "recoup:plan"


class NotSent(Exception):
    """A change that was left unsent, because it was too late to be safe."""


@dataclass(frozen=True)
class Threads:
    """Threads for reading, and others for changing: readings that hang must not keep a change waiting."""

    reads: BoundedThreads
    changes: BoundedThreads

    @classmethod
    def of(cls, size: int) -> Threads:
        """So many of each."""
        return cls(BoundedThreads(size, "aws-reads"), BoundedThreads(size, "aws-changes"))

    def close(self) -> None:
        """Take no more calls."""
        self.reads.close()
        self.changes.close()


class Ec2:
    """EC2 in one account and region, for one job, with the session that the broker opened for it.

    Every method raises what botocore raises; `services._mesh.aws.classify` says what that means.
    """

    def __init__(
        self, threads: Threads, settings: AwsSettings, credentials: AwsCredentials, region: str, clock: Clock
    ) -> None:
        self._threads, self._clock = threads, clock
        self._make = partial(client, "ec2", region, settings, credentials)

    # Made in the threads that use them, since making one takes a while; and most turns only read.
    @cached_property
    def _read(self) -> Any:
        return self._make()

    @cached_property
    def _write(self) -> Any:
        return self._make(changes_state=True)

    async def observe(self, resource: ResourceKey) -> dict[str, str] | None:
        """The facts of the resource that plans rest on, or None when the cloud says that it is gone."""
        if resource.type == "ec2.volume":
            volume = await self._one("describe_volumes", "Volumes", VolumeIds=[resource.id])
            return None if volume is None or volume["State"] in _DELETED else volume_facts(volume)
        address = await self._one("describe_addresses", "Addresses", AllocationIds=[resource.id])
        return None if address is None else address_facts(address)

    async def apply(self, step: str, action_id: str, plan: Plan, not_after: datetime) -> str:
        """Make the change of one step, once, and don't begin after `not_after` (wall clock).

        Returns the id of what it made or changed. Raises NotSent besides what botocore raises.
        """
        operation, arguments = self._change(step, action_id, plan)
        made = await self._threads.changes.run(CALL_DEADLINE_SECONDS, self._send, not_after, operation, arguments)
        return str(made["SnapshotId"]) if step == "create_snapshot" else plan.resource.id

    def _change(self, step: str, action_id: str, plan: Plan) -> tuple[str, dict[str, Any]]:
        """The one operation of a step, with its arguments."""
        if step == "create_snapshot":
            return "create_snapshot", snapshot_request(plan.resource, action_id, plan.plan_hash)
        if step == "delete_volume":
            return "delete_volume", {"VolumeId": plan.resource.id}
        if step == "modify_volume":
            return "modify_volume", modification_request(plan.resource, plan.parameters)
        if step == "release_address":
            return "release_address", {"AllocationId": plan.resource.id}
        raise ValueError(f"no such step: {step}")

    def _send(self, not_after: datetime, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """In its thread: the last moment at which a change can still be left unsent."""
        call = getattr(self._write, operation)
        if self._clock.wall_now() > not_after:
            raise NotSent
        answer: dict[str, Any] = call(**arguments)
        return answer

    async def find_effect(self, step: str, action_id: str, resource: ResourceKey) -> str | None:
        """Read whether the change of a step was applied: the id of what it made or changed, or None.

        Snapshots are found by the tag that the same call set on them (EC2 tags on create atomically).
        """
        if step == "create_snapshot":
            found = await self._run(
                "describe_snapshots",
                OwnerIds=["self"],
                Filters=[
                    {"Name": f"tag:{ACTION_TAG}", "Values": [action_id]},
                    {"Name": "volume-id", "Values": [resource.id]},
                ],
            )
            ids = sorted(str(s["SnapshotId"]) for s in found["Snapshots"] if s.get("State") != "error")
            return ids[0] if ids else None
        facts = await self.observe(resource)
        if step == "modify_volume":
            return resource.id if facts is not None and facts["volume_type"] == "gp3" else None
        return resource.id if facts is None else None

    async def is_complete(self, step: str, result_id: str, plan: Plan) -> bool:
        """Whether what a step began is finished. Raises ValueError when it ended badly or isn't what was meant."""
        if step == "modify_volume":
            await self._refuse_failed_modification(plan.resource)
        if step != "create_snapshot":
            return await self.find_effect(step, "", plan.resource) is not None
        snapshot = await self._one("describe_snapshots", "Snapshots", SnapshotIds=[result_id])
        if snapshot is None:
            raise ValueError(f"snapshot {result_id} is gone")
        if snapshot["State"] == "error":
            raise ValueError(f"snapshot {result_id} failed")
        if snapshot["VolumeId"] != plan.resource.id:
            raise ValueError(f"snapshot {result_id} is of another volume")
        # What was written before the last detach must be in it; a detach of which nothing is known counts as later.
        if timestamp(snapshot["StartTime"]) <= plan.evidence.get("available_since", "9999"):
            raise ValueError(f"snapshot {result_id} is older than the volume's last detach")
        return bool(snapshot["State"] == "completed")

    async def _refuse_failed_modification(self, resource: ResourceKey) -> None:
        """EC2 accepts a modification and may still give it up: the type then stays what it was."""
        found = await self._one("describe_volumes_modifications", "VolumesModifications", VolumeIds=[resource.id])
        if found is not None and found.get("ModificationState") == "failed":
            why = found.get("StatusMessage") or "no reason given"
            raise ValueError(f"the modification of {resource.id} failed: {why}")

    async def _one(self, operation: str, key: str, **arguments: Any) -> dict[str, Any] | None:
        try:
            found = (await self._run(operation, **arguments))[key]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _GONE:
                return None
            raise
        return found[0] if found else None

    async def _run(self, operation: str, **arguments: Any) -> dict[str, Any]:
        return await self._threads.reads.run(CALL_DEADLINE_SECONDS, self._ask, operation, arguments)

    def _ask(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = getattr(self._read, operation)(**arguments)
        return answer


def modification_request(resource: ResourceKey, values: Mapping[str, str]) -> dict[str, Any]:
    """ModifyVolume's arguments: gp3 with the IOPS and throughput (MiB/s) of the plan."""
    return {
        "VolumeId": resource.id,
        "VolumeType": "gp3",
        "Iops": int(values["iops"]),
        "Throughput": int(values["throughput_mibps"]),
    }


def snapshot_request(resource: ResourceKey, action_id: str, plan_hash: str) -> dict[str, Any]:
    """CreateSnapshot's arguments: tagged in the same call, and with none of the volume's own tags, so that no mark of
    the volume is inherited."""
    tags = [{"Key": ACTION_TAG, "Value": action_id}, {"Key": PLAN_TAG, "Value": plan_hash}]
    return {
        "VolumeId": resource.id,
        "Description": f"Kept by Recoup before {resource.id} is deleted (action {action_id})",
        "TagSpecifications": [{"ResourceType": "snapshot", "Tags": tags}],
    }


def volume_facts(volume: Mapping[str, Any]) -> dict[str, str]:
    """The facts of one entry of DescribeVolumes, as findings and plans spell them."""
    return {
        "state": str(volume["State"]),
        "volume_type": str(volume["VolumeType"]),
        "size_gib": str(volume["Size"]),
        "iops": str(volume.get("Iops", "")),
        "throughput_mibps": str(volume.get("Throughput", "")),
        "created_at": timestamp(volume["CreateTime"]),
        "attachments": str(len(volume.get("Attachments", []))),
        "encrypted": "true" if volume.get("Encrypted") else "false",
        "tags_sha256": tags_digest(volume.get("Tags", [])),
    }


def address_facts(address: Mapping[str, Any]) -> dict[str, str]:
    """The facts of one entry of DescribeAddresses, as findings and plans spell them."""
    return {
        "public_ip": str(address["PublicIp"]),
        "association_id": str(address.get("AssociationId", "")),
        "network_interface_id": str(address.get("NetworkInterfaceId", "")),
        "tags_sha256": tags_digest(address.get("Tags", [])),
    }


def tags_digest(tags: list[Mapping[str, str]]) -> str:
    """SHA-256 over all tags as RFC 8785 JSON, hexadecimal: any change of any tag makes a plan stale."""
    return hashlib.sha256(rfc8785.dumps({tag["Key"]: tag["Value"] for tag in tags})).hexdigest()
