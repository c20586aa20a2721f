"""A connection's key is rotated while a scan reads and an action changes with the one before; nothing needs it then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from recoup_local.cloud import PAYER_ACCOUNT
from recoup_local.cloud.estate.roles import BASE_USER
from tests.support import mesh as support
from tests.support.acting import Acting
from tests.support.mesh import TestMesh
from tests.support.story import Told

pytestmark = pytest.mark.xdist_group("story")

CONVERT = "aws.ebs.convert_gp3"


@dataclass(frozen=True)
class Second:
    """A second connection, of one account and region, with a key of its own; and something to be done there."""

    connection_id: str
    old_key: str
    finding: dict[str, Any]
    scan: dict[str, Any]


@pytest.fixture
def second(told: Told) -> Iterator[Second]:
    made, acting = told.made, Acting(told.made)
    resource = acting.finding(CONVERT)["resource"]
    iam = made.clients.client("iam", PAYER_ACCOUNT)
    key = iam.create_access_key(UserName=BASE_USER)["AccessKey"]
    body = support.new_connection(made)
    body["awsAccounts"] = [each for each in body["awsAccounts"] if each["accountId"] == resource["account"]]
    body |= {"displayName": "the second", "regions": [resource["region"]], **_given(key)}
    connection_id = acting.finops.post("/connections", body)["connection"]["connectionId"]
    assert support.verify(acting.finops, connection_id)["state"] == "CONNECTION_STATE_ACTIVE"
    scan = _scan(acting, connection_id)
    findings = acting.finops.get("/findings", pageSize=500, connectionId=connection_id)["findings"]
    (finding,) = [f for f in findings if (f["connectionId"], f["resource"]) == (connection_id, resource)]
    yield Second(connection_id, key["AccessKeyId"], finding, scan)
    etag = acting.finops.get(f"/connections/{connection_id}")["connection"]["etag"]
    acting.finops.post(f"/connections/{connection_id}:disable", {"etag": etag})


def test_a_key_is_rotated_under_a_scan_and_an_action_and_the_old_one_is_needed_by_none(
    told: Told, second: Second
) -> None:
    made, acting, path = told.made, Acting(told.made), f"/connections/{second.connection_id}"
    new_key = made.base_user.access_key_id
    action = acting.finops.post("/actions", {"findingId": second.finding["findingId"]})["action"]
    # Held, and refused when it goes on, so that the action needs a second session.
    busy: dict[str, Any] = {"hold": "before", "throttle": True}
    changing = acting.control.add_fault(action="ModifyVolume", resource=action["resource"]["id"], **busy)
    reading = acting.control.add_fault(action="DescribeSnapshots", hold="before")
    try:
        acting.approve(action)
        scan_id = acting.finops.post("/scans", {"connectionId": second.connection_id})["scan"]["scanId"]
        for each in (changing, reading):
            acting.control.wait_until_held(each, 60.0)
        given = {"awsAccessKeyId": new_key, "awsSecretAccessKey": made.base_user.secret_access_key}
        assert made.base_user.secret_access_key not in str(acting.finops.post(f"{path}:rotateCredential", given))
        rotated = support.until(lambda: _in_use(acting, path), 120.0)
    finally:
        for each in (changing, reading):
            acting.control.remove_fault(each)
    assert second.old_key in rotated["advice"]
    assert _read(support.scan_ended(acting.finops, scan_id)) == _read(second.scan)
    # Begun with the old key and done with the new one, once.
    done = acting.reached(action, "EXECUTED")
    assert [step["state"] for step in done["steps"]] == ["STEP_STATE_REFUSED", "STEP_STATE_CONFIRMED"]
    assert [line["applied"] for line in acting.changes(action, "ModifyVolume")] == [False, True]
    used = _keys_of(acting, f"act-{action['actionId']}")
    assert (used[0], used[-1]) == (second.old_key, new_key)
    # From here on nothing needs the old one.
    made.clients.client("iam", PAYER_ACCOUNT).delete_access_key(UserName=BASE_USER, AccessKeyId=second.old_key)
    assert _read(_scan(acting, second.connection_id)) == _read(second.scan)
    assert acting.finops.get(path)["connection"]["accessKeyId"] == new_key
    _assert_posture(made, rotated)


def _assert_posture(made: TestMesh, rotated: dict[str, Any]) -> None:
    posture = made.rest("acme", "Security").get("/secretsPosture")
    found = {each["credentialId"]: each for each in posture["credentials"]}
    assert found[rotated["credentialId"]]["standing"] == "CREDENTIAL_STANDING_IN_USE"
    assert found[rotated["replacedCredentialId"]]["standing"] == "CREDENTIAL_STANDING_REPLACED"
    assert found[rotated["credentialId"]]["lastUsedAt"]
    assert posture["decryptFailuresSince"]


def _given(key: dict[str, Any]) -> dict[str, str]:
    return {"awsAccessKeyId": key["AccessKeyId"], "awsSecretAccessKey": key["SecretAccessKey"]}


def _in_use(acting: Acting, path: str) -> dict[str, Any] | None:
    """The rotation once the new key is in use."""
    found: dict[str, Any] = acting.finops.get(f"{path}/rotation")["rotation"]
    assert found["state"] != "ROTATION_STATE_FAILED", found["problem"]
    return found if found["state"] == "ROTATION_STATE_DRAINING" else None


def _scan(acting: Acting, connection_id: str) -> dict[str, Any]:
    begun = acting.finops.post("/scans", {"connectionId": connection_id})["scan"]
    return support.scan_ended(acting.finops, begun["scanId"])


def _keys_of(acting: Acting, source_identity: str) -> list[str]:
    """The long-lived keys that the roles were assumed with, by what the cloud's own trail shows, in order."""
    return [
        line["access_key_id"]
        for line in acting.control.log()
        if line["action"] == "AssumeRole" and line["params"].get("SourceIdentity") == source_identity
    ]


def _read(scan: dict[str, Any]) -> tuple[str, set[tuple[str, ...]]]:
    """What a scan read, and what it couldn't."""
    outcomes = {(c["account"], c["region"], c["api"], c["outcome"]) for c in scan["coverage"]}
    return scan["state"], outcomes
