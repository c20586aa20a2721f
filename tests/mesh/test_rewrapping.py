"""An organization's KEK is exchanged in the running mesh: under a scan, through kill -9, and retired at the end."""

from __future__ import annotations

import asyncio

import pytest

from recoup_local.cloud import ProxyControl
from services._mesh.envelope import parse
from tests.mesh.test_faults import nothing_is_lost_or_twice, rows
from tests.support import mesh as support
from tests.support.mesh import Person, TestMesh

pytestmark = pytest.mark.xdist_group("mesh")

# More than a batch of 32, beside the connections' own credentials.
KEYS = 34


@pytest.fixture
def security(made: TestMesh) -> Person:
    return made.rest("acme", "Security")


def envelopes(made: TestMesh, organization: str) -> dict[str, bytes]:
    found = rows(
        made, f"SELECT credential_id, envelope FROM scanner.credentials WHERE organization_id = '{organization}'"
    )
    return {str(row["credential_id"]): bytes(row["envelope"]) for row in found}


def under(made: TestMesh, organization: str, reference: str) -> int:
    return sum(parse(each).kek.reference == reference for each in envelopes(made, organization).values())


def register(made: TestMesh, security: Person, version: int) -> str:
    """Name a version of a key of acme's own; its reference."""
    key_id = f"{made.mesh.installation.ring.name}/acme-own"
    given = {"provider": "KEK_PROVIDER_FILE", "keyId": key_id, "region": "local", "keyVersion": str(version)}
    assert security.post("/keks", given)["kek"]["version"] == version
    return f"{key_id}/{version}"


def moved(made: TestMesh, security: Person, version: int) -> bool | None:
    """Whether nothing is under another version any more, and everybody was told."""
    listed = {kek["version"]: kek for kek in security.get("/keks")["keks"]}
    untold = rows(made, "SELECT 1 FROM scanner.jobs WHERE kind = 'rewrap_credentials' AND status <> 'DONE'")
    count = len(envelopes(made, security.organization_id))
    return True if listed[version]["credentials"] == count and not untold else None


def test_a_key_is_exchanged_under_a_scan_and_through_kills_and_retired_when_nothing_needs_it(
    made: TestMesh, security: Person
) -> None:
    finops, control = made.rest("acme", "FinOps"), ProxyControl.of(made.mesh.cloud)
    for number in range(KEYS):
        security.post("/keys", {"purpose": "KEY_PURPOSE_WEBHOOK", "name": f"moved-{number}"})
    before = envelopes(made, security.organization_id)
    first = register(made, security, 1)
    rule = control.add_fault(action="DescribeSnapshots", hold="before")
    try:
        scan_id = finops.post("/scans", {"connectionId": made.connection_id})["scan"]["scanId"]
        control.wait_until_held(rule, 60.0)
        assert security.post("/keks:rotate")["credentialsToMove"] == len(before)
        # As soon as a batch is stored the worker is killed, wherever it is in the next one, and in the scan.
        support.until(lambda: under(made, security.organization_id, first) or None)
        made.mesh.kill("scanner-worker")
    finally:
        control.remove_fault(rule)
    asyncio.run(made.mesh.restart("scanner-worker"))
    # The killed one's leases would run out after a minute.
    rows(made, "UPDATE scanner.jobs SET lease_until = now() WHERE status = 'LEASED' RETURNING 1")
    support.until(lambda: moved(made, security, 1), 120.0)
    after = envelopes(made, security.organization_id)
    assert after.keys() == before.keys()
    for credential_id, old, new in ((each, parse(before[each]), parse(after[each])) for each in before):
        assert new.kek.reference == first, credential_id
        # The same payload under the same key, which was wrapped anew.
        assert (old.commitment, old.nonce, old.sealed) == (new.commitment, new.nonce, new.sealed)
    assert support.scan_ended(finops, scan_id)["unitsDone"] == 36
    # Another one: nothing needs the first any more, and it is retired when that is so, and not before.
    register(made, security, 2)
    kept = security.call("POST", "/keks/1:retire", json={})
    assert (kept.status_code, kept.json()["metadata"]["state"]) == (400, "IN_USE")
    security.post("/keks:rotate")
    support.until(lambda: moved(made, security, 2))
    assert security.post("/keks/1:retire")["kek"]["state"] == "KEK_STATE_RETIRED"
    assert support.scan(made, finops)["state"] == "SCAN_STATE_PARTIAL"
    nothing_is_lost_or_twice(made)
