"""Checks of connections, on a real database and the emulated AWS behind its proxy."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from recoup_local.cloud import MEMBER_ACCOUNT, PAYER_ACCOUNT, ProxyControl, start_cloud
from recoup_local.cloud.aws_clients import AwsClients
from recoup_local.cloud.estate.roles import create_base_user
from services._mesh import aws, session_policies
from services._mesh.context import entered
from services._mesh.errors import Denied, Invalid, NotFound, Unavailable, WrongState
from services._mesh.grants import Grant
from services.scanner import working
from services.scanner.model.connection import Account, ConnectionState
from services.scanner.model.reading import APIS, Outcome
from services.scanner.policies.aws import READS, RESOURCES, act_permissions, trust_policy
from services.scanner.store import connections as store
from services.scanner.usecases import connections, scanning
from services.scanner.usecases.connecting import KeyRules
from services.scanner.usecases.kinds import CHECK, SCAN, VERIFY
from services.scanner.usecases.rotation_rules import set_rotation_rules
from tests.support.connecting import ACT_ARN, SCAN_ARN, Cloud, Office, of, opened, refused
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, context

pytestmark = pytest.mark.services("scanner")

CHOSEN = ("aws.ebs.delete_volume", "aws.ebs.convert_gp3", "aws.ec2.release_address")
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    folder: Path = tmp_path_factory.mktemp("cloud")
    with start_cloud(folder, folder / "clock") as started:
        clients = AwsClients.of(started.endpoints)
        yield Cloud(started.endpoints, clients, ProxyControl.of(started.endpoints), create_base_user(clients))


@pytest.fixture
async def office(database: TestDatabase, cloud: Cloud, tmp_path: Path) -> AsyncIterator[Office]:
    cloud.remove()
    async with opened(database, cloud, tmp_path) as made:
        yield made


async def test_every_permission_is_probed_and_nothing_is_changed(office: Office) -> None:
    made = await office.connect()
    office.cloud.install(made.external_id, *CHOSEN)
    since = len(office.cloud.control.log())
    found = await office.verify(made)
    assert (found.state, found.problem, refused(found)) == (ConnectionState.ACTIVE, "", {})
    assert of(found.permission_checks, "scan") == set(READS)
    assert of(found.permission_checks, "act") == set(act_permissions())
    assert await office.events() == ["create", "verify", "activate"]
    lines = [line for line in office.cloud.control.log(since) if line["principal"] == "session"]
    assert all(line["params"].get("DryRun") == "true" and not line["mutating"] for line in lines)
    assert len(lines) == len(found.permission_checks)


async def test_what_is_too_much_for_one_session_is_probed_in_several(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await office.connect()
    office.cloud.install(made.external_id, *CHOSEN, without="ec2:ReleaseAddress")
    monkeypatch.setattr(session_policies, "MAX_POLICY_CHARACTERS", 900)
    since = len(office.cloud.control.log())
    found = await office.verify(made)
    assert (found.state, refused(found)) == (ConnectionState.ACTIVE, {"ec2:ReleaseAddress": "REFUSED"})
    assert of(found.permission_checks, "act") == set(act_permissions())
    asked = [line["params"] for line in office.cloud.control.log(since) if line["action"] == "AssumeRole"]
    policies = [each["Policy"] for each in asked if each["RoleArn"] == ACT_ARN and "Policy" in each]
    assert len(policies) == len(set(policies)) > 1
    assert max(map(len, policies)) <= 900
    changes = [a for text in policies for s in json.loads(text)["Statement"] for a in s["Action"] if a in RESOURCES]
    assert sorted(changes) == sorted(RESOURCES)  # Each in one session, and nothing beside.
    lines = [line for line in office.cloud.control.log(since) if line["principal"] == "session"]
    assert len(lines) == len(found.permission_checks)  # Each asked once.


async def test_what_is_too_much_for_one_session_is_scanned_in_several(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await office.connect(act=False)
    office.cloud.install(made.external_id)
    await office.verify(made)
    monkeypatch.setattr(session_policies, "MAX_POLICY_CHARACTERS", 200)
    with entered(context(ACME, "scanner.scan.start")) as call:
        async with office.api.begin(ACME, call) as work:
            scan = await scanning.start_scan(work, office.planner, made.connection_id)
    since = len(office.cloud.control.log())
    job = await office.claim(scan.scan_id, SCAN)
    (reading,) = await working._read_all(office.tools, job, await office.get(made))
    assert {unit.coverage.unit.api: unit.coverage.outcome for unit in reading.units} == dict.fromkeys(
        APIS, Outcome.COMPLETE
    )
    lines = office.cloud.control.log(since)
    asked = [line["params"] for line in lines if line["action"] == "AssumeRole"]
    policies = [each["Policy"] for each in asked]
    assert len(policies) == len(set(policies)) > 1
    assert max(map(len, policies)) <= 200
    # The customer's own trail says which scan it was.
    assert {each["SourceIdentity"] for each in asked} == {f"scan-{scan.scan_id}"}
    assert sorted(f"ec2:{line['action']}" for line in lines if line["service"] == "ec2") == sorted(APIS)  # Each once.


@pytest.mark.parametrize("permission", ["ec2:DescribeVolumes", "ec2:DescribeImages"])
async def test_without_a_permission_to_read_it_isnt_accepted(office: Office, permission: str) -> None:
    made = await office.connect(act=False)
    office.cloud.install(made.external_id, without=permission)
    found = await office.verify(made)
    assert found.state is ConnectionState.FAILED
    assert found.problem == (
        f"{SCAN_ARN} lacks {permission}. Allow {permission} in the policy of RecoupScan "
        "(recoup connect aws --print-policy); then check again."
    )
    assert refused(found) == {permission: "REFUSED"}
    assert (await office.events())[-1] == "fail"
    office.cloud.install(made.external_id)
    assert (await office.verify(made)).state is ConnectionState.ACTIVE


async def test_a_role_with_another_external_id_is_told_from_where_to_take_ours(office: Office) -> None:
    made = await office.connect(act=False)
    office.cloud.install(f"{made.external_id}x")
    found = await office.verify(made)
    assert found.state is ConnectionState.FAILED
    assert found.problem.startswith(f"{SCAN_ARN} refuses us (AccessDenied). Let the base user assume it, with the ")
    assert "external id that recoup connect aws --print-policy shows and no other, in its trust policy" in found.problem
    office.cloud.install(made.external_id)
    assert (await office.verify(made)).state is ConnectionState.ACTIVE


async def test_writing_that_was_never_allowed_is_no_fault(office: Office) -> None:
    made = await office.connect()
    office.cloud.install(made.external_id, "aws.ebs.convert_gp3")
    found = await office.verify(made)
    assert (found.state, found.problem) == (ConnectionState.ACTIVE, "")
    assert {name for name, outcome in refused(found).items() if outcome == "REFUSED"} == {
        "ec2:CreateSnapshot", "ec2:DeleteVolume", "ec2:ReleaseAddress", "ec2:DescribeSnapshots",
        "ec2:DescribeAddresses",
    }  # fmt: skip
    (snapshot,) = [c for c in found.permission_checks if c.permission == "ec2:CreateSnapshot"]
    assert snapshot.fix == (
        "Allow ec2:CreateSnapshot in the policy of RecoupAct (recoup connect aws --print-policy --for ACTION_TYPE)"
    )


async def test_a_permission_that_was_lost_is_drift_once_and_shows_until_it_is_back(office: Office) -> None:
    made = await office.connect()
    office.cloud.install(made.external_id, *CHOSEN)
    await office.verify(made)
    office.clock.ahead += DAY
    assert (await office.run(made)).problem == ""
    office.cloud.install(made.external_id, *CHOSEN, without="ec2:ReleaseAddress")
    for event in ("drift", "check"):
        office.clock.ahead += DAY
        found = await office.run(made)
        assert (found.state, refused(found)) == (ConnectionState.ACTIVE, {"ec2:ReleaseAddress": "LOST"})
        assert found.problem.startswith(f"{ACT_ARN} no longer allows ec2:ReleaseAddress. Allow ")
        assert (await office.events())[-1] == event
    office.cloud.install(made.external_id, *CHOSEN)
    office.clock.ahead += DAY
    assert (await office.run(made)).problem == ""


@pytest.mark.parametrize("what", ["role", "external id"])
async def test_a_role_that_is_gone_or_lets_anybody_in_stops_the_connection(office: Office, what: str) -> None:
    made = await office.connect(act=False)
    office.cloud.install(made.external_id)
    await office.verify(made)
    if what == "role":
        office.cloud.remove()
    else:
        trust = trust_policy(office.cloud.base.arn, made.external_id)
        del trust["Statement"][0]["Condition"]
        office.cloud.put("RecoupScan", trust)
    office.clock.ahead += DAY
    found = await office.run(made)
    assert found.state is ConnectionState.FAILED
    assert ("refuses us" if what == "role" else "without the external id") in found.problem
    assert (await office.events())[-1] == "drift"
    office.cloud.install(made.external_id)
    office.clock.ahead += DAY
    assert (await office.run(made)).state is ConnectionState.ACTIVE
    assert (await office.events())[-1] == "activate"


async def test_what_aws_doesnt_answer_changes_nothing(office: Office) -> None:
    made = await office.connect(act=False)
    office.cloud.install(made.external_id)
    before = await office.verify(made)
    rule = office.cloud.control.add_fault(action="AssumeRole", status=501, error_code="NotNow", count=None)
    office.clock.ahead += DAY
    assert await office.run(made) == before
    with entered(context(ACME, "scanner.connection.check")) as call:
        async with office.api.begin(ACME, call) as work:
            await connections.check_connection(work, office.planner, made.connection_id)
    with pytest.raises(Unavailable):
        await office.run(made, VERIFY)
    assert await office.get(made) == before
    office.cloud.control.remove_fault(rule)
    office.clock.ahead += timedelta(hours=1)
    found = await office.run(made)
    assert before.checked_at is not None
    assert found.checked_at is not None
    assert found.checked_at > before.checked_at


async def test_a_connection_that_nobody_verifies_is_given_up_with_its_credential(office: Office) -> None:
    made = await office.connect()
    office.clock.ahead += DAY
    assert (await office.run(made)).state is ConnectionState.PENDING
    office.clock.ahead += 6 * DAY
    found = await office.run(made)
    assert found.state is ConnectionState.DISABLED
    assert found.problem == "It wasn't verified within 7 days. Connect the cloud scope again."
    assert await office.fetch("SELECT count(*) FROM scanner.credentials") == [0]
    # Told of, like any credential that isn't used any more.
    assert await office.fetch("SELECT subject_id FROM scanner.jobs WHERE kind = 'revoke_credential'") == [
        made.credential_id
    ]
    assert await office.fetch("SELECT status FROM scanner.jobs WHERE kind = 'check_connection'") == ["DONE"]
    assert (await office.events())[-1] == "expire"
    async with office.api.read(ACME) as connection:
        with pytest.raises(NotFound):
            await store.get_envelope(connection, made.credential_id)
    with pytest.raises(WrongState):
        await office.verify(made)


async def test_a_key_past_its_limit_is_asked_for_nothing_and_its_check_goes_on_when_it_may(office: Office) -> None:
    made = await office.connect(act=False)
    office.cloud.install(made.external_id)
    await office.verify(made)
    for within in (30, 60):
        with entered(context(ACME, "scanner.rotation_rules.set", rpc="scanner/SetRotationRules")):
            async with office.api.begin() as work:
                await set_rotation_rules(work, 20, within)
        if within == 30:
            office.clock.ahead += 20 * DAY
            before = await office.run(made)
            # The next check comes when the limit does.
            office.clock.ahead += 10 * DAY - timedelta(minutes=1)
            assert (await office.run(made)).problem == ""
            office.clock.ahead += timedelta(minutes=1)
            since = len(office.cloud.control.log())
            found = await office.run(made)
            assert "older than the organization allows" in found.problem
            assert len(office.cloud.control.log()) == since
            assert (await office.events())[-1] == "expire"
    office.clock.ahead += DAY
    found = await office.run(made)
    assert found.problem == ""
    assert found.checked_at is not None
    assert before.checked_at is not None
    assert found.checked_at > before.checked_at


async def test_only_a_check_gives_up_and_only_what_had_its_time(office: Office) -> None:
    made = await office.connect(act=False)

    def asking(kind: str) -> Grant:
        return Grant(
            issuer="scanner", audience=("scanner",), presenter="x5t", organization_id=ACME, kind=kind,
            subject=str(made.connection_id), job_id=made.connection_id, fence=1, number=1, issued_at=1, expires_at=2,
        )  # fmt: skip

    async def expire(kind: str) -> None:
        with entered(context(ACME, "scanner.connection.expire", grant=asking(kind))) as call:
            async with office.api.begin(ACME, call, interim=True) as work:
                await connections.expire_connection(work, office.planner)

    with pytest.raises(WrongState):
        await expire(CHECK)
    office.cloud.install(made.external_id)
    await office.verify(made)
    office.clock.ahead += 30 * DAY
    with pytest.raises(WrongState):
        await expire(CHECK)
    with pytest.raises(Denied):
        await expire(VERIFY)
    assert (await office.get(made)).state is ConnectionState.ACTIVE


async def test_without_a_key_the_broker_assumes_the_roles_as_itself(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = office.cloud.base
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", base.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", base.secret_access_key)
    aws._models.cache_clear()
    office.rules = KeyRules(base.arn)
    try:
        made = await office.connect(access_key_id="", secret_access_key="", act=False)
        office.cloud.install(made.external_id)
        found = await office.verify(made)
    finally:
        aws._models.cache_clear()
    assert (found.state, found.access_key_id) == (ConnectionState.ACTIVE, "")


async def test_a_key_that_isnt_allowed_leaves_nothing_behind(office: Office) -> None:
    office.rules = KeyRules()
    with pytest.raises(Invalid):
        await office.connect()
    assert await office.fetch("SELECT 1 FROM scanner.connections UNION ALL SELECT 1 FROM scanner.credentials") == []


async def test_one_connection_has_many_accounts_and_regions_and_says_which_role_is_wrong(office: Office) -> None:
    theirs = Account(MEMBER_ACCOUNT, f"arn:aws:iam::{MEMBER_ACCOUNT}:role/RecoupScan", "")
    made = await office.connect(
        accounts=(Account(PAYER_ACCOUNT, SCAN_ARN, ""), theirs), regions=("us-east-1", "eu-west-1")
    )
    office.cloud.install(made.external_id)
    found = await office.verify(made)
    assert found.state is ConnectionState.FAILED
    assert found.problem.startswith(f"{theirs.scan_role_arn} refuses us")
    assert of([c for c in found.permission_checks if c.role_arn == SCAN_ARN], "scan") == set(READS)
