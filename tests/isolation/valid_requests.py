"""A valid request for every RPC, so that the isolation suite can vary it. An RPC without one fails the suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.support import mesh as support
from tests.support.mesh import TestMesh


@dataclass(frozen=True)
class Case:
    """A valid request: the REST body, query and path variables, and what an allowed caller gets for it.

    `answer` is 200 where the call can succeed again and again; a change that can't names the domain's own refusal,
    which shows just as well that the caller was let in.
    """

    variables: Mapping[str, str]
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str] | None = None
    answer: tuple[int, str] = (200, "")


Factory = Callable[[TestMesh], Case]


def _member(made: TestMesh) -> dict[str, Any]:
    found: dict[str, Any] = made.rest("acme", "Admin").get("/members", pageSize=500)
    return next(member for member in found["members"] if member["role"] == "ROLE_VIEWER")


def _scan(made: TestMesh) -> str:
    finops = made.rest("acme", "FinOps")
    scans = finops.get("/scans", pageSize=1)["scans"]
    return str(scans[0]["scanId"]) if scans else str(support.scan(made, finops)["scanId"])


def _finding(made: TestMesh) -> str:
    _scan(made)
    found: list[dict[str, Any]] = made.rest("acme", "Viewer").get("/findings", pageSize=1)["findings"]
    return str(found[0]["findingId"])


def _event(made: TestMesh) -> str:
    found: list[dict[str, Any]] = made.rest("acme", "Auditor").get("/events", pageSize=1)["events"]
    return str(found[0]["eventId"])


def _etag_refused(variables: Mapping[str, str], **body: Any) -> Case:
    """A change under an etag that is never current: let in, and refused by the resource itself."""
    return Case(variables, {**body, "etag": "stale"}, answer=(409, "ETAG_MISMATCH"))


_CONNECTION = "recoup.scanner.v1.ScannerService"
_IDENTITY = "recoup.identity.v1.IdentityService"
_AUDIT = "recoup.audit.v1.AuditService"

FACTORIES: Mapping[str, Factory] = {
    f"{_IDENTITY}/GetOrganization": lambda made: Case({}),
    f"{_IDENTITY}/UpdateOrganization": lambda made: _etag_refused({}, displayName="x"),
    f"{_IDENTITY}/ListMembers": lambda made: Case({}),
    f"{_IDENTITY}/GetMember": lambda made: Case({"member_id": _member(made)["memberId"]}),
    f"{_IDENTITY}/AddMember": lambda made: Case(
        {}, {"userId": str(uuid4()), "email": "new@acme.example.com", "role": "ROLE_VIEWER"}
    ),
    f"{_IDENTITY}/UpdateMember": lambda made: _etag_refused(
        {"member_id": _member(made)["memberId"]}, role="ROLE_AUDITOR"
    ),
    f"{_IDENTITY}/RemoveMember": lambda made: Case({"member_id": str(uuid4())}, answer=(404, "RESOURCE_NOT_FOUND")),
    f"{_IDENTITY}/RevokeMemberSessions": lambda made: Case(
        {"member_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_CONNECTION}/CreateConnection": lambda made: Case({}, support.new_connection(made)),
    f"{_CONNECTION}/VerifyConnection": lambda made: Case(
        {"connection_id": str(uuid4())}, {}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_CONNECTION}/DisableConnection": lambda made: _etag_refused({"connection_id": made.connection_id}),
    f"{_CONNECTION}/GetConnection": lambda made: Case({"connection_id": made.connection_id}),
    f"{_CONNECTION}/ListConnections": lambda made: Case({}),
    f"{_CONNECTION}/StartScan": lambda made: Case(
        {}, {"connectionId": str(uuid4())}, answer=(404, "RESOURCE_NOT_FOUND")
    ),
    f"{_CONNECTION}/GetScan": lambda made: Case({"scan_id": _scan(made)}),
    f"{_CONNECTION}/ListScans": lambda made: Case({}),
    f"{_CONNECTION}/GetFinding": lambda made: Case({"finding_id": _finding(made)}),
    f"{_CONNECTION}/ListFindings": lambda made: Case({}),
    "recoup.pricing.v1.PricingService/ListPrices": lambda made: Case({}, query={"region": "us-east-1"}),
    f"{_AUDIT}/ListEvents": lambda made: Case({}),
    f"{_AUDIT}/GetEvent": lambda made: Case({"event_id": _event(made)}),
    f"{_AUDIT}/GetEventProof": lambda made: Case({"event_id": _event(made)}),
    f"{_AUDIT}/GetCheckpoint": lambda made: Case({}),
    f"{_AUDIT}/GetConsistencyProof": lambda made: Case({}, query={"fromSize": "1", "toSize": "2"}),
}
