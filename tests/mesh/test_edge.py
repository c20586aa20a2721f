"""Odd requests at the live gateway: each is refused with a problem that names field and rule, and none is our fault."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

import httpx
import pytest

from services.gateway.exchange import SECURITY_HEADERS
from tests.support import mesh as support
from tests.support.mesh import TestMesh

pytestmark = pytest.mark.xdist_group("mesh")

LONG = "9" * 5000
MANY = "&".join(["a=1"] * 1001)
ID = "0191f2a4-7a52-7d0e-9c3b-aabbccddeeff"
# Method, path below the organization, body, then the status, the reason and the field.
ODD = [
    ("GET", "/findings?state=--1", "", 400, "FIELD_INVALID", "state"),
    ("GET", "/findings?state=%C2%B2", "", 400, "FIELD_INVALID", "state"),
    ("GET", f"/findings?state={LONG}", "", 400, "FIELD_INVALID", "state"),
    ("GET", f"/findings?pageSize={LONG}", "", 400, "FIELD_INVALID", "pageSize"),
    ("GET", "/findings?pageSize=many", "", 400, "FIELD_INVALID", "pageSize"),
    ("GET", "/findings?pageToken=%ff", "", 400, "FIELD_INVALID", "(query)"),
    ("GET", f"/scans?{MANY}", "", 413, "TOO_LARGE", "(query)"),
    ("GET", "/events?occurredAfter=yesterday", "", 400, "FIELD_INVALID", "occurredAfter"),
    (
        "GET",
        "/events?occurredAfter=2024-01-01T00:00:00Z&occurredAfter.seconds=1",
        "",
        400,
        "FIELD_UNKNOWN",
        "occurredAfter.seconds",
    ),
    ("GET", "/events?action=a%00b", "", 400, "FIELD_INVALID", "action"),
    ("GET", "/scans/a%00b", "", 400, "FIELD_INVALID", "scan_id"),
    ("GET", "/scans/%ff", "", 400, "FIELD_INVALID", "(path)"),
    ("POST", "/scans", '{"connectionId": ' + LONG + "}", 400, "FIELD_INVALID", "connectionId"),
    ("POST", "/scans", '{"connectionId": 5}', 400, "FIELD_INVALID", "connectionId"),
    ("POST", "/scans", '{"connectionId": "\\ud800"}', 400, "FIELD_INVALID", "connectionId"),
    ("POST", "/scans", '{"\\ud800": 1}', 400, "FIELD_UNKNOWN", "\\ud800"),
    ("POST", "/scans", '{"connectionId": "a\\u0000b"}', 400, "FIELD_INVALID", "connection_id"),
    ("POST", "/connections", '{"displayName": "a\\u0000b"}', 400, "FIELD_INVALID", "display_name"),
    ("POST", "/connections", '{"displayName": "x", "regions": ["\\u0000"]}', 400, "FIELD_INVALID", "regions[0]"),
    ("POST", "/connections", '{"awsAccounts": ["1"]}', 400, "FIELD_INVALID", "awsAccounts[0]"),
    ("POST", "/scans", '{"connectionId": NaN}', 400, "BODY_MALFORMED", ""),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason", "field"), ODD, ids=[f"{p[:40]} {b[:40]}" for _, p, b, *_ in ODD]
)
def test_an_odd_request_is_refused_by_field_and_rule(
    made: TestMesh, method: str, path: str, body: str, status: int, reason: str, field: str
) -> None:
    person = made.rest("acme", "Auditor" if path.startswith("/events") else "FinOps")
    answer = person.call(method, path, content=body.encode(), headers={"content-type": "application/json"})
    document = problem(answer, status, reason)
    if field:
        assert document["violations"][0]["field"] == field
        assert document["violations"][0]["description"]


@pytest.mark.parametrize("path", ["/healthz", "/v1/nothing", "/v1/organizations/x/scans"])
def test_too_many_parameters_are_refused_without_a_session_too(made: TestMesh, path: str) -> None:
    problem(made.rest("acme", "FinOps").client.get(f"{path}?{MANY}", headers={"authorization": ""}), 413, "TOO_LARGE")


def test_a_request_id_in_upper_case_is_the_same_request(made: TestMesh) -> None:
    person = made.rest("acme", "FinOps")
    body = {"connectionId": made.connection_id, "requestId": ID}
    first = person.post("/scans", body)
    assert person.post("/scans", {**body, "requestId": ID.upper()}) == first
    support.scan_ended(person, first["scan"]["scanId"])


def test_bytes_that_are_no_request_get_a_problem_too(made: TestMesh) -> None:
    url = httpx.URL(made.mesh.gateway_url)
    trust = ssl.create_default_context(cafile=str(made.mesh.installation.ca.cert_file))
    with (
        socket.create_connection((url.host, url.port or 443), timeout=10) as plain,
        trust.wrap_socket(plain, server_hostname=url.host) as connection,
    ):
        connection.sendall(b"nonsense\r\n\r\n")
        answer = connection.makefile("rb").read()
    top, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = top.decode().split("\r\n")
    assert status == "HTTP/1.1 400 Bad Request"
    headers = dict(line.split(": ", 1) for line in lines)
    problem(httpx.Response(400, headers=headers, content=body), 400, "FIELD_INVALID")


def problem(answer: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    """The document of a refusal, if it is what the edge promises of every one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    for name, value in SECURITY_HEADERS:
        assert answer.headers[name.decode()] == value.decode()
    document: dict[str, Any] = json.loads(answer.content)
    assert (document["reason"], document["status"]) == (reason, status)
    assert document["traceId"]
    return document
