"""aws.ebs.unattached: a volume that has been available, so attached to nothing, for two weeks or longer."""

from __future__ import annotations

from decimal import Decimal

from services.scanner.detections import ebs_cost
from services.scanner.detections.base import Detection, Match, Sight, Threshold, Verdict, days, plus, times
from services.scanner.model.resource import Resource, timestamp


def judge(sight: Sight) -> Verdict:
    """Available for `min_age_days`; the saving is the volume's cost less that of the snapshot that is kept."""
    facts = sight.resource.facts
    if facts["state"] != "available" or sight.age < days(sight.settings["min_age_days"]):
        return None
    cost = ebs_cost.monthly_cost(facts, sight.prices)
    # A snapshot holds written blocks only, so its full size is the most that it can cost.
    snapshot = times(Decimal(facts["size_gib"]), sight.prices.unit("ebs.snapshot.gb_month"))
    saving = None if cost is None or snapshot is None else plus(cost, -snapshot)
    return Match(
        saving,
        {
            "available_since": timestamp(sight.entry.since),
            "age_days": str(sight.age.days),
            "monthly_cost": "" if cost is None else str(cost),
            "snapshot_monthly_cost_at_most": "" if snapshot is None else str(snapshot),
        },
    )


def skus(resource: Resource) -> tuple[str, ...]:
    """The volume's own prices, and the snapshot's."""
    return (*ebs_cost.skus_of(resource.facts["volume_type"]), "ebs.snapshot.gb_month")


DETECTION = Detection(
    detection_id="aws.ebs.unattached",
    title="EBS volume attached to nothing",
    resource_type="ec2.volume",
    thresholds={"min_age_days": Threshold(Decimal(14), Decimal(7), Decimal(365), "days")},
    severity="MEDIUM",
    reads=("ec2:DescribeVolumes",),
    action_type="aws.ebs.delete_volume",
    action_permissions=("ec2:CreateSnapshot", "ec2:CreateTags", "ec2:DescribeSnapshots", "ec2:DeleteVolume"),
    rollback="Create a volume from the snapshot; it gets a new id.",
    rollback_permissions=("ec2:CreateVolume", "ec2:CreateTags"),
    judge=judge,
    skus=skus,
)
