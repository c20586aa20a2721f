"""A stream goes out as lines of JSON or as events, ends with its caller, and says what went wrong on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass

from services._mesh.errors import Reason, Unavailable
from services._mesh.metrics import Metrics
from services.gateway.app import Gateway
from services.gateway.config import EdgeSettings
from services.gateway.exchange import SECURITY_HEADERS
from services.gateway.routes import Router
from tests.support.transcoding import descriptors

PROTO = descriptors("everything.proto")
Everything = GetMessageClass(PROTO.message_types_by_name["Everything"])
ROUTER = Router([("test", PROTO.services_by_name["EchoService"])])


class Streams:
    """A channel whose stream gives numbers, and then ends, fails or waits; and what the edge sent of it."""

    def __init__(self, *numbers: int, failure: Exception | None = None, waits: bool = False, **settings: Any) -> None:
        self._numbers, self._failure, self._waits = numbers, failure, waits
        self.cancelled = asyncio.Event()
        self.left = asyncio.Event()
        self.sent: list[MutableMapping[str, Any]] = []
        here: Any = self
        limits = EdgeSettings(listen="127.0.0.1:0", **settings)
        self.gateway = Gateway(ROUTER, here, lambda _: here, limits, Metrics(), lambda: True, {})

    def unary_unary(self, *_names: Any, **_codecs: Any) -> None:
        """Nothing of that kind is called here."""

    def unary_stream(self, *_names: Any, **_codecs: Any) -> Any:
        """Each call is this one."""
        return lambda *_request, **_how: self

    def cancel(self) -> None:
        """The edge wants no more of it."""
        self.cancelled.set()

    async def __aiter__(self) -> AsyncIterator[Any]:
        for number in self._numbers:
            yield Everything(int32=number)
        if self._failure is not None:
            raise self._failure
        if self._waits:
            await self.cancelled.wait()

    async def ask(self, accept: str = "", method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
        """The status, headers and body of the whole stream."""
        scope = {
            "type": "http",
            "method": method,
            "path": "/v1/repeat/1",
            "query_string": b"",
            "client": ("127.0.0.1", 1),
        }
        came = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> MutableMapping[str, Any]:
            message = next(came, None)
            if message is None:
                await self.left.wait()
                return {"type": "http.disconnect"}
            return message

        async def send(message: MutableMapping[str, Any]) -> None:
            self.sent.append(message)

        await self.gateway({**scope, "headers": [(b"accept", accept.encode())]}, receive, send)
        start, *pieces = self.sent
        return start["status"], dict(start["headers"]), b"".join(piece.get("body", b"") for piece in pieces)


LOST = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "gone")
BUSY = Unavailable(Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE, "Later.", {"dependency": "test"})


async def test_a_stream_is_lines_of_json() -> None:
    streams = Streams(1, 2, 3)
    status, headers, body = await streams.ask()
    assert (status, headers[b"content-type"]) == (200, b"application/x-ndjson")
    assert (b"content-length" in headers, headers[b"vary"]) == (False, b"accept")
    assert set(SECURITY_HEADERS) <= set(headers.items())
    assert [json.loads(line)["int32"] for line in body.splitlines()] == [1, 2, 3]
    assert streams.cancelled.is_set()


@pytest.mark.parametrize(
    "accept",
    [
        *("text/event-stream;q=0", "*/*", "text/*", "text/event-stream;q=0, application/x-ndjson"),
        *("application/x-ndjson, text/event-stream;q=0.9", "text/event-stream;q=0.4;x=y, application/x-ndjson;q=0.5"),
    ],
)
async def test_a_stream_is_lines_for_who_likes_them_better(accept: str) -> None:
    assert (await Streams(1).ask(accept))[1][b"content-type"] == b"application/x-ndjson"


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json, Text/Event-Stream;q=0.9"])
async def test_a_stream_is_events_for_who_accepts_those(accept: str) -> None:
    status, headers, body = await Streams(1, 2).ask(accept)
    assert (status, headers[b"content-type"]) == (200, b"text/event-stream")
    events = body.decode().split("\n\n")
    assert events.pop() == ""
    assert [json.loads(event.removeprefix("data: "))["int32"] for event in events] == [1, 2]


async def test_what_refuses_a_stream_is_a_problem_and_what_breaks_it_its_last_word() -> None:
    status, headers, body = await Streams(failure=LOST).ask()
    assert (status, headers[b"content-type"]) == (503, b"application/problem+json")
    _, _, body = await Streams(1, failure=LOST).ask()
    *lines, last = map(json.loads, body.splitlines())
    assert len(lines) == 1
    assert (last["error"]["status"], last["error"]["reason"]) == (503, "DEPENDENCY_UNAVAILABLE")
    _, _, body = await Streams(1, failure=BUSY).ask("text/event-stream")
    last_event = body.decode().split("\n\n")[1]
    assert last_event.startswith("event: problem\ndata: {")
    # Of what nobody foresaw nothing is said.
    _, _, body = await Streams(1, failure=KeyError("secret")).ask()
    assert json.loads(body.splitlines()[-1])["error"]["reason"] == "INTERNAL"
    assert b"secret" not in body


async def test_a_stream_ends_with_its_caller() -> None:
    streams = Streams(1, waits=True)
    asked = asyncio.create_task(streams.ask())
    while len(streams.sent) < 2:
        await asyncio.sleep(0)
    assert not streams.cancelled.is_set()
    streams.left.set()
    await asyncio.wait_for(asked, 10)
    assert streams.cancelled.is_set()


@pytest.mark.parametrize("limit", ["concurrent_streams", "organization_streams"])
async def test_more_streams_than_there_may_be_are_told_to_wait(limit: str) -> None:
    streams = Streams(1, waits=True, **{limit: 1})
    asked = asyncio.create_task(streams.ask())
    while len(streams.sent) < 2:
        await asyncio.sleep(0)
    before = len(streams.sent)
    other = asyncio.create_task(streams.ask())
    while len(streams.sent) < before + 2:
        await asyncio.sleep(0)
    start = streams.sent[before]
    assert (start["status"], dict(start["headers"])[b"retry-after"]) == (503, b"1")
    streams.left.set()
    await asyncio.wait_for(asyncio.gather(asked, other), 10)
    assert not streams.gateway._streams


async def test_the_head_of_a_stream_has_none_of_it() -> None:
    streams = Streams(1, waits=True)
    status, headers, body = await asyncio.wait_for(streams.ask(method="HEAD"), 10)
    assert (status, headers[b"content-type"], body) == (200, b"application/x-ndjson", b"")
    assert streams.cancelled.is_set()
