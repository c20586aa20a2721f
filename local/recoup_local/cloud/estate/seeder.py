"""Carries out the plan of the estate over the cloud's API, one simulated day after the other.

The caller moves the clock to each day first. It keeps the ids of what it made in a state file, so that
seeding can go on in another process.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recoup_local.cloud.aws_clients import AwsClients
from recoup_local.cloud.estate.plan import (
    AddressPlan,
    EstatePlan,
    ImagePlan,
    InstancePlan,
    RegionPlan,
    SnapshotPlan,
    VolumePlan,
)
from recoup_local.cloud.launch import PAYER_ACCOUNT

Ids = dict[str, str]


def bill_bucket_name() -> str:
    """The bucket of the payer account that the bill export goes to."""
    return f"finops-exports-{PAYER_ACCOUNT}"


class Estate:
    """The estate being built. `ids` maps "account/region/ref" to the provider's id."""

    def __init__(self, clients: AwsClients, plan: EstatePlan, state_file: Path | None = None) -> None:
        self.plan = plan
        self._clients = clients
        self._state_file = state_file
        self.ids: Ids = {}
        self.done_days: list[int] = []
        if state_file and state_file.exists():
            state = json.loads(state_file.read_text("utf-8"))
            self.ids, self.done_days = state["ids"], state["done_days"]

    def create_bill_bucket(self) -> str:
        """Makes the versioned bucket of the bill export in the payer account and returns its name."""
        s3 = self._clients.client("s3", PAYER_ACCOUNT)
        s3.create_bucket(Bucket=bill_bucket_name())
        s3.put_bucket_versioning(Bucket=bill_bucket_name(), VersioningConfiguration={"Status": "Enabled"})
        return bill_bucket_name()

    def seed_day(self, day: int) -> int:
        """Does what the plan has for this day and returns the number of steps; a day is done only once.

        The movable clock must already stand on that day, since the provider stamps its times from it.
        """
        if day in self.done_days:
            return 0
        steps = sum(_RegionDay(self._clients, region, day, self.ids).run() for region in self.plan.regions)
        self.done_days.append(day)
        if self._state_file:
            text = json.dumps({"ids": self.ids, "done_days": self.done_days}, indent=1)
            self._state_file.write_text(text, "utf-8")
        return steps


class _RegionDay:
    """One day's steps in one account and region; images first, since instances start from them."""

    def __init__(self, clients: AwsClients, plan: RegionPlan, day: int, ids: Ids) -> None:
        self._ec2: Any = clients.client("ec2", plan.account, plan.region)
        self._plan = plan
        self._day = day
        self._ids = ids
        self._prefix = f"{plan.account}/{plan.region}/"
        self._zone = f"{plan.region}a"
        self._steps = 0

    def run(self) -> int:
        for image in self._plan.images:
            if not image.source:
                self._image(image)
        for instance in self._plan.instances:
            self._instance(instance)
        for volume in self._plan.volumes:
            self._volume(volume)
        for address in self._plan.addresses:
            self._address(address)
        for snapshot in self._plan.snapshots:
            self._snapshot(snapshot)
        for image in self._plan.images:
            if image.source:
                self._image(image)
        return self._steps

    def _id(self, ref: str) -> str:
        return self._ids[self._prefix + ref]

    def _keep(self, ref: str, value: str) -> None:
        self._ids[self._prefix + ref] = value
        self._steps += 1

    def _image(self, plan: ImagePlan) -> None:
        if plan.day == self._day:
            if plan.source:
                made = self._ec2.create_image(InstanceId=self._id(plan.source), Name=plan.name, NoReboot=True)
            else:
                made = self._ec2.register_image(Name=plan.name, Architecture="x86_64", RootDeviceName="/dev/sda1")
            self._keep(plan.ref, made["ImageId"])
            image = self._ec2.describe_images(ImageIds=[made["ImageId"]])["Images"][0]
            self._keep(f"{plan.ref}.snapshot", image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])
            if not plan.source:
                data = {"ImageId": made["ImageId"], "InstanceType": "t3.medium"}
                self._ec2.create_launch_template(LaunchTemplateName="web", LaunchTemplateData=data)
        elif plan.deregister_day == self._day:
            self._ec2.deregister_image(ImageId=self._id(plan.ref))
            self._steps += 1

    def _instance(self, plan: InstancePlan) -> None:
        if plan.day == self._day:
            root = {"VolumeSize": plan.root_gib, "VolumeType": plan.root_type, "DeleteOnTermination": True}
            made = self._ec2.run_instances(
                ImageId=self._id("golden"),
                InstanceType=plan.instance_type,
                MinCount=1,
                MaxCount=1,
                Placement={"AvailabilityZone": self._zone},
                BlockDeviceMappings=[{"DeviceName": "/dev/sda1", "Ebs": root}],
                TagSpecifications=[*_tagged("instance", plan.tags), *_tagged("volume", plan.tags)],
            )["Instances"][0]
            self._keep(plan.ref, made["InstanceId"])
            self._keep(f"{plan.ref}.root", made["BlockDeviceMappings"][0]["Ebs"]["VolumeId"])
        for change in self._changes(plan.changes):
            act = self._ec2.stop_instances if change == "stop" else self._ec2.start_instances
            act(InstanceIds=[self._id(plan.ref)])

    def _volume(self, plan: VolumePlan) -> None:
        if plan.day == self._day:
            extra = {"Iops": plan.iops} if plan.iops else {}
            made = self._ec2.create_volume(
                AvailabilityZone=self._zone,
                Size=plan.size_gib,
                VolumeType=plan.volume_type,
                TagSpecifications=_tagged("volume", plan.tags),
                **extra,
            )
            self._keep(plan.ref, made["VolumeId"])
        for change in self._changes(plan.changes):
            names = {"VolumeId": self._id(plan.ref), "InstanceId": self._id(plan.host)}
            if change == "attach":
                self._ec2.attach_volume(Device=f"/dev/xvd{plan.ref.removeprefix('volume')}", **names)
            else:
                self._ec2.detach_volume(**names)

    def _snapshot(self, plan: SnapshotPlan) -> None:
        if plan.day != self._day:
            return
        made = self._ec2.create_snapshot(
            VolumeId=self._id(plan.volume),
            Description=plan.description,
            TagSpecifications=_tagged("snapshot", plan.tags),
        )
        self._keep(plan.ref, made["SnapshotId"])
        if plan.in_template:
            disk = {"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": made["SnapshotId"]}}
            data = {"ImageId": self._id("golden"), "BlockDeviceMappings": [disk]}
            self._ec2.create_launch_template(LaunchTemplateName="workers", LaunchTemplateData=data)

    def _address(self, plan: AddressPlan) -> None:
        if plan.day == self._day:
            made = self._ec2.allocate_address(Domain="vpc", TagSpecifications=_tagged("elastic-ip", plan.tags))
            self._keep(plan.ref, made["AllocationId"])
        for change in self._changes(plan.changes):
            allocation = self._id(plan.ref)
            if change == "associate":
                self._ec2.associate_address(AllocationId=allocation, InstanceId=self._id(plan.host))
            else:
                found = self._ec2.describe_addresses(AllocationIds=[allocation])["Addresses"][0]
                self._ec2.disassociate_address(AssociationId=found["AssociationId"])

    def _changes(self, changes: tuple[tuple[int, str], ...]) -> list[str]:
        today = [change for day, change in changes if day == self._day]
        self._steps += len(today)
        return today


def _tagged(kind: str, tags: dict[str, str]) -> list[dict[str, Any]]:
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    return [{"ResourceType": kind, "Tags": listed}]
