"""The pure part of actions: the state machine, the frozen plan, session policies."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from uuid import uuid4

import pytest

from services.actions.clients.aws import address_facts, snapshot_request, volume_facts
from services.actions.model import kinds, plan
from services.actions.model.plan import Estimate, PlanInput, ResourceKey
from services.actions.model.request import Finding, NotActionable, Scope, actionable
from services.actions.model.states import OPEN_STATES, TRANSITIONS, ActionState, predecessors
from services.broker.model.purposes import session_policy

VOLUME = ResourceKey("aws", "aws", "111111111111", "us-east-1", "ec2.volume", "vol-1")


def given(**changes: object) -> PlanInput:
    facts = {
        "organization_id": "o",
        "action_id": "a",
        "action_type": "aws.ebs.delete_volume",
        "finding_id": "f",
        "detection_id": "aws.ebs.unattached",
        "connection_id": "c",
        "credential_id": "k",
        "resource": VOLUME,
        "preconditions": {"state": "available", "size_gib": "10"},
        "evidence": {},
        "parameters": {},
        "estimate": Estimate("3.00", "USD", "v1"),
        "baseline_digest": "b",
        "removes_resource": True,
        "quarantine_hours": 24,
        "made_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return PlanInput(**{**facts, **changes})  # type: ignore[arg-type]


def test_every_state_can_be_reached_and_final_ones_lead_nowhere() -> None:
    reached = {state for following in TRANSITIONS.values() for state in following}
    assert reached == set(ActionState)
    # Back to waiting for an approval leads only what nothing irreversible was done of.
    assert predecessors(ActionState.REQUESTED) == [ActionState.APPROVED, ActionState.EXECUTING]
    final = {state for state, following in TRANSITIONS.items() if not following}
    assert final.isdisjoint(OPEN_STATES)
    assert ActionState.EXECUTING not in TRANSITIONS[ActionState.REQUESTED]
    assert predecessors(ActionState.APPROVED) == [ActionState.REQUESTED]


def test_a_plan_is_its_hash() -> None:
    frozen = plan.freeze_plan(given())
    assert plan.load_plan(frozen.document, frozen.plan_hash).content == frozen.content
    for changes in (
        {"quarantine_hours": 0},
        {"preconditions": {"state": "in-use"}},
        {"estimate": Estimate("3.01", "USD", "v1")},
    ):
        assert plan.freeze_plan(given(**changes)).plan_hash != frozen.plan_hash
    with pytest.raises(ValueError, match="isn't the one that was hashed"):
        plan.load_plan(frozen.document + b" ", frozen.plan_hash)


def test_differences_name_what_is_no_longer_so() -> None:
    assert plan.differences({"state": "available", "size": "1"}, {"state": "in-use"}) == {
        "size": ("1", "(absent)"),
        "state": ("available", "in-use"),
    }


def test_windows_leave_the_day_of_the_action_out() -> None:
    windows = plan.checkpoint_windows(datetime(2026, 2, 27, 23, 59, tzinfo=UTC))
    assert [(w.days, w.from_day, w.to_day) for w in windows] == [
        (7, date(2026, 2, 28), date(2026, 3, 6)),
        (14, date(2026, 2, 28), date(2026, 3, 13)),
        (30, date(2026, 2, 28), date(2026, 3, 29)),
    ]


@pytest.mark.parametrize("kind", kinds.KINDS.values(), ids=lambda kind: kind.action_type)
def test_the_broker_grants_every_steps_policy(kind: kinds.ActionKind) -> None:
    resource = ResourceKey("aws", "aws", "1" * 12, "us-east-1", kind.resource_type, "x-1")
    for step in kind.steps:
        statements = [
            {"actions": list(s.actions), "resources": list(s.resources)}
            for s in kinds.step_statements(kind, step, resource)
        ]
        assert resource.id in session_policy("act", statements)


def test_steps_follow_each_other() -> None:
    kind = kinds.DELETE_VOLUME
    first = kind.next_step(frozenset())
    assert first is not None
    assert first.name == "create_snapshot"
    assert kind.next_step(frozenset({"create_snapshot", "delete_volume"})) is None
    assert kind.irreversible
    assert not kinds.CONVERT_GP3.irreversible


def test_facts_are_spelled_as_findings_spell_them() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    volume = {"State": "available", "VolumeType": "gp3", "Size": 10, "Iops": 3000, "CreateTime": moment}
    facts = volume_facts(volume)
    assert (facts["created_at"], facts["attachments"], facts["throughput_mibps"]) == ("2026-01-02T03:04:05Z", "0", "")
    tagged = volume_facts({**volume, "Tags": [{"Key": "a", "Value": "b"}]})
    assert tagged["tags_sha256"] != facts["tags_sha256"]
    assert address_facts({"PublicIp": "1.2.3.4"})["association_id"] == ""


def test_a_kept_snapshot_carries_its_action_and_none_of_the_volumes_tags() -> None:
    (specification,) = snapshot_request(VOLUME, "a", "h")["TagSpecifications"]
    assert {tag["Key"] for tag in specification["Tags"]} == {"recoup:action", "recoup:plan"}


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"evidence": {"gp3_iops": "3000"}}, "FINDING_UNFIT"),
        ({"resource": replace(VOLUME, type="ec2.address")}, "FINDING_UNFIT"),
        ({"actionability": "HELD"}, "HELD"),
        ({"action_type": "aws.ebs.resize"}, "NO_ACTION"),
        ({"estimate": None}, "PRICE_UNKNOWN"),
    ],
)
def test_what_a_finding_must_be_to_be_acted_on(changes: dict[str, Any], cause: str) -> None:
    finding = Finding(
        uuid4(), uuid4(), "aws.ebs.gp2", VOLUME, "OPEN", "ACTIONABLE", "aws.ebs.convert_gp3",
        {"gp3_iops": "3000", "gp3_throughput_mibps": "125"}, Estimate("3", "USD", "v1"),
        datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    scope = Scope(uuid4(), "ACTIVE", True)
    assert actionable(finding, scope)[0] is kinds.CONVERT_GP3
    with pytest.raises(NotActionable) as refused:
        actionable(replace(finding, **changes), scope)
    assert refused.value.cause == cause
