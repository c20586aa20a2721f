"""What must survive: killed processes, a lost JetStream, revocations that must reach everybody."""

from __future__ import annotations

import asyncio
import json
import time

import asyncpg
import pytest

from recoup_local.cloud import ProxyControl
from recoup_local.embedded.postgres import connect
from tests.support import mesh as support
from tests.support.mesh import TestMesh

pytestmark = pytest.mark.xdist_group("mesh")

PRODUCERS = ("identity", "scanner", "pricing", "actions")


def rows(made: TestMesh, query: str) -> list[asyncpg.Record]:
    async def read() -> list[asyncpg.Record]:
        assert made.mesh.postgres is not None
        connection = await connect(made.mesh.postgres)
        try:
            found: list[asyncpg.Record] = await connection.fetch(query)
            return found
        finally:
            await connection.close()

    return asyncio.run(read())


def everything_relayed(made: TestMesh) -> bool | None:
    behind = [
        row["n"]
        for schema in PRODUCERS
        for row in rows(made, f"SELECT count(*) AS n FROM {schema}.outbox WHERE log_index IS NULL")
    ]
    return True if sum(behind) == 0 else None


def nothing_is_lost_or_twice(made: TestMesh) -> None:
    """Every event of every outbox is in the log exactly once, and every counter is gapless."""
    support.until(lambda: everything_relayed(made))
    for schema in PRODUCERS:
        gaps = rows(
            made,
            f"SELECT organization_id FROM {schema}.outbox GROUP BY organization_id"
            " HAVING max(counter) <> count(*) OR min(counter) <> 1",
        )
        assert not gaps
        missing = rows(
            made,
            f"SELECT o.event_id FROM {schema}.outbox o LEFT JOIN audit.entries e USING (organization_id, event_id)"
            # What was written since is on its way.
            " WHERE o.log_index IS NOT NULL"
            " AND (e.event_id IS NULL OR e.idx <> o.log_index OR e.producer_counter <> o.counter)",
        )
        assert not missing
    twice = rows(made, "SELECT event_id FROM audit.entries GROUP BY event_id HAVING count(*) > 1")
    assert not twice


def test_a_worker_killed_in_the_middle_of_a_scan_is_followed_by_another(made: TestMesh) -> None:
    control, finops = ProxyControl.of(made.mesh.cloud), made.rest("acme", "FinOps")
    rule = control.add_fault(action="DescribeVolumes", hold="before")
    scan_id = finops.post("/scans", {"connectionId": made.connection_id})["scan"]["scanId"]
    control.wait_until_held(rule, 30.0)
    made.mesh.kill("scanner-worker")
    control.remove_fault(rule)
    asyncio.run(made.mesh.restart("scanner-worker"))
    # The lease of the killed one runs out, and the job is announced anew.
    scan = support.scan_ended(finops, scan_id)
    assert (scan["state"], scan["unitsDone"]) == ("SCAN_STATE_PARTIAL", 36)
    assert rows(made, f"SELECT fence FROM scanner.jobs WHERE subject_id = '{scan_id}'")[0]["fence"] == 2
    nothing_is_lost_or_twice(made)


def test_losing_all_of_jetstream_with_work_in_flight_loses_nothing(made: TestMesh) -> None:
    control, finops = ProxyControl.of(made.mesh.cloud), made.rest("acme", "FinOps")
    rule = control.add_fault(action="DescribeVolumes", hold="before")
    running = finops.post("/scans", {"connectionId": made.connection_id})["scan"]["scanId"]
    control.wait_until_held(rule, 30.0)
    made.mesh.lose_jetstream()
    control.remove_fault(rule)
    assert support.scan_ended(finops, running)["state"] == "SCAN_STATE_PARTIAL"
    assert support.scan(made, finops)["state"] == "SCAN_STATE_PARTIAL"
    nothing_is_lost_or_twice(made)


def test_losing_every_database_connection_in_mid_flight_loses_nothing(made: TestMesh) -> None:
    control, finops = ProxyControl.of(made.mesh.cloud), made.rest("acme", "FinOps")
    rule = control.add_fault(action="DescribeVolumes", hold="before")
    scan_id = finops.post("/scans", {"connectionId": made.connection_id})["scan"]["scanId"]
    control.wait_until_held(rule, 30.0)
    ended = rows(
        made,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND usename <> 'postgres'",
    )
    assert len(ended) > 5
    control.remove_fault(rule)

    def back() -> bool | None:
        answer = finops.call("GET", f"/scans/{scan_id}")
        # Until the pools have noticed, the answer is an honest 503, and nothing else.
        assert answer.status_code in (200, 503), answer.text
        return True if answer.status_code == 200 else None

    support.until(back)
    assert support.until(lambda: over(made, scan_id), 120.0) == "PARTIAL"
    nothing_is_lost_or_twice(made)


def test_a_kek_that_is_disabled_stops_a_scan_and_says_so_once_until_it_is_enabled(made: TestMesh) -> None:
    finops, file = made.rest("acme", "FinOps"), made.mesh.installation.ring.opening
    ring = json.loads(file.read_text())
    made.mesh.kill("broker")  # A new one has no key in its cache.
    file.write_text(json.dumps({**ring, "states": {f"{ring['kek_id']}/{finops.organization_id}/1": "DISABLED"}}))
    asyncio.run(made.mesh.restart("broker"))
    scan_id = finops.post("/scans", {"connectionId": made.connection_id})["scan"]["scanId"]
    told = f"SELECT 1 FROM scanner.outbox WHERE convert_from(payload, 'UTF8') ~ 'scanner.job.wait.*{scan_id}'"
    support.until(lambda: rows(made, told) or None)
    assert over(made, scan_id) is None
    assert not rows(made, f"SELECT 1 FROM scanner.scan_units WHERE scan_id = '{scan_id}'")
    file.write_text(json.dumps(ring))
    assert support.scan_ended(finops, scan_id)["state"] == "SCAN_STATE_PARTIAL"
    assert len(rows(made, told)) == 1


def over(made: TestMesh, scan_id: str) -> str | None:
    state = str(rows(made, f"SELECT state FROM scanner.scans WHERE scan_id = '{scan_id}'")[0]["state"])
    return state if state not in ("QUEUED", "RUNNING") else None


@pytest.mark.parametrize("process", ["scanner", "audit", "identity"])
def test_an_api_killed_with_its_relay_loses_no_event(made: TestMesh, process: str) -> None:
    admin = made.rest("acme", "Admin")
    etag = admin.get("")["organization"]["etag"]
    for number in range(5):
        answer = admin.call("PATCH", "", json={"displayName": f"Acme {number}", "etag": etag})
        assert answer.status_code == 200
        etag = answer.json()["organization"]["etag"]
    made.mesh.kill(process)
    asyncio.run(made.mesh.restart(process))
    nothing_is_lost_or_twice(made)
    support.until(lambda: True if admin.call("GET", "").status_code == 200 else None)


def test_a_revocation_reaches_everybody_within_five_seconds(made: TestMesh) -> None:
    admin, security = made.rest("acme", "Admin"), made.rest("acme", "Security")
    member = next(m for m in admin.get("/members", pageSize=500)["members"] if m["role"] == "ROLE_AUDITOR")
    support.until(lambda: True if made.rest("acme", "Auditor").call("GET", "/events").status_code == 200 else None)
    security.post(f"/members/{member['memberId']}:revokeSessions")
    began = time.monotonic()

    # The gateway asks for a new passport when the old one is refused; the old one itself is refused within 5 s.
    def refused() -> bool | None:
        found = rows(made, "SELECT max(seq) AS seq FROM identity.revocations")[0]["seq"]
        return True if found else None

    support.until(refused, 5.0)
    admin.client.delete(f"/v1/organizations/{admin.organization_id}/members/{member['memberId']}").raise_for_status()
    gone = support.until(
        lambda: True if made.signed_in_anew("acme", "Auditor").call("GET", "/events").status_code == 404 else None, 5.0
    )
    assert gone
    assert time.monotonic() - began < 10.0
    body = {"userId": member["userId"], "email": member["email"], "role": "ROLE_AUDITOR"}
    admin.post("/members", body)
    support.until(
        lambda: True if made.signed_in_anew("acme", "Auditor").call("GET", "/events").status_code == 200 else None
    )


def test_while_identity_is_down_reads_go_on_and_nothing_changes(made: TestMesh) -> None:
    admin = made.rest("acme", "Admin")
    etag = admin.get("")["organization"]["etag"]
    finops = made.rest("acme", "FinOps")
    finops.get("/scans")
    made.rest("acme", "FinOps").call("POST", "/scans", json={"connectionId": "00000000-0000-4000-8000-000000000000"})
    made.mesh.kill("identity")
    try:

        def stale() -> bool | None:
            body = {"connectionId": "00000000-0000-4000-8000-000000000000"}
            answer = finops.call("POST", "/scans", json=body)
            return True if answer.json()["reason"] == "REVOCATION_FEED_STALE" else None

        support.until(stale, 15.0)
        assert finops.call("GET", "/scans").status_code == 200
    finally:
        asyncio.run(made.mesh.restart("identity"))
    same = support.until(lambda: admin.call("GET", "").json().get("organization"))
    assert same["etag"] == etag
