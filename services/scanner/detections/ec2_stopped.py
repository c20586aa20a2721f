"""aws.ec2.stopped: an instance that has been stopped for a month or longer, whose volumes go on costing."""

from __future__ import annotations

from decimal import Decimal

from services.scanner.detections.base import (
    Detection,
    Match,
    Sight,
    Threshold,
    Undetermined,
    Verdict,
    days,
    plus,
    times,
)
from services.scanner.model.resource import Resource, moment, timestamp


def judge(sight: Sight) -> Verdict:
    """Stopped for `min_age_days`, by the provider's own note of the stop or else by our ledger."""
    facts, details = sight.resource.facts, sight.resource.details
    if facts["state"] != "stopped":
        return None
    stopped_at = moment(details.get("stopped_at", "")) or sight.entry.since
    age = sight.now - stopped_at
    if age < days(sight.settings["min_age_days"]):
        return None
    if "volumes" not in details:
        return Undetermined("the volumes of the region couldn't be read")
    cost = plus(*(_volume_cost(part, sight) for part in details["volumes"].split(";") if part))
    return Match(
        cost,
        {"stopped_since": timestamp(stopped_at), "age_days": str(age.days), "volumes": details["volumes"]},
        confidence="MEDIUM",
    )


def skus(resource: Resource) -> tuple[str, ...]:
    """The prices of the attached volumes' types."""
    parts = resource.details.get("volumes", "").split(";")
    return tuple(f"ebs.{part.split(':')[1]}.gb_month" for part in parts if part)


def _volume_cost(part: str, sight: Sight) -> Decimal | None:
    _, volume_type, size = part.split(":")
    return times(Decimal(size), sight.prices.unit(f"ebs.{volume_type}.gb_month"))


DETECTION = Detection(
    detection_id="aws.ec2.stopped",
    title="Instance stopped for long",
    resource_type="ec2.instance",
    thresholds={"min_age_days": Threshold(Decimal(30), Decimal(7), Decimal(365), "days")},
    severity="MEDIUM",
    reads=("ec2:DescribeInstances", "ec2:DescribeVolumes"),
    action_type="",
    action_permissions=(),
    rollback="Launch an instance from the image that was made before.",
    rollback_permissions=(),
    judge=judge,
    skus=skus,
)
