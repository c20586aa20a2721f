"""Detections, the ledger and the estate's spelling: near misses on both sides of each threshold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from services.scanner.detections import DETECTIONS
from services.scanner.detections.base import Match, Sight, Undetermined, Verdict
from services.scanner.detections.judging import judge_all
from services.scanner.model import ledger
from services.scanner.model.connection import RoleCheck, judge
from services.scanner.model.estate import stopped_at
from services.scanner.model.finding import PriceBook
from services.scanner.model.ledger import Entry
from services.scanner.model.resource import Hold, Resource, ResourceKey, hold_of

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
BOOK = PriceBook(
    {
        "ebs.gp2.gb_month": Decimal("0.10"),
        "ebs.gp3.gb_month": Decimal("0.08"),
        "ebs.gp3.iops_month": Decimal("0.005"),
        "ebs.gp3.throughput_mibps_month": Decimal("0.04"),
        "ebs.io1.gb_month": Decimal("0.125"),
        "ebs.io1.iops_month": Decimal("0.065"),
        "ebs.snapshot.gb_month": Decimal("0.05"),
        "ec2.eip.idle_hour": Decimal("0.005"),
    },
    "USD",
    "v1",
)
BY_ID = {detection.detection_id: detection for detection in DETECTIONS}


def resource(kind: str, facts: dict[str, str], tags: dict[str, str] | None = None, **details: str) -> Resource:
    return Resource(ResourceKey("aws", "aws", "1", "us-east-1", kind, "x"), facts, tags or {}, details)


def verdict(detection: str, found: Resource, age: timedelta, book: PriceBook = BOOK) -> Verdict:
    entry = Entry(ledger.condition_of(found), NOW - age, False)
    chosen = BY_ID[detection]
    return chosen.judge(Sight(found, entry, book, NOW, chosen.settings()))


def volume(
    state: str = "available", kind: str = "gp3", size: int = 100, iops: int = 3000, mibps: int = 125
) -> Resource:
    facts = {
        "state": state,
        "volume_type": kind,
        "size_gib": str(size),
        "iops": str(iops),
        "throughput_mibps": str(mibps),
    }
    return resource("ec2.volume", facts)


FREE_ADDRESS = resource("ec2.address", {"association_id": "", "network_interface_id": ""})
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


@pytest.mark.parametrize(
    ("detection", "found", "threshold"),
    [
        ("aws.ebs.unattached", volume(), 14 * DAY),
        ("aws.eip.unassociated", FREE_ADDRESS, 7 * DAY),
        ("aws.ec2.stopped", resource("ec2.instance", {"state": "stopped"}, volumes="v:gp3:10"), 30 * DAY),
    ],
)
def test_both_sides_of_a_threshold(detection: str, found: Resource, threshold: timedelta) -> None:
    assert verdict(detection, found, threshold - SECOND) is None
    assert isinstance(verdict(detection, found, threshold), Match)


def test_snapshots_go_by_the_providers_own_start() -> None:
    def snapshot(age: timedelta, used_by: str | None = "", state: str = "completed") -> Resource:
        started = (NOW - age).strftime("%Y-%m-%dT%H:%M:%SZ")
        details = {} if used_by is None else {"used_by": used_by}
        return resource("ec2.snapshot", {"state": state, "started_at": started, "size_gib": "10"}, **details)

    assert verdict("aws.snapshot.old", snapshot(90 * DAY - SECOND), DAY) is None
    match = verdict("aws.snapshot.old", snapshot(90 * DAY), DAY)
    assert isinstance(match, Match)
    assert (match.saving, match.confidence) == (Decimal("0.50"), "LOW")
    assert verdict("aws.snapshot.old", snapshot(200 * DAY, "ami-1"), DAY) is None
    assert verdict("aws.snapshot.old", snapshot(200 * DAY, state="pending"), DAY) is None
    # Images couldn't be read: not "used by nothing".
    assert isinstance(verdict("aws.snapshot.old", snapshot(200 * DAY, None), DAY), Undetermined)


def test_savings_are_the_catalogues_to_the_cent() -> None:
    saving = {
        "plain": verdict("aws.ebs.unattached", volume(), 20 * DAY),
        "fast": verdict("aws.ebs.unattached", volume(iops=5000, mibps=225), 20 * DAY),
        "io1": verdict("aws.ebs.unattached", volume(kind="io1", iops=1000), 20 * DAY),
        "gp2": verdict("aws.ebs.gp2", volume("in-use", "gp2", 100, 300, 0), DAY),
        "large gp2": verdict("aws.ebs.gp2", volume("in-use", "gp2", 1000, 3000, 0), DAY),
        "eip": verdict(
            "aws.eip.unassociated", resource("ec2.address", {"association_id": "", "network_interface_id": ""}), 9 * DAY
        ),
    }
    amounts = {name: each.saving for name, each in saving.items() if isinstance(each, Match)}
    assert amounts == {
        "plain": Decimal("3.00"),  # 100 * 0.08 - 100 * 0.05
        "fast": Decimal("17.000"),  # + 2000 * 0.005 + 100 * 0.04
        "io1": Decimal("72.500"),  # 100 * 0.125 + 1000 * 0.065 - 5
        "gp2": Decimal("1.88"),  # 10.00 - (8.00 + 3 * 0.04)
        "large gp2": Decimal("15.00"),  # 100 - (80 + 125 * 0.04)
        "eip": Decimal("3.650"),
    }


def test_an_unknown_price_is_never_zero() -> None:
    empty = PriceBook({}, "USD", "v1")
    match = verdict("aws.ebs.unattached", volume(), 20 * DAY, empty)
    assert isinstance(match, Match)
    assert match.saving is None
    assert isinstance(verdict("aws.ebs.gp2", volume("in-use", "gp2"), DAY, empty), Undetermined)


def test_a_volume_that_is_to_be_deleted_is_not_converted_first() -> None:
    found, _ = judge_all(
        UUID(int=1),
        UUID(int=2),
        [(volume(kind="gp2"), Entry("available", NOW - 20 * DAY, False))],
        {"us-east-1": BOOK},
        NOW,
    )
    assert [f.detection_id for f in found] == ["aws.ebs.unattached"]


def test_the_ledger_starts_anew_when_the_condition_lapsed_or_a_hold_was_lifted() -> None:
    free, used = volume("available"), volume("in-use")
    first = ledger.advance(None, free, NOW - 30 * DAY)
    assert ledger.advance(first, free, NOW).since == NOW - 30 * DAY
    lapsed = ledger.advance(first, used, NOW - 10 * DAY)
    assert ledger.advance(lapsed, free, NOW).since == NOW
    held = Resource(free.key, free.facts, {"recoup:hold": "audit"})
    while_held = ledger.advance(first, held, NOW - 5 * DAY)
    assert while_held.since == NOW - 30 * DAY
    assert ledger.advance(while_held, free, NOW).since == NOW


@pytest.mark.parametrize(
    ("tags", "hold"),
    [
        ({}, Hold.NONE),
        ({"Name": "terraform notes"}, Hold.NONE),
        ({"recoup:hold": "until May"}, Hold.HELD),
        ({"recoup:hold": "false"}, Hold.NONE),
        ({"ManagedBy": "Terraform"}, Hold.MANAGED_AS_CODE),
        ({"aws:cloudformation:stack-name": "s"}, Hold.MANAGED_AS_CODE),
        ({"aws:autoscaling:groupName": "g", "ManagedBy": "terraform"}, Hold.AUTOSCALED),
        ({"recoup:hold": "x", "aws:autoscaling:groupName": "g"}, Hold.HELD),
    ],
)
def test_holds(tags: dict[str, str], hold: Hold) -> None:
    assert hold_of(tags) is hold


def test_thresholds_stay_within_their_limits() -> None:
    settings = BY_ID["aws.ebs.unattached"].settings({"min_age_days": Decimal(1)})
    assert settings == {"min_age_days": Decimal(7)}


@pytest.mark.parametrize(
    ("reason", "moment"),
    [
        ("User initiated (2026-01-02 03:04:05 GMT)", "2026-01-02T03:04:05Z"),
        ("User initiated", ""),
        ("Server.SpotInstanceTermination (2026-13-02 03:04:05 GMT)", ""),
    ],
)
def test_when_an_instance_stopped(reason: str, moment: str) -> None:
    assert stopped_at(reason) == moment


def test_a_verification_that_lets_anybody_in_is_refused() -> None:
    good = RoleCheck("arn:r", "REFUSED", "REFUSED", "ALLOWED")
    assert judge([good]) == ""
    assert "without the external id" in judge([good, RoleCheck("arn:r", "ALLOWED", "REFUSED", "ALLOWED")])
    assert "without the external id" in judge([RoleCheck("arn:r", "REFUSED", "ALLOWED", "ALLOWED")])
    assert "refuses us" in judge([RoleCheck("arn:r", "REFUSED", "REFUSED", "REFUSED", "AccessDenied")])
    assert "didn't answer" in judge([RoleCheck("arn:r", "REFUSED", "UNREACHABLE", "ALLOWED")])
