"""Execution against a cloud that fails in every way: nothing is lost, nothing done twice, every outcome is read back.

What the cloud saw is counted in the recording proxy, never in our own tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from recoup_local.embedded.postgres import connect
from tests.mesh.test_faults import nothing_is_lost_or_twice, rows
from tests.support import mesh as support
from tests.support.acting import Acting
from tests.support.story import Told

pytestmark = pytest.mark.xdist_group("story")

DELETE, CONVERT, RELEASE = "aws.ebs.delete_volume", "aws.ebs.convert_gp3", "aws.ec2.release_address"


@pytest.fixture(scope="module")
def acting(told: Told) -> Acting:
    return Acting(told.made)


@pytest.fixture(autouse=True)
def no_faults_left(told: Told) -> Iterator[None]:
    yield
    Acting(told.made).control.clear_faults()


def states(action: dict[str, Any]) -> list[tuple[str, str]]:
    return [(s["name"], s["state"].removeprefix("STEP_STATE_")) for s in action["steps"]]


def test_a_lost_answer_is_found_out_by_reading_and_never_sent_again(acting: Acting) -> None:
    action = acting.requested(CONVERT)
    acting.control.add_fault(action="ModifyVolume", resource=action["resource"]["id"], drop_after_forward=True)
    acting.approve(action)
    done = acting.reached(action, "EXECUTED")
    assert states(done) == [("modify_volume", "CONFIRMED")]
    assert [line["applied"] for line in acting.changes(action, "ModifyVolume")] == [True]
    in_order = ["actions.step.intend", "actions.step.doubt", "actions.step.accept", "actions.step.confirm"]
    assert support.until(lambda: steps_logged(acting, action)) == in_order


def test_a_call_that_never_arrived_is_attempted_anew_only_after_reading(acting: Acting) -> None:
    action = acting.requested(CONVERT)
    acting.control.add_fault(action="ModifyVolume", resource=action["resource"]["id"], drop_before_forward=True)
    acting.approve(action)
    done = acting.reached(action, "EXECUTED")
    assert states(done) == [("modify_volume", "REFUSED"), ("modify_volume", "CONFIRMED")]
    assert done["steps"][0]["errorCode"] == "NotApplied"
    assert [line["applied"] for line in acting.changes(action, "ModifyVolume")] == [False, True]
    # Between the two attempts the resource was read, and read again.
    log = [line for line in acting.control.log() if action["resource"]["id"] in line["params"].values()]
    first, second = (i for i, line in enumerate(log) if line["action"] == "ModifyVolume")
    assert sum(line["action"] == "DescribeVolumes" for line in log[first:second]) >= 2


def test_a_server_error_counts_as_perhaps_applied(acting: Acting) -> None:
    action = acting.requested(RELEASE)
    acting.control.add_fault(action="ReleaseAddress", resource=action["resource"]["id"], status=500)
    acting.approve(action)
    done = acting.reached(action, "EXECUTED")
    assert states(done)[-1] == ("release_address", "CONFIRMED")
    assert sum(line["applied"] for line in acting.changes(action, "ReleaseAddress")) == 1


def test_throttling_is_met_with_patience(acting: Acting) -> None:
    action = acting.requested(CONVERT)
    acting.control.add_fault(action="ModifyVolume", resource=action["resource"]["id"], throttle=True, count=2)
    acting.approve(action)
    done = acting.reached(action, "EXECUTED")
    assert [state for _, state in states(done)] == ["REFUSED", "REFUSED", "CONFIRMED"]
    assert sum(line["applied"] for line in acting.changes(action, "ModifyVolume")) == 1


def test_a_refusal_ends_the_action_and_says_why(acting: Acting) -> None:
    action = acting.requested(CONVERT)
    acting.control.add_fault(
        action="ModifyVolume", resource=action["resource"]["id"], error_code="UnauthorizedOperation", status=403
    )
    acting.approve(action)
    done = acting.reached(action, "FAILED")
    assert "UnauthorizedOperation" in done["problem"]
    assert states(done) == [("modify_volume", "REFUSED")]
    assert not any(line["applied"] for line in acting.changes(action, "ModifyVolume"))
    # The resource is free again for another attempt by people.
    again = acting.finops.post("/actions", {"findingId": action["findingId"]})["action"]
    acting.finops.post(f"/actions/{again['actionId']}:cancel", {"comment": "test"})


def test_a_worker_killed_between_intent_and_outcome_is_followed_by_another(acting: Acting) -> None:
    mesh = acting.made.mesh
    action = acting.requested(DELETE)
    rule = acting.control.add_fault(action="CreateSnapshot", resource=action["resource"]["id"], hold="after")
    acting.approve(action)
    acting.control.wait_until_held(rule, 60.0)
    mesh.kill("actions-worker")
    acting.control.remove_fault(rule)
    asyncio.run(mesh.restart("actions-worker"))
    # The dead one's lease would run out after a minute, as test_faults waits for.
    mine = f"kind = 'execute' AND subject_id = '{action['actionId']}'"
    assert rows(acting.made, f"UPDATE actions.jobs SET lease_until = now() WHERE {mine} RETURNING status")
    done = acting.reached(action, "QUARANTINED", seconds=150.0)
    assert states(done) == [("create_snapshot", "CONFIRMED")]
    assert [line["applied"] for line in acting.changes(action, "CreateSnapshot")] == [True]
    assert rows(acting.made, f"SELECT fence FROM actions.jobs WHERE {mine}")[0]["fence"] > 1
    nothing_is_lost_or_twice(acting.made)
    acting.finops.post(f"/actions/{action['actionId']}:cancel", {"comment": "test"})


def test_losing_all_of_jetstream_in_the_middle_of_an_execution_loses_nothing(acting: Acting) -> None:
    action = acting.requested(CONVERT)
    rule = acting.control.add_fault(action="ModifyVolume", resource=action["resource"]["id"], hold="after")
    acting.approve(action)
    acting.control.wait_until_held(rule, 60.0)
    acting.made.mesh.lose_jetstream()
    acting.control.remove_fault(rule)
    done = acting.reached(action, "EXECUTED")
    assert states(done) == [("modify_volume", "CONFIRMED")]
    assert [line["applied"] for line in acting.changes(action, "ModifyVolume")] == [True]
    nothing_is_lost_or_twice(acting.made)


def test_a_relay_killed_after_the_append_appends_nothing_twice(acting: Acting) -> None:
    """The outbox is locked against the relay's mark, so that it dies knowing what it hasn't written down."""
    mesh = acting.made.mesh
    action = acting.requested(RELEASE)
    nothing_is_lost_or_twice(acting.made)
    mesh.kill("audit")
    acting.finops.post(f"/actions/{action['actionId']}:cancel", {"comment": "test"})
    appended = "SELECT 1 FROM audit.entries e JOIN actions.outbox o USING (event_id) WHERE o.log_index IS NULL"

    async def kill_between_append_and_mark() -> None:
        assert mesh.postgres is not None
        locked = await connect(mesh.postgres)
        try:
            await locked.execute("BEGIN; LOCK TABLE actions.outbox IN SHARE MODE")
            await mesh.restart("audit")
            async with asyncio.timeout(60):
                while not await locked.fetch(appended):
                    await asyncio.sleep(0.05)
            mesh.kill("actions")
            await locked.execute("ROLLBACK")
        finally:
            await locked.close()
        await mesh.restart("actions")

    asyncio.run(kill_between_append_and_mark())
    nothing_is_lost_or_twice(acting.made)
    assert acting.reached(action, "CANCELLED")["problem"] == "test"


def test_a_resource_that_changed_after_the_approval_is_left_alone(acting: Acting) -> None:
    action = acting.requested(RELEASE)
    acting.cloud(action).create_tags(Resources=[action["resource"]["id"]], Tags=[{"Key": "owner", "Value": "me"}])
    acting.approve(action)
    done = acting.reached(action, "STALE")
    assert "tags_sha256 was" in done["problem"]
    assert not acting.changes(action, "ReleaseAddress")


def test_a_hold_within_the_quarantine_keeps_the_volume(acting: Acting) -> None:
    action = acting.requested(DELETE)
    acting.approve(action)
    waiting = acting.reached(action, "QUARANTINED")
    assert waiting["quarantinedUntil"] > waiting["requestedAt"]
    acting.cloud(action).create_tags(
        Resources=[action["resource"]["id"]], Tags=[{"Key": "recoup:hold", "Value": "true"}]
    )
    acting.made.mesh.clock.advance(timedelta(hours=25))
    done = acting.reached(action, "STALE")
    assert done["steps"][0]["resultId"] in done["problem"]
    assert not acting.changes(action, "DeleteVolume")
    volumes = acting.cloud(action).describe_volumes(VolumeIds=[action["resource"]["id"]])["Volumes"]
    assert volumes[0]["State"] == "available"


def test_a_volume_whose_snapshot_is_gone_is_kept(acting: Acting) -> None:
    action = acting.requested(DELETE)
    acting.approve(action)
    waiting = acting.reached(action, "QUARANTINED")
    acting.cloud(action).delete_snapshot(SnapshotId=waiting["steps"][0]["resultId"])
    acting.made.mesh.clock.advance(timedelta(hours=25))
    done = acting.reached(action, "STALE")
    assert f"snapshot {waiting['steps'][0]['resultId']} is gone" in done["problem"]
    assert not acting.changes(action, "DeleteVolume")


def test_nothing_is_deleted_on_the_word_of_somebody_who_may_not_approve_any_more(acting: Acting) -> None:
    """The approver loses the role while the action is in its quarantine."""
    admin, clock = acting.made.rest("acme", "Admin"), acting.made.mesh.clock

    def give(role: str) -> None:
        (approver,) = (m for m in admin.get("/members", pageSize=500)["members"] if m["email"] == email)
        path, body = f"/members/{approver['memberId']}", {"role": role, "etag": approver["etag"]}
        assert admin.call("PATCH", path, json=body).status_code == 200

    email = next(m["email"] for m in admin.get("/members")["members"] if m["role"] == "ROLE_APPROVER")
    action = acting.requested(DELETE)
    acting.approve(action)
    waiting = acting.reached(action, "QUARANTINED")
    give("ROLE_VIEWER")
    try:
        clock.advance(timedelta(hours=25))
        done = acting.reached(action, "CANCELLED")
    finally:
        give("ROLE_APPROVER")
        clock.advance(timedelta(hours=25))  # Until they may approve again.
    assert "doesn't hold the permission any more" in done["problem"]
    assert waiting["steps"][0]["resultId"] in done["problem"]
    assert done["approvals"][0]["voidedAt"]
    assert not acting.changes(action, "DeleteVolume")


def test_what_was_not_sent_yet_can_be_withdrawn(acting: Acting) -> None:
    """While the broker is away nothing can be sent; a person needn't wait for it."""
    mesh = acting.made.mesh
    action = acting.requested(RELEASE)
    mesh.kill("broker")
    try:
        acting.approve(action)
        acting.reached(action, "EXECUTING")
        acting.finops.post(f"/actions/{action['actionId']}:cancel", {"comment": "test"})
    finally:
        asyncio.run(mesh.restart("broker"))
    assert acting.reached(action, "CANCELLED")["steps"] == []
    assert not acting.changes(action, "ReleaseAddress")


def test_wrong_states_are_refused_with_what_would_be_right(acting: Acting) -> None:
    action = acting.requested(RELEASE)
    path, body = f"/actions/{action['actionId']}", {"planHash": action["plan"]["planHash"]}
    rejected = acting.approver.post(f"{path}:reject", {"comment": "we need it"})["action"]
    assert (rejected["state"], rejected["problem"]) == ("ACTION_STATE_REJECTED", "we need it")
    for verb, given in (("approve", body), ("reject", {"comment": "no"}), ("cancel", {})):
        person = acting.finops if verb == "cancel" else acting.approver
        answer = person.call("POST", f"{path}:{verb}", json=given)
        assert (answer.status_code, answer.json()["reason"]) == (400, "STATE_WRONG"), verb
        assert answer.json()["metadata"]["state"] == "REJECTED"


def test_a_request_that_nobody_decides_about_expires(acting: Acting) -> None:
    action = acting.requested(RELEASE)
    acting.made.mesh.clock.advance(timedelta(days=7, minutes=1))
    assert acting.reached(action, "EXPIRED")["problem"] == "nobody decided about it in time"


def test_the_requester_cannot_approve_even_in_the_data(acting: Acting) -> None:
    """What the code refuses, the table refuses as well: tried with the API's own role and a superuser's eyes."""
    person = rows(acting.made, "SELECT action_id, requester_person, plan_hash FROM actions.actions LIMIT 1")[0]

    async def attempt() -> str:
        assert acting.made.mesh.postgres is not None
        connection = await connect(acting.made.mesh.postgres)
        try:
            await connection.execute(
                "INSERT INTO actions.approvals SELECT organization_id, action_id, requester_person, requester_person,"
                " 'user:x', 'ADMIN', 'APPROVED', plan_hash, '', now(), gen_random_uuid() FROM actions.actions"
                " WHERE action_id = $1",
                person["action_id"],
            )
        except asyncpg.CheckViolationError as error:
            return str(error)
        finally:
            await connection.close()
        return "it was let in"

    assert asyncio.run(attempt()).startswith("another_person")


def steps_logged(acting: Acting, action: dict[str, Any]) -> list[str] | None:
    """What the log has of the action's steps, oldest first, once the confirmation has reached it."""
    auditor, target = acting.made.rest("acme", "Auditor"), f"actions/{action['actionId']}"
    found = [e["action"] for e in auditor.get("/events", target=target, pageSize=500)["events"]]
    steps = [name for name in reversed(found) if name.startswith("actions.step.")]
    return steps if "actions.step.confirm" in steps else None
