"""HTTP that the gateway hands on as it is: what it hands on, what it refuses before, and which rules don't start."""

from __future__ import annotations

import asyncio
import json
from collections.abc import MutableMapping
from itertools import count
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from recoup.mesh.v1 import access_pb2, forward_pb2
from recoup.scanner.v1 import scanner_service_pb2
from services._mesh.descriptors import faults
from services._mesh.errors import DETAILS_KEY, NotFound, Problem, Reason, Unauthenticated, to_status
from services._mesh.metrics import Metrics
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.exchange import SECURITY_HEADERS
from services.gateway.routes import RouteError, Router

_numbers = count(1)
READS = {"prefix": "/scim/v2", "methods": ["GET"], "errors": "FORWARD_ERRORS_SCIM", "request_headers": ["if-match"]}
WRITES = {
    "prefix": "/scim/v2",
    "methods": ["POST", "PATCH"],
    "media_types": ["application/scim+json", "application/json"],
    "max_body_bytes": 1000,
    "errors": "FORWARD_ERRORS_SCIM",
    "response_headers": ["etag"],
}
OPEN = {"prefix": "/open", "methods": ["GET"], "errors": "FORWARD_ERRORS_PROBLEM", "credential": "NONE"}
SCANNER = ("scanner", scanner_service_pb2.DESCRIPTOR.services_by_name["ScannerService"])


def service(
    *forwards: dict[str, Any], scope: int = access_pb2.SCOPE_PEER, takes: str = "HttpRequest"
) -> ServiceDescriptor:
    """A service with one RPC for each rule."""
    number = next(_numbers)
    file = descriptor_pb2.FileDescriptorProto(
        name=f"tests/f{number}.proto", package=f"tests.f{number}", syntax="proto3"
    )
    file.dependency[:] = ["recoup/mesh/v1/access.proto", "recoup/mesh/v1/forward.proto"]
    made = file.service.add(name="ForwardedService")
    for name, held in (("Asked", takes), ("Answered", "HttpResponse")):
        file.message_type.add(name=name).field.add(name="http", number=1, type=11, type_name=f".recoup.mesh.v1.{held}")
    for place, each in enumerate(forwards):
        said = dict(each)
        method = made.method.add(
            name=f"Call{place}", input_type=f".tests.f{number}.Asked", output_type=f".tests.f{number}.Answered"
        )
        access = method.options.Extensions[access_pb2.access]
        access.scope, access.effect = scope, access_pb2.EFFECT_READ  # type: ignore[assignment]
        credential = f"FORWARD_CREDENTIAL_{said.pop('credential', 'BEARER')}"
        rule = method.options.Extensions[forward_pb2.forward]
        rule.CopyFrom(forward_pb2.Forward(credential=credential, **said))  # type: ignore[arg-type]
    return descriptor_pool.Default().AddSerializedFile(file.SerializeToString()).services_by_name["ForwardedService"]


class Behind:
    """The service behind the edge: keeps what it was handed, answers what it is told to."""

    def __init__(self) -> None:
        self.handed: list[forward_pb2.HttpRequest] = []
        self.answer = forward_pb2.HttpResponse(status=200, media_type="application/scim+json", body=b"{}")
        self.problem: Problem | None = None

    def unary_unary(self, _name: str, **_codecs: Any) -> Any:
        async def call(request: Any, **_options: Any) -> Any:
            self.handed.append(request.http)
            if self.problem is not None:
                details = ((DETAILS_KEY, to_status(self.problem).SerializeToString()),)
                raise grpc.aio.AioRpcError(self.problem.code, grpc.aio.Metadata(), grpc.aio.Metadata(*details))
            return SimpleNamespace(http=self.answer)

        return call


class Edge:
    """A gateway before one service."""

    def __init__(self, *forwards: dict[str, Any], **settings: Any) -> None:
        self.behind: Any = Behind()
        self.gateway = Gateway(
            Router([("identity", service(*forwards))]),
            self.behind,
            lambda _: self.behind,
            EdgeSettings(listen="127.0.0.1:0", **settings),
            Metrics(),
            lambda: True,
            {},
        )

    def ask(
        self, method: str, path: str, body: bytes = b"", token: str = "a-token", **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and document."""
        path, _, query = path.partition("?")
        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        given += [(b"authorization", f"Bearer {token}".encode())] if token else []
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": given}
        return asyncio.run(self._asked({**scope, "query_string": query.encode(), "client": ("192.0.2.7", 1)}, body))

    async def _asked(self, scope: dict[str, Any], body: bytes) -> tuple[int, dict[str, str], Any]:
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await self.gateway(scope, receive, send)
        start, end = sent
        assert set(SECURITY_HEADERS) <= set(start["headers"])
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        assert headers["x-request-id"]
        return start["status"], headers, json.loads(end["body"]) if end["body"] else None

    def refused(self, status: int, *request: Any, **headers: str) -> dict[str, Any]:
        """The document of a refusal in SCIM's own schema; nothing was handed on."""
        before = len(self.behind.handed)
        got, sent, document = self.ask(*request, **headers)
        assert (got, sent["content-type"]) == (status, "application/scim+json"), document
        assert document["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
        assert document["status"] == str(status)
        assert len(self.behind.handed) == before
        found: dict[str, Any] = {**document, "headers": sent}
        return found


def test_what_is_handed_on_is_the_request_without_what_is_not_allowed() -> None:
    edge = Edge(READS, WRITES)
    status, headers, _ = edge.ask(
        "GET", "/scim/v2/Users/a%2Fb?filter=x%20eq%201", if_match='W/"1"', cookie="c", recoup_request_id="x"
    )
    assert (status, headers["content-type"]) == (200, "application/scim+json")
    assert "ratelimit" in headers
    (request,) = edge.behind.handed
    assert (request.method, request.path, request.query) == ("GET", "/Users/a%2Fb", "filter=x%20eq%201")
    assert [(each.name, each.value) for each in request.headers] == [("if-match", 'W/"1"')]
    assert (request.bearer_token, request.client_address) == ("a-token", "192.0.2.7")


def test_the_answer_goes_out_with_the_allowed_headers_alone() -> None:
    edge = Edge(READS, WRITES)
    answer = edge.behind.answer
    answer.status = 201
    for name, value in (("etag", 'W/"1"'), ("cache-control", "public"), ("x-other", "1"), ("etag", "a\r\nb: c")):
        answer.headers.add(name=name, value=value)
    status, headers, _ = edge.ask("POST", "/scim/v2/Users", b"{}", content_type="application/scim+json; charset=UTF-8")
    assert (status, headers["etag"], headers["cache-control"]) == (201, 'W/"1"', "no-store")
    assert not {"x-other", "b"} & headers.keys()


COOKIE = "__Host-recoup-x"


@pytest.mark.parametrize(
    ("sent", "handed"),
    [
        (f"a=1; {COOKIE}=b-_9; c=2", "b-_9"),
        (f"{COOKIE}=b", "b"),
        (f"{COOKIE}=b; {COOKIE}=c", ""),
        (f"{COOKIE}=b c", ""),
        (f"{COOKIE}={'x' * 201}", ""),
        (f"x{COOKIE}=b; {COOKIE.lower()}=c", ""),
        ("", ""),
    ],
)
def test_one_cookie_is_handed_on_and_no_other(sent: str, handed: str) -> None:
    edge = Edge({**OPEN, "cookie": COOKIE})
    edge.ask("GET", "/open", token="", cookie=sent)
    (request,) = edge.behind.handed
    assert (request.cookie, list(request.headers)) == (handed, [])


def test_a_cookie_goes_out_for_this_host_alone_and_out_of_reach_of_scripts() -> None:
    edge = Edge({**OPEN, "cookie": COOKIE})
    assert "set-cookie" not in edge.ask("GET", "/open", token="")[1]
    edge.behind.answer.cookie.CopyFrom(forward_pb2.HttpCookie(value="abc", max_age_seconds=60))
    kept = edge.ask("GET", "/open", token="")[1]["set-cookie"]
    assert kept == f"{COOKIE}=abc; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=None"
    edge.behind.answer.cookie.value = "abc; Domain=example.com"
    assert edge.ask("GET", "/open", token="")[0] == 500
    # Where the rule names none, none is set.
    other = Edge(OPEN)
    other.behind.answer.cookie.CopyFrom(forward_pb2.HttpCookie(value="abc"))
    assert "set-cookie" not in other.ask("GET", "/open", token="")[1]


def test_a_status_that_is_none_is_our_fault() -> None:
    edge = Edge(READS)
    edge.behind.answer.status = 0
    assert edge.ask("GET", "/scim/v2/Users")[0] == 500


@pytest.mark.parametrize(
    ("status", "request_", "headers"),
    [
        (401, ("GET", "/scim/v2/Users", b"", ""), {}),
        (401, ("GET", "/scim/v2/Users", b"", "x" * 8193), {}),
        (405, ("PUT", "/scim/v2/Users/1"), {}),
        (413, ("POST", "/scim/v2/Users", b"x" * 1001), {"content_type": "application/json"}),
        (415, ("POST", "/scim/v2/Users", b"<a/>"), {"content_type": "application/xml"}),
        (415, ("POST", "/scim/v2/Users", b"{}"), {"content_type": "application/json; charset=utf-16"}),
        (400, ("GET", f"/scim/v2/{'x' * 8192}"), {}),
        (400, ("GET", "/scim/v2/Users?filter=%ff"), {}),
        (400, ("GET", "/scim/v2/Users"), {"if_match": "x" * 8193}),
        (413, ("GET", f"/scim/v2/Users?{'&'.join(['a=1'] * 101)}"), {}),
    ],
)
def test_a_refusal_before_the_service_is_written_as_scim_has_it(
    status: int, request_: tuple[Any, ...], headers: dict[str, str]
) -> None:
    document = Edge(READS, WRITES).refused(status, *request_, **headers)
    assert ("www-authenticate" in document["headers"]) == (status == 401)
    assert document["headers"].get("allow") == ("GET, PATCH, POST" if status == 405 else None)


def test_a_problem_of_the_service_is_written_as_scim_has_it_too() -> None:
    edge = Edge(READS)
    edge.behind.problem = NotFound("user")
    status, headers, document = edge.ask("GET", "/scim/v2/Users/1")
    assert (status, headers["content-type"], document["detail"]) == (404, "application/scim+json", "No such user.")


def test_other_paths_keep_their_problem_documents() -> None:
    edge = Edge(READS)
    for path in ("/scim/v2x", "/scim", "/other"):
        status, headers, _ = edge.ask("GET", path)
        assert (status, headers["content-type"]) == (404, "application/problem+json")


def test_who_is_never_let_in_waits_and_who_was_goes_on() -> None:
    edge = Edge(READS, stranger_burst=3)
    assert edge.ask("GET", "/scim/v2/Users", token="known")[0] == 200
    edge.behind.problem = Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_INVALID, "No.")
    assert [edge.ask("GET", "/scim/v2/Users", token=f"guess{n}")[0] for n in range(4)] == [401, 401, 401, 429]
    document = edge.refused(429, "GET", "/scim/v2/Users", b"", "guess5")
    assert int(document["headers"]["retry-after"]) >= 1
    edge.behind.problem = None
    assert edge.ask("GET", "/scim/v2/Users", token="known")[0] == 200


def test_each_token_has_a_budget_of_its_own() -> None:
    edge = Edge(READS, read_burst=2, reads_a_second=0.1)
    assert [edge.ask("GET", "/scim/v2/Users", token="a")[0] for _ in range(3)] == [200, 200, 429]
    assert edge.ask("GET", "/scim/v2/Users", token="b")[0] == 200


def test_what_needs_no_credential_hands_none_on_and_counts_failures_by_address() -> None:
    edge = Edge(OPEN, stranger_burst=2)
    assert edge.ask("GET", "/open/x")[0] == 200
    assert edge.behind.handed[-1].bearer_token == ""
    edge.behind.answer.status = 400
    assert [edge.ask("GET", "/open/x")[0] for _ in range(3)] == [400, 400, 429]


def test_the_longer_prefix_serves() -> None:
    edge = Edge(READS, {**READS, "prefix": "/scim/v2/inner"})
    assert edge.ask("GET", "/scim/v2/inner/x")[0] == 200
    assert edge.behind.handed[-1].path == "/x"


@pytest.mark.parametrize(
    "change",
    [
        {"prefix": "/scim/v2/"},
        {"prefix": "scim"},
        {"methods": []},
        {"methods": ["TRACE"]},
        {"max_body_bytes": 3_000_000},
        {"media_types": []},
        {"errors": "FORWARD_ERRORS_UNSPECIFIED"},
        {"credential": "UNSPECIFIED"},
        {"request_headers": ["authorization"]},
        {"response_headers": ["set-cookie"]},
        {"cookie": "session"},
        {"response_headers": ["content-security-policy"]},
    ],
    ids=str,
)
def test_a_rule_that_is_wrong_does_not_start(change: dict[str, Any]) -> None:
    wrong = service({**WRITES, **change})
    assert len(faults([wrong])) == 1
    with pytest.raises(RouteError):
        Router([("identity", wrong)])


def test_only_peers_are_handed_http_and_only_in_its_own_messages() -> None:
    assert faults([service(READS)]) == []
    assert "which only PEER scope may" in faults([service(READS, scope=access_pb2.SCOPE_PUBLIC)])[0]
    assert "doesn't take `HttpRequest http`" in faults([service(READS, takes="HttpHeader")])[0]


@pytest.mark.parametrize(
    "forwards",
    [
        (READS, READS),
        (READS, {**WRITES, "errors": "FORWARD_ERRORS_PROBLEM"}),
        ({**READS, "prefix": "/v1"},),
        ({**READS, "prefix": "/v1/organizations/x/scans"},),
        ({**READS, "prefix": "/healthz"},),
        ({**READS, "prefix": "/.well-known"},),
    ],
    ids=str,
)
def test_two_for_one_request_do_not_start(forwards: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(RouteError):
        Router([SCANNER, ("identity", service(*forwards))])
    Router([SCANNER, ("identity", service(READS, WRITES))])
