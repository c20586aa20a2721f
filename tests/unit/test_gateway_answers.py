"""Whatever comes, and whatever fails: the edge answers with a problem document, under its headers, and counts it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, MutableMapping
from typing import Any
from uuid import uuid4

import pytest
import uvicorn
from uvicorn.server import ServerState

from recoup.scanner.v1 import scanner_service_pb2
from services._mesh.metrics import Metrics
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.exchange import SECURITY_HEADERS, Send
from services.gateway.passports import Issued
from services.gateway.protocol import EdgeProtocol
from services.gateway.routes import Router
from tests.support.things import linked_passport

ORG = "3dcd07a2-aef7-54d0-b11c-6638c1b15e53"
SCANS = f"/v1/organizations/{ORG}/scans"
ROUTER = Router([("scanner", scanner_service_pb2.DESCRIPTOR.services_by_name["ScannerService"])])
PASSED_ON = "passed on"


class Nowhere:
    """A channel and a passport office in one; a request that gets as far as its call was accepted by the edge."""

    def unary_unary(self, *_names: Any, **_codecs: Any) -> Any:
        """Fails as something unforeseen, once it is called."""

        async def call(*_request: Any, **_how: Any) -> Any:
            raise RuntimeError(PASSED_ON)

        return call

    unary_stream = unary_unary

    def knows(self, _session: str) -> bool:
        """Everybody is known."""
        return True

    async def passport(self, *_for: str) -> Issued:
        """For everybody."""
        return Issued("a passport", linked_passport(uuid4()))


class Answers:
    """A gateway with nothing behind it, and what it answered."""

    def __init__(self, **settings: Any) -> None:
        self.metrics = Metrics()
        nowhere: Any = Nowhere()
        self.gateway = Gateway(
            ROUTER,
            nowhere,
            lambda _: nowhere,
            EdgeSettings(listen="127.0.0.1:0", **settings),
            self.metrics,
            lambda: True,
            {},
        )

    def ask(
        self, method: str = "GET", path: str = SCANS, query: bytes = b"", body: bytes | None = b"", **more: Any
    ) -> tuple[int, dict[bytes, bytes], Any]:
        """The status, the headers and the document; `body` None never arrives."""
        session = more.pop("session", b"Bearer x")
        headers = list(more.pop("headers", ()))
        if b"content-type" not in dict(headers):
            headers.append((b"content-type", b"application/json"))
        headers += [(b"authorization", session)] if session else []
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": query}
        return asyncio.run(self._asked({**scope, "headers": headers, "client": ("127.0.0.1", 1), **more}, body))

    async def _asked(self, scope: Mapping[str, Any], body: bytes | None) -> tuple[int, dict[bytes, bytes], Any]:
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            if body is None:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        await self.gateway(scope, receive, send)
        start, end = sent
        return start["status"], dict(start["headers"]), json.loads(end["body"])

    def refused(self, status: int, reason: str, **request: Any) -> dict[str, Any]:
        """The problem document of a refused request, if it is all that the edge promises."""
        got, headers, document = self.ask(**request)
        assert (got, document["status"], document["reason"]) == (status, status, reason), document
        assert headers[b"content-type"] == b"application/problem+json"
        assert set(SECURITY_HEADERS) <= set(headers.items())
        assert headers[b"x-request-id"].decode() == document["requestId"]
        assert re.search(rf'recoup_http_total\{{route="[^"]+",status="{status}"\}} 1\n', self.metrics.render())
        found: dict[str, Any] = document
        return found


MANY = b"&".join([b"a=1"] * 1001)


@pytest.mark.parametrize("path", [SCANS, "/healthz", "/nowhere"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_too_many_parameters_are_too_large_on_any_path_and_without_a_session(method: str, path: str) -> None:
    document = Answers().refused(413, "TOO_LARGE", method=method, path=path, query=MANY, session=b"")
    assert document["metadata"] == {"limit": "100"}
    assert document["violations"][0]["field"] == "(query)"


@pytest.mark.parametrize("path", [SCANS, "/healthz"])
@pytest.mark.parametrize("query", [b"a=%ff", b"a=\xff"])
def test_a_query_that_is_not_utf8_is_refused(path: str, query: bytes) -> None:
    assert Answers().refused(400, "FIELD_INVALID", path=path, query=query)["violations"][0]["field"] == "(query)"


def test_a_path_that_is_not_utf8_is_refused() -> None:
    document = Answers().refused(400, "FIELD_INVALID", path="/v1/organizations/%ff/scans")
    assert document["violations"][0]["field"] == "(path)"


def test_an_organization_that_can_not_be_one_is_named() -> None:
    document = Answers().refused(400, "FIELD_INVALID", path="/v1/organizations/a%00b/scans")
    assert document["violations"][0]["field"] == "organization_id"


@pytest.mark.parametrize("body", [b'{"\\ud800": 1}', b'{"connectionId": "\\ud800"}', b'{"\\ud800": 1, "\\ud800": 2}'])
def test_an_unpaired_surrogate_gets_an_answer_that_can_be_sent(body: bytes) -> None:
    status, _, document = Answers().ask("POST", body=body)
    assert (status, document["reason"]) in ((400, "FIELD_UNKNOWN"), (400, "FIELD_INVALID"))


@pytest.mark.parametrize("length", [b"9" * 5000, b"999999999", b"1" + b"0" * 20])
def test_a_declared_length_of_any_size_is_too_large(length: bytes) -> None:
    Answers().refused(413, "TOO_LARGE", method="POST", headers=[(b"content-length", length)])


def test_a_body_that_does_not_arrive_ends_with_the_time_of_a_call() -> None:
    Answers(call_seconds=0.05).refused(408, "REQUEST_TOO_SLOW", method="POST", body=None)


def test_the_key_of_a_repeated_request_is_the_same_in_upper_case() -> None:
    key = "0191f2a4-7a52-7d0e-9c3b-aabbccddeeff"
    body = json.dumps({"connectionId": "c", "requestId": key}).encode()
    same = [(b"idempotency-key", key.upper().encode())]
    assert Answers().ask("POST", body=body, headers=same)[2]["reason"] == "INTERNAL"  # Accepted: see Nowhere.
    document = Answers().refused(
        400, "FIELD_INVALID", method="POST", body=body, headers=[(b"idempotency-key", key.replace("0", "1").encode())]
    )
    assert document["violations"][0]["field"] == "request_id"


@pytest.mark.parametrize(
    "broken",
    [
        {"headers": [(b"a", None)]},
        {"query_string": None},
        {"client": 5},
        {"raw_path": 5},
    ],
)
def test_what_nobody_foresaw_is_internal_with_its_trace(broken: dict[str, Any]) -> None:
    document = Answers().refused(500, "INTERNAL", **broken)
    assert len(document["metadata"]["trace_id"]) == 32
    assert document["metadata"]["trace_id"] == document["traceId"]


def test_a_failure_after_the_answer_began_is_not_answered_twice() -> None:
    begun = []

    async def send(message: MutableMapping[str, Any]) -> None:
        begun.append(message)
        raise ConnectionResetError

    async def ask(send: Send) -> None:
        scope = {"type": "http", "method": "GET", "path": "/healthz", "query_string": b"", "headers": []}
        await Answers().gateway(scope, asyncio.Event().wait, send)  # type: ignore[arg-type]

    with pytest.raises(ConnectionResetError):
        asyncio.run(ask(send))
    assert len(begun) == 1


NO_REQUEST = (b"nonsense\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\na b: c\r\n\r\n")
LARGE = b"x" * 3000
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
TRAILER = b"\r\n0\r\na: "


@pytest.mark.parametrize(
    ("pieces", "status", "field"),
    [
        *(([raw], 400, "(request)") for raw in NO_REQUEST),
        ([b"GET / HTTP/1.1\r\na: " + LARGE + b"\r\n\r\n"], 431, "(headers)"),
        ([b"GET / HTTP/1.1\r\n", *[b"a: b\r\n"] * 3000], 431, "(headers)"),
        ([b"GET /" + LARGE + b" HTTP/1.1\r\na: b\r\n\r\n"], 431, "(headers)"),
        # One that never ends: it is refused before all of it came.
        ([b"GET / HTTP/1.1\r\na: ", LARGE, LARGE], 431, "(headers)"),
        # The same behind a body; what a chunk brings is none of it, be it alone in its packet.
        ([CHUNKED, b"bb8\r\n", LARGE, TRAILER, LARGE], 431, "(headers)"),
    ],
    ids=["nonsense", "path", "name", "header", "headers", "url", "endless", "trailers"],
)
def test_bytes_that_are_no_request_or_too_many_get_a_problem_too(pieces: list[bytes], status: int, field: str) -> None:
    answers = Answers(header_bytes=2048)

    async def ask() -> bytes:
        config = uvicorn.Config(answers.gateway, http=EdgeProtocol, ws="none", lifespan="off", log_config=None)
        config.load()
        transport = Written()
        protocol = EdgeProtocol(config, ServerState(), {})
        protocol.connection_made(transport)
        for piece in pieces:
            assert piece is not TRAILER or not transport.is_closing()
            if not transport.is_closing():
                protocol.data_received(piece)
        assert transport.is_closing()
        return transport.written

    top, _, body = asyncio.run(ask()).partition(b"\r\n\r\n")
    said, *lines = top.split(b"\r\n")
    assert said.split()[1] == str(status).encode()
    headers = {tuple(line.split(b": ", 1)) for line in lines}
    assert {*SECURITY_HEADERS, (b"content-type", b"application/problem+json")} <= headers
    document = json.loads(body)
    reason = {400: "FIELD_INVALID", 431: "HEADERS_TOO_LARGE"}[status]
    assert (document["reason"], document["violations"][0]["field"]) == (reason, field)
    assert f'recoup_http_total{{route="none",status="{status}"}} 1' in answers.metrics.render()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ((b"content-encoding", b"br"), "with one Content-Encoding of zstd, gzip"),
        ((b"content-type", b'application/json; charset="latin-1"'), "UTF-8"),
    ],
    ids=["coding", "charset"],
)
def test_a_body_is_as_it_is_and_utf8(header: tuple[bytes, bytes], said: str) -> None:
    document = Answers().refused(415, "MEDIA_TYPE_UNSUPPORTED", method="POST", body=b"{}", headers=[header])
    assert said in document["detail"]


class Written(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self._closing = b"", False

    def write(self, data: Any) -> None:
        """Keep it."""
        self.written += bytes(data)

    def close(self) -> None:
        """Nothing more is written."""
        self._closing = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """All is taken."""

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closing
