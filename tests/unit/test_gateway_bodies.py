"""Answers that aren't JSON (google.api.HttpBody): type and octets as the service gave them, a tag, and 304."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any
from uuid import uuid4

import pytest
from google.api.httpbody_pb2 import HttpBody

from recoup.audit.v1 import audit_service_pb2 as pb
from services._mesh.errors import NotFound
from services._mesh.metrics import Metrics
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.exchange import SECURITY_HEADERS, read
from services.gateway.passports import Issued
from services.gateway.routes import Router
from tests.support.things import linked_passport

AUDIT = pb.DESCRIPTOR.services_by_name["AuditService"]
PLATFORM = "00000000-0000-0000-0000-000000000000"
OCTETS = bytes(range(256)) * 32


class Behind:
    """The audit service behind a gateway, and identity's passports: what was asked of them, and what they answer."""

    def __init__(self, answer: Any, members: bool = True) -> None:
        self.answer, self.members = answer, members
        self.asked: list[Any] = []
        self.passports: list[tuple[str, str]] = []

    def unary_unary(self, name: str, **_codecs: Any) -> Any:
        async def call(request: Any, **more: Any) -> Any:
            self.asked.append((name.rpartition("/")[2], request))
            return self.answer

        return call

    def knows(self, _session: str) -> bool:
        """Everybody is known."""
        return True

    async def passport(self, _session: str, audience: str, organization_id: str, _elevation_id: str = "") -> Issued:
        """A passport, unless it is asked for the platform by somebody who isn't of it."""
        self.passports.append((audience, organization_id))
        if organization_id == PLATFORM and not self.members:
            raise NotFound("organization")
        return Issued(f"passport for {organization_id or 'nobody'}", linked_passport(uuid4()))


def get(behind: Behind, path: str, *headers: tuple[bytes, bytes]) -> tuple[int, dict[bytes, bytes], bytes]:
    """What a GET answers."""
    standing: Any = behind
    settings = EdgeSettings(listen="127.0.0.1:0")
    gateway = Gateway(Router([("audit", AUDIT)]), standing, lambda _: standing, settings, Metrics(), lambda: True, {})
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b""}
    session = (b"authorization", b"Bearer x")
    asyncio.run(gateway({**scope, "headers": [session, *headers], "client": ("127.0.0.1", 1)}, receive, send))
    start, end = sent
    return start["status"], dict(start["headers"]), end["body"]


def tile() -> Behind:
    return Behind(pb.GetLogTileResponse(body=HttpBody(content_type="application/octet-stream", data=OCTETS)))


def test_a_body_goes_out_as_it_came_under_the_edges_headers() -> None:
    behind = tile()
    status, headers, body = get(behind, "/log/tile/0/x001/x234/067.p/112")
    assert (status, body) == (200, OCTETS)
    assert headers[b"content-type"] == b"application/octet-stream"
    assert headers[b"content-length"] == b"8192"
    assert set(SECURITY_HEADERS) <= set(headers.items())
    assert headers[b"cache-control"] == b"no-store"
    assert behind.asked == [("GetLogTile", pb.GetLogTileRequest(tile="0/x001/x234/067.p/112"))]
    assert behind.passports == [("audit", PLATFORM)]


def test_a_shard_in_the_path_is_part_of_the_request() -> None:
    behind = tile()
    assert get(behind, "/log/shards/0/tile/1/000")[0] == 200
    assert behind.asked == [("GetLogTile", pb.GetLogTileRequest(shard=0, tile="1/000"))]
    assert behind.asked != [("GetLogTile", pb.GetLogTileRequest(tile="1/000"))]
    note = Behind(pb.GetLogCheckpointResponse(body=HttpBody(content_type="text/plain; charset=utf-8", data=b"n\n")))
    status, headers, body = get(note, "/log/shards/3/checkpoint")
    assert (status, headers[b"content-type"], body) == (200, b"text/plain; charset=utf-8", b"n\n")
    assert note.asked == [("GetLogCheckpoint", pb.GetLogCheckpointRequest(shard=3))]
    assert get(note, "/log/shards/x/checkpoint")[0] == 400


def test_who_has_it_already_gets_304_without_a_body() -> None:
    _, headers, _ = get(tile(), "/log/tile/0/000")
    tag = headers[b"etag"]
    for known in (tag, b"W/" + tag, b'"other", ' + tag, b"*"):
        status, found, body = get(tile(), "/log/tile/0/000", (b"if-none-match", known))
        assert (status, body, found[b"etag"]) == (304, b"", tag), known
        assert b"content-length" not in found
        assert b"content-type" not in found
        assert found[b"cache-control"] == b"no-store"
    for other in (b'"other"', tag[:-2] + b'"', b""):
        assert get(tile(), "/log/tile/0/000", (b"if-none-match", other))[0] == 200
    changed = Behind(pb.GetLogTileResponse(body=HttpBody(data=OCTETS[:-1] + b"\0")))
    status, found, _ = get(changed, "/log/tile/0/000", (b"if-none-match", tag))
    assert (status, found[b"content-type"]) == (200, b"application/octet-stream")


def test_who_isnt_of_the_platform_goes_to_the_service_as_who_they_are() -> None:
    """The gateway decides no permission: the service refuses a passport for no organization, and counts it."""
    behind = tile()
    behind.members = False
    assert get(behind, "/log/checkpoint")[0] == 200  # This service lets everybody in; the gateway passed it on.
    assert behind.passports == [("audit", PLATFORM), ("audit", "")]


@pytest.mark.parametrize(
    ("version", "headers", "may"),
    [
        ("1.1", [], False),
        ("1.1", [(b"content-length", b"0")], True),
        ("1.1", [(b"Transfer-Encoding", b"chunked")], True),
        ("1.0", [], True),
        ("2", [], True),
    ],
)
def test_a_body_may_follow_unless_http_1_1_says_that_none_does(
    version: str, headers: list[tuple[bytes, bytes]], may: bool
) -> None:
    scope = {"method": "POST", "path": "/", "query_string": b"", "headers": headers, "http_version": version}
    assert read(scope).may_have_body == may


@pytest.mark.parametrize("media_type", ["text/plain\r\nset-cookie: a=b", "text/plain\n", "text/\u00e9", "a\0b"])
def test_a_media_type_that_would_be_more_than_one_header_is_an_internal_problem(media_type: str) -> None:
    behind = Behind(pb.GetLogTileResponse(body=HttpBody(content_type=media_type, data=OCTETS)))
    status, headers, body = get(behind, "/log/tile/0/000")
    assert (status, headers[b"content-type"]) == (500, b"application/problem+json")
    assert json.loads(body)["status"] == 500
    assert b"set-cookie" not in headers
