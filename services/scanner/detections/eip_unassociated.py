"""aws.eip.unassociated: an Elastic IP address that has been associated with nothing for a week or longer."""

from __future__ import annotations

from decimal import Decimal

from services.scanner.detections.base import HOURS_A_MONTH, Detection, Match, Sight, Threshold, Verdict, days, times
from services.scanner.model.resource import Resource, timestamp


def judge(sight: Sight) -> Verdict:
    """No association for `min_age_days` by our own ledger: EC2 doesn't say since when."""
    if sight.entry.condition != "unassociated" or sight.age < days(sight.settings["min_age_days"]):
        return None
    saving = times(HOURS_A_MONTH, sight.prices.unit("ec2.eip.idle_hour"))
    return Match(saving, {"unassociated_since": timestamp(sight.entry.since), "age_days": str(sight.age.days)})


def skus(resource: Resource) -> tuple[str, ...]:
    """The idle public IPv4 address."""
    return ("ec2.eip.idle_hour",)


DETECTION = Detection(
    detection_id="aws.eip.unassociated",
    title="Elastic IP address associated with nothing",
    resource_type="ec2.address",
    thresholds={"min_age_days": Threshold(Decimal(7), Decimal(1), Decimal(365), "days")},
    severity="LOW",
    reads=("ec2:DescribeAddresses",),
    action_type="aws.ec2.release_address",
    action_permissions=("ec2:ReleaseAddress",),
    rollback="Allocate the same address again, as long as nobody else has it (best effort).",
    rollback_permissions=("ec2:AllocateAddress",),
    judge=judge,
    skus=skus,
)
