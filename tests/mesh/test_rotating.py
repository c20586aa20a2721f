"""A connection's key is rotated while a scan reads with the one before, which nothing needs afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from recoup_local.cloud import PAYER_ACCOUNT, ProxyControl
from recoup_local.cloud.estate.roles import BASE_USER
from tests.support import mesh as support
from tests.support.mesh import TestMesh

pytestmark = pytest.mark.xdist_group("mesh")


def test_a_key_is_rotated_under_a_scan_and_the_old_one_is_needed_by_none(made: TestMesh) -> None:
    finops, control = made.rest("acme", "FinOps"), ProxyControl.of(made.mesh.cloud)
    path, iam = f"/connections/{made.connection_id}", made.clients.client("iam", PAYER_ACCOUNT)
    before = support.scan(made, finops)
    rule = control.add_fault(action="DescribeSnapshots", hold="before")
    try:
        scan_id = finops.post("/scans", {"connectionId": made.connection_id})["scan"]["scanId"]
        control.wait_until_held(rule, 60.0)
        key = iam.create_access_key(UserName=BASE_USER)["AccessKey"]
        given = {"awsAccessKeyId": key["AccessKeyId"], "awsSecretAccessKey": key["SecretAccessKey"]}
        assert key["SecretAccessKey"] not in str(finops.post(f"{path}:rotateCredential", given))

        def in_use() -> dict[str, Any] | None:
            found: dict[str, Any] = finops.get(f"{path}/rotation")["rotation"]
            assert found["state"] != "ROTATION_STATE_FAILED", found["problem"]
            return found if found["state"] == "ROTATION_STATE_DRAINING" else None

        rotated = support.until(in_use, 120.0)
    finally:
        control.remove_fault(rule)
    assert made.base_user.access_key_id in rotated["advice"]
    assert _read(support.scan_ended(finops, scan_id)) == _read(before)
    # From here on nothing needs the old one.
    old = {"UserName": BASE_USER, "AccessKeyId": made.base_user.access_key_id}
    iam.update_access_key(**old, Status="Inactive")
    try:
        assert _read(support.scan(made, finops)) == _read(before)
        assert finops.get(path)["connection"]["accessKeyId"] == key["AccessKeyId"]
    finally:
        iam.update_access_key(**old, Status="Active")
    posture = made.rest("acme", "Security").get("/secretsPosture")
    found = {each["credentialId"]: each for each in posture["credentials"]}
    assert found[rotated["credentialId"]]["standing"] == "CREDENTIAL_STANDING_IN_USE"
    assert found[rotated["replacedCredentialId"]]["standing"] == "CREDENTIAL_STANDING_REPLACED"
    assert found[rotated["credentialId"]]["lastUsedAt"]
    assert posture["decryptFailuresSince"]


def _read(scan: dict[str, Any]) -> tuple[str, set[tuple[str, ...]]]:
    """What a scan read, and what it couldn't."""
    outcomes = {(c["account"], c["region"], c["api"], c["outcome"]) for c in scan["coverage"]}
    return scan["state"], outcomes
