"""Erasing over REST and by command, in the whole mesh; the offline verifier before and after."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from recoup_local.issuer import find_person, organization_id
from recoup_local.supervisor import query
from tests.support import mesh as support
from tests.support.command import DONE, REFUSED, recoup, said
from tests.support.mesh import Person, TestMesh, until

pytestmark = pytest.mark.xdist_group("mesh")

PRODUCERS = ("identity", "scanner", "pricing", "actions", "audit")


def by(made: TestMesh, role: str, *arguments: str) -> Result:
    """A command of somebody of globex."""
    return recoup(made, made.mesh.token("globex", role), *arguments)


def verified(made: TestMesh, person: Person, event: dict[str, Any], folder: Path) -> tuple[int, str]:
    """What the offline verifier says about an event's proof, as the gateway gives it."""
    answer = person.call("GET", f"/events/{event['eventId']}/proof")
    assert answer.status_code == 200, answer.text
    file = folder / "proof.json"
    file.write_bytes(answer.content)
    key = f"@{made.mesh.state / 'log.vkey'}"
    command = [sys.executable, "-m", "recoup_verify.cli", "event", str(file), "--key", key]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_two_people_erase_a_third_and_every_proof_still_stands(made: TestMesh, tmp_path: Path) -> None:
    admin, finops = made.rest("globex", "Admin"), made.rest("globex", "FinOps")
    subject = f"user:{find_person('globex', 'FinOps').user_id}"
    for person in (finops, admin):
        person.post("/connections", support.new_connection(made))

    def connected() -> list[dict[str, Any]] | None:
        found = admin.get("/events", action="scanner.connection.create")["events"]
        return found if len(found) >= 2 else None

    theirs, hers = sorted(until(connected), key=lambda each: bool(subject in json.dumps(_payload(each))))
    assert until(lambda: verified(made, admin, hers, tmp_path)[0] == 0 or None)

    asked = by(made, "Admin", "--json", "audit", "erase", "request", subject, "--reason", "case 7")
    erasure_id = said(asked)["erasure"]["erasureId"]
    own = by(made, "Admin", "audit", "erase", "approve", erasure_id, "--subject", subject)
    assert (own.exit_code, "REQUESTER_IS_APPROVER" in own.stderr) == (REFUSED, True)
    held = by(made, "Admin", "--json", "audit", "hold", "place", "--reason", "case 8")
    hold_id = said(held)["legalHold"]["holdId"]
    blocked = by(made, "Security", "audit", "erase", "approve", erasure_id, "--subject", subject)
    assert (blocked.exit_code, "legal hold" in blocked.stderr) == (REFUSED, True)
    assert by(made, "Security", "audit", "hold", "release", hold_id, "--reason", "over").exit_code == DONE
    approved = by(made, "Security", "audit", "erase", "approve", erasure_id, "--subject", subject)
    assert approved.exit_code == DONE, approved.stderr

    until(lambda: admin.get("/erasures")["erasures"][0]["state"] == "ERASURE_STATE_DONE" or None)
    assert " done " in by(made, "Auditor", "audit", "erase", "list").stdout
    assert case_8_is_released(by(made, "Auditor", "--json", "audit", "hold", "list").stdout)
    found = admin.get(f"/events/{hers['eventId']}")["event"]
    assert (found["payload"], found["payloadState"]) == ("", "PAYLOAD_STATE_ERASED")
    assert {**found, "payload": "", "payloadState": ""} == {**hers, "payload": "", "payloadState": ""}
    code, told = verified(made, admin, hers, tmp_path)
    assert (code, "as signed, but not what it said" in told) == (2, True), told
    assert verified(made, admin, theirs, tmp_path)[0] == 0
    # Nor has any producer kept what she did.
    until(lambda: None if any(_acted(made, schema, subject) for schema in PRODUCERS) else True)
    # What was done about her is told, and by whom, but not her name.
    actions = [each["action"] for each in admin.get("/events", target=f"erasures/{erasure_id}")["events"]]
    assert actions == ["audit.payload.erase", "audit.erasure.approve", "audit.erasure.request"]
    for each in admin.get("/events", action="audit.")["events"]:
        assert subject not in json.dumps(_payload(each))


def _acted(made: TestMesh, schema: str, actor: str) -> list[Any]:
    """The events that an actor has left in a producer's outbox, with their payloads."""
    told = "convert_from(payload, 'UTF8')::jsonb ->> 'actor'"
    ours = f"organization_id = '{organization_id('globex')}'"
    return ask(made, f"SELECT event_id FROM {schema}.outbox WHERE {ours} AND {told} = '{actor}'")


def _payload(event: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(event["payload"])) if event["payload"] else {}


def case_8_is_released(listed: str) -> bool:
    (hold,) = (each for each in json.loads(listed)["legalHolds"] if each["reason"] == "case 8")
    return bool(hold["releasedAt"])


def test_while_the_keys_are_away_nothing_is_opened_and_nothing_is_lost(made: TestMesh) -> None:
    admin = made.rest("globex", "Admin")

    def connected() -> int:
        return len(admin.get("/events", action="scanner.connection.create")["events"])

    before = connected()
    ask(made, "ALTER DATABASE recoup_keys ALLOW_CONNECTIONS false")
    ask(made, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'recoup_keys'")
    try:
        assert until(lambda: _refused(admin))["reason"] == "DEPENDENCY_UNAVAILABLE"
        until(lambda: asyncio.run(made.mesh.health("audit")) == "NOT_SERVING" or None)
        admin.post("/connections", support.new_connection(made))  # What changes meanwhile waits in its outbox.
    finally:
        ask(made, "ALTER DATABASE recoup_keys ALLOW_CONNECTIONS true")
    until(lambda: asyncio.run(made.mesh.health("audit")) == "SERVING" or None)
    until(lambda: connected() == before + 1 or None)


def test_sealing_what_was_in_the_clear_is_one_command_of_a_superuser(made: TestMesh, tmp_path: Path) -> None:
    """What it does is in tests/integration/test_audit_reseal.py; here nothing is in the clear."""
    assert made.mesh.postgres is not None
    config, password = made.mesh.state / "processes" / "audit" / "config.toml", tmp_path / "password"
    command = [sys.executable, "-m", "services.audit.reseal", "--config", str(config), "--password", str(password)]
    for user, secret, code, told in (
        (made.mesh.postgres.superuser, made.mesh.postgres.superuser_password, 0, "0 payloads were sealed"),
        ("audit_api", (config.parent / "api.password").read_text(), 1, "only a superuser"),
    ):
        password.write_text(secret)
        done = subprocess.run([*command, "--user", user], capture_output=True, text=True, timeout=60)
        assert (done.returncode, told in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr


def ask(made: TestMesh, statement: str) -> list[Any]:
    """A statement of the superuser's; returns its rows."""
    assert made.mesh.postgres is not None
    return asyncio.run(query(made.mesh.postgres, statement))


def _refused(person: Person) -> dict[str, Any] | None:
    answer = person.call("GET", "/events")
    return answer.json() if answer.status_code == 503 else None
