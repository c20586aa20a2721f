"""aws.ebs.gp2: a gp2 volume that would cost less as gp3 with the same IOPS and throughput."""

from __future__ import annotations

from dataclasses import replace

from services.scanner.detections import ebs_cost, ebs_unattached
from services.scanner.detections.base import Detection, Match, Sight, Undetermined, Verdict
from services.scanner.model.resource import Resource


def judge(sight: Sight) -> Verdict:
    """gp2, and cheaper as gp3 at equal performance. One that is unattached for long is left to aws.ebs.unattached."""
    facts = sight.resource.facts
    if facts["volume_type"] != "gp2" or ebs_unattached.judge(_with_defaults(sight)) is not None:
        return None
    iops, mibps = ebs_cost.gp3_equal_of(int(facts["size_gib"]))
    target = {**facts, "volume_type": "gp3", "iops": str(iops), "throughput_mibps": str(mibps)}
    before, after = ebs_cost.monthly_cost(facts, sight.prices), ebs_cost.monthly_cost(target, sight.prices)
    if before is None or after is None:
        return Undetermined("the price of gp2 or gp3 in this region isn't known")
    if after >= before:
        return None
    return Match(
        before - after,
        {
            "gp3_iops": str(iops),
            "gp3_throughput_mibps": str(mibps),
            "monthly_cost": str(before),
            "gp3_monthly_cost": str(after),
        },
    )


def _with_defaults(sight: Sight) -> Sight:
    return replace(sight, settings={**ebs_unattached.DETECTION.settings(), **sight.settings})


def skus(resource: Resource) -> tuple[str, ...]:
    """gp2's price and all of gp3's."""
    return (*ebs_cost.skus_of("gp2"), *ebs_cost.skus_of("gp3")) if resource.facts["volume_type"] == "gp2" else ()


DETECTION = Detection(
    detection_id="aws.ebs.gp2",
    title="gp2 volume that gp3 serves for less",
    resource_type="ec2.volume",
    thresholds={},
    severity="LOW",
    reads=("ec2:DescribeVolumes",),
    action_type="aws.ebs.convert_gp3",
    action_permissions=("ec2:ModifyVolume", "ec2:DescribeVolumesModifications"),
    rollback="Modify the volume back to gp2, six hours later at the earliest.",
    rollback_permissions=("ec2:ModifyVolume",),
    judge=judge,
    skus=skus,
)
