"""aws.snapshot.old: our own snapshot, three months old or older, that no image, template or backup plan rests on."""

from __future__ import annotations

from decimal import Decimal

from services.scanner.detections.base import Detection, Match, Sight, Threshold, Undetermined, Verdict, days, times
from services.scanner.model.resource import Resource, moment


def judge(sight: Sight) -> Verdict:
    """Self-owned, completed, older than `min_age_days` by the provider's own start time, and used by nothing."""
    facts, details = sight.resource.facts, sight.resource.details
    if "used_by" not in details:
        return Undetermined("images or launch templates of the region couldn't be read")
    started = moment(facts["started_at"])
    if started is None:
        return Undetermined("the snapshot has no start time")
    age = sight.now - started
    if facts["state"] != "completed" or age < days(sight.settings["min_age_days"]) or details["used_by"]:
        return None
    if facts.get("storage_tier", "standard") != "standard":
        return None
    # Snapshots are incremental and EC2 doesn't say how much of one is its own: the volume's size is the upper bound.
    most = times(Decimal(facts["size_gib"]), sight.prices.unit("ebs.snapshot.gb_month"))
    return Match(
        most,
        {"age_days": str(age.days), "monthly_saving_is": "at most; snapshots share blocks", "monthly_saving_from": "0"},
        confidence="LOW",
    )


def skus(resource: Resource) -> tuple[str, ...]:
    """The snapshot's price."""
    return ("ebs.snapshot.gb_month",)


DETECTION = Detection(
    detection_id="aws.snapshot.old",
    title="Old snapshot that nothing rests on",
    resource_type="ec2.snapshot",
    thresholds={"min_age_days": Threshold(Decimal(90), Decimal(30), Decimal(3650), "days")},
    severity="LOW",
    reads=("ec2:DescribeSnapshots", "ec2:DescribeImages", "ec2:DescribeLaunchTemplateVersions"),
    action_type="",
    action_permissions=(),
    rollback="Restore from the archive tier or the Recycle Bin.",
    rollback_permissions=(),
    judge=judge,
    skus=skus,
)
