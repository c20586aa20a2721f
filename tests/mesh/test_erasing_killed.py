"""The audit process killed within an erasure (SIGKILL, at each of its places): the next one finishes it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from recoup_local.issuer import find_person, organization_id
from recoup_local.supervisor import LocalMesh, query
from tests.support.appending import append
from tests.support.log import event
from tests.support.mesh import small_mesh, until

pytestmark = pytest.mark.xdist_group("erasing")

PLACES = ("erasure.locked", "erasure.destroyed", "erasure.fenced", "erasure.recorded")
GLOBEX = organization_id("globex")


@pytest.fixture
def mesh() -> Iterator[LocalMesh]:
    """What an erasure goes through, with failpoints."""
    with small_mesh("audit-signer", "audit", "identity", "gateway", failpoints=True) as made:
        yield made


def test_a_kill_anywhere_within_an_erasure_is_finished_by_the_next_process(mesh: LocalMesh) -> None:
    asyncio.run(_append(mesh))
    assert mesh.installation.failpoints is not None
    for place, role in zip(PLACES, ("FinOps", "Approver", "Finance", "Viewer"), strict=True):
        subject = f"user:{find_person('globex', role).user_id}"
        asked = _call(mesh, "Admin", "POST", "/erasures", {"subject": subject, "reason": place})["erasure"]
        armed = mesh.installation.failpoints / f"audit.{place}"
        armed.write_text("kill")
        _call(mesh, "Security", "POST", f"/erasures/{asked['erasureId']}:approve", {"subject": subject})
        until(lambda: mesh.exit_code("audit"))
        assert not armed.exists(), place
        asyncio.run(mesh.restart("audit"))

        def done(wanted: str = asked["erasureId"]) -> bool | None:
            listed = _call(mesh, "Admin", "GET", "/erasures")["erasures"]
            return next(e["state"] for e in listed if e["erasureId"] == wanted) == "ERASURE_STATE_DONE" or None

        assert until(done), place
        found = _call(mesh, "Admin", "GET", f"/events?actor={subject}")["events"]
        assert [each["payloadState"] for each in found] == ["PAYLOAD_STATE_ERASED"] * 2, place

    def recorded() -> list[dict[str, Any]] | None:
        events: list[dict[str, Any]] = _call(mesh, "Admin", "GET", "/events?action=audit.payload.erase")["events"]
        return events if len(events) >= len(PLACES) else None

    assert len(until(recorded)) == len(PLACES)
    assert mesh.postgres is not None
    left = "SELECT count(*) FROM audit.erased_keys"
    assert asyncio.run(query(mesh.postgres, left))[0][0] == len(PLACES)


async def _append(mesh: LocalMesh) -> None:
    """Two events of four people, as pricing would append them; pricing itself isn't there."""
    events = []
    for counter, role in enumerate(("FinOps", "Approver", "Finance", "Viewer") * 2, 1):
        actor = f"user:{find_person('globex', role).user_id}"
        made = event(counter, UUID(str(GLOBEX)), action="pricing.test.act", actor=actor)
        events.append(made)
    await append(mesh, events)


def _call(mesh: LocalMesh, role: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request of somebody of globex; again while the audit process comes up."""
    context = ssl.create_default_context(cafile=str(mesh.installation.ca.cert_file))
    headers = {"authorization": f"Bearer {mesh.token('globex', role)}"}
    with httpx.Client(base_url=mesh.gateway_url, verify=context, headers=headers, timeout=30.0) as client:

        def answered() -> httpx.Response | None:
            answer = client.request(method, f"/v1/organizations/{GLOBEX}{path}", json=body)
            return None if answer.status_code == 503 else answer

        answer = until(answered)
        assert answer.status_code == 200, answer.text
        document: dict[str, Any] = answer.json()
        return document
