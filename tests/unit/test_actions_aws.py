"""What EC2's answers mean for a step: botocore's own stubber answers, so that its parsing is part of what is tested."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.stub import Stubber

from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.clock import Clock
from services.actions.clients.aws import Ec2, NotSent, Threads
from services.actions.model.plan import Plan, freeze_plan
from tests.unit.test_actions_model import given

STARTED = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def ec2() -> Iterator[Ec2]:
    threads = Threads.of(1)
    yield Ec2(threads, AwsSettings(), AwsCredentials("x", "x", "x"), "us-east-1", Clock())
    threads.close()


def plan(**evidence: str) -> Plan:
    return freeze_plan(given(evidence=evidence))


def snapshot(**changes: Any) -> dict[str, Any]:
    facts = {"SnapshotId": "snap-1", "VolumeId": "vol-1", "State": "completed", "StartTime": STARTED}
    return {"Snapshots": [{**facts, **changes}]}


async def complete(ec2: Ec2, step: str, answer: dict[str, Any], operation: str, frozen: Plan) -> bool:
    with Stubber(ec2._read) as stub:
        stub.add_response(operation, answer)
        return await ec2.is_complete(step, "snap-1", frozen)


async def test_a_snapshot_is_complete_when_ec2_says_so(ec2: Ec2) -> None:
    frozen = plan(available_since="2026-01-01T00:00:00Z")
    for state, done in (("completed", True), ("pending", False)):
        assert await complete(ec2, "create_snapshot", snapshot(State=state), "describe_snapshots", frozen) is done


@pytest.mark.parametrize(
    ("answer", "since", "why"),
    [
        (snapshot(State="error"), "2026-01-01T00:00:00Z", "failed"),
        ({"Snapshots": []}, "2026-01-01T00:00:00Z", "is gone"),
        (snapshot(VolumeId="vol-2"), "2026-01-01T00:00:00Z", "of another volume"),
        (snapshot(), "2026-01-02T00:00:00Z", "older than the volume's last detach"),
        (snapshot(), "", "older than the volume's last detach"),
    ],
)
async def test_a_snapshot_that_is_of_no_use_is_refused(ec2: Ec2, answer: dict[str, Any], since: str, why: str) -> None:
    frozen = plan(available_since=since) if since else plan()
    with pytest.raises(ValueError, match=why):
        await complete(ec2, "create_snapshot", answer, "describe_snapshots", frozen)


async def test_a_modification_that_ec2_gave_up_is_refused(ec2: Ec2) -> None:
    answer = {"VolumesModifications": [{"ModificationState": "failed", "StatusMessage": "no capacity"}]}
    with pytest.raises(ValueError, match="no capacity"):
        await complete(ec2, "modify_volume", answer, "describe_volumes_modifications", plan())


async def test_a_change_that_comes_too_late_is_left_unsent(ec2: Ec2) -> None:
    too_late = datetime.now(UTC) - timedelta(seconds=1)
    with Stubber(ec2._write) as stub:  # It has no answer for anything: a call would fail otherwise.
        for step in ("create_snapshot", "delete_volume", "release_address"):
            with pytest.raises(NotSent):
                await ec2.apply(step, "a", plan(), too_late)
        stub.assert_no_pending_responses()


async def test_each_step_is_one_call_with_the_plans_own_values(ec2: Ec2) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=60)
    frozen = freeze_plan(given(parameters={"iops": "3000", "throughput_mibps": "125"}))
    wanted = {"VolumeId": "vol-1", "VolumeType": "gp3", "Iops": 3000, "Throughput": 125}
    with Stubber(ec2._write) as stub:
        stub.add_response("modify_volume", {}, wanted)
        assert await ec2.apply("modify_volume", "a", frozen, soon) == "vol-1"
        stub.assert_no_pending_responses()
