"""A request over HTTP/2 is answered as over HTTP/1.1, within the same limits, and whoever is slow holds nothing up."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from uvicorn.server import ServerState

from services.gateway.exchange import SECURITY_HEADERS
from tests.support.edge import SCANS, STREAM, Behind
from tests.support.http2 import WHO, Answer, Peer, frame, peer

PING, GOAWAY = 0x6, 0x7


def problem(answer: Answer, status: int, reason: str) -> None:
    assert (answer.status, json.loads(answer.body)["reason"]) == (status, reason)
    assert set(SECURITY_HEADERS) <= set(answer.headers.items())
    assert answer.headers[b"content-type"] == b"application/problem+json"


async def test_requests_are_answered_side_by_side() -> None:
    behind = Behind()
    behind.go.clear()
    async with peer(behind) as one:
        waits = one.ask(SCANS, headers=WHO)
        answer = await one.answer(one.ask())
        assert (answer.status, answer.body, answer.is_whole) == (200, b'{"status":"ok"}', True)
        assert set(SECURITY_HEADERS) <= set(answer.headers.items())
        assert one.answers[waits].status == 0
        behind.go.set()
        assert (await one.answer(waits)).status == 200
        head = await one.answer(one.ask(method="HEAD"))
        assert (head.status, head.headers[b"content-length"], head.body, head.is_whole) == (200, b"15", b"", True)
        assert (await one.answer(one.ask(SCANS, "OPTIONS"))).status == 204


async def test_no_log_however_fine_has_what_a_caller_shows(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    async with peer() as one:
        answer = await one.answer(one.ask(SCANS, headers=((b"authorization", b"Bearer somebodys-secret"),)))
        assert answer.status == 200
    assert "somebodys-secret" not in caplog.text


async def test_a_body_in_pieces_is_read_and_its_trailers_say_nothing() -> None:
    behind = Behind()
    async with peer(behind) as one:
        number = one.ask(SCANS, "POST", (*WHO, (b"expect", b"100-continue")), body=b"")
        await one.settle()
        assert one.answers[number].hints == [100]
        for piece in (b"{", b"}"):
            one.h2.send_data(number, piece)
            one.say()
            await one.settle()
        one.h2.send_headers(number, [(b"recoup-passport", b"x"), (b"idempotency-key", b"y")], end_stream=True)
        one.say()
        assert (await one.answer(number)).status == 200
        number = one.ask(SCANS, "POST", WHO, body=b"")  # All at once, before anybody looked at its head.
        one.h2.send_headers(number, [(b"authorization", b"Bearer of somebody else")], end_stream=True)
        one.say()
        assert (await one.answer(number)).status == 200
    assert [name for name, _ in behind.metadata] == ["authorization", "recoup-request-id", "traceparent"]


@pytest.mark.parametrize("length", [(), ((b"content-length", b"999999"),)], ids=["unsaid", "said"])
async def test_a_body_that_is_too_large_is_refused_and_the_rest_is_read_for_a_while(length: Any) -> None:
    async with peer(body_bytes=1024, head_seconds=0.5) as one:
        number = one.ask(SCANS, "POST", (*WHO, *length), body=b"")
        for _ in range(6):
            one.h2.send_data(number, b" " * 16_000)
            one.say()
            await one.settle()
        problem(await one.answer(number), 413, "TOO_LARGE")
        assert one.answers[number].reset is None
        await until(lambda: one.answers[number].reset == ErrorCodes.NO_ERROR, one)


async def test_a_body_that_never_ends_has_its_time() -> None:
    async with peer(call_seconds=0.05) as one:
        number = one.ask(SCANS, "POST", WHO, body=b"")
        problem(await one.answer(number), 408, "REQUEST_TOO_SLOW")


@pytest.mark.parametrize(
    ("said", "ends"), [(b"3", True), (b"1", True), (b"1", False)], ids=["less", "more", "more yet"]
)
async def test_a_body_of_another_length_than_was_said_ends_its_stream_alone(said: bytes, ends: bool) -> None:
    behind = Behind()
    behind.go.clear()
    async with peer(behind) as one:
        other = one.ask(SCANS, headers=WHO)
        number = one.ask(SCANS, "POST", (*WHO, (b"content-length", said)), body=b"")
        one.h2.send_data(number, b"{}", end_stream=ends)
        one.say()
        answer = await one.answer(number)
        assert (answer.status, answer.reset) == (0, ErrorCodes.PROTOCOL_ERROR)
        behind.go.set()
        assert (await one.answer(other)).status == 200
    assert behind.running == 0


async def test_a_bad_head_is_refused_and_ends_nothing_else() -> None:
    async with peer() as one:
        for bad in ((b"transfer-encoding", b"chunked"), (b"X", b"y"), (b"x", b"a\r\nb: c"), (b"host", b"y")):
            problem(await one.answer(one.ask(headers=(bad,))), 400, "FIELD_INVALID")
        problem(await one.answer(one.ask("/" + "x" * 2000)), 404, "ROUTE_NOT_FOUND")
        assert (await one.answer(one.ask())).status == 200
    assert one.farewells == []


async def test_a_head_that_is_too_large_is_refused() -> None:
    async with peer(header_bytes=2048, header_count=10) as one:
        for much in (((b"x", b"y" * 2048),), ((b"x", b"y"),) * 11):
            problem(await one.answer(one.ask(headers=much)), 431, "HEADERS_TOO_LARGE")
        assert (await one.answer(one.ask())).status == 200


async def test_beyond_the_number_of_connections_nobody_is_served() -> None:
    state = ServerState()
    async with peer(state=state, connections=2) as one:
        assert (await one.answer(one.ask())).status == 200
        async with peer(state=state, connections=2) as other:
            both = [other.ask(), other.ask(method="HEAD")]
            answer, head = [await other.answer(each) for each in both]
            problem(answer, 503, "DEPENDENCY_UNAVAILABLE")
            assert answer.headers[b"retry-after"] == b"1"
            assert (head.status, head.body, head.is_whole) == (503, b"", True)
            await until_closed(other)
        assert (await one.answer(one.ask())).status == 200


async def test_a_stream_too_many_is_refused_and_may_be_asked_again() -> None:
    behind = Behind()
    behind.go.clear()
    async with peer(behind, connection_streams=3) as one:
        assert one.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] == 3
        one.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 100
        one.h2.remote_settings.acknowledge()
        first = [one.ask(SCANS, headers=WHO) for _ in range(3)]
        refused = await one.answer(one.ask(SCANS, headers=WHO))
        assert (refused.status, refused.reset) == (0, ErrorCodes.REFUSED_STREAM)
        assert behind.running == 3
        behind.go.set()
        assert [(await one.answer(each)).status for each in first] == [200, 200, 200]
        assert (await one.answer(one.ask(SCANS, headers=WHO))).status == 200


async def test_an_answer_waits_for_the_window_of_its_caller() -> None:
    async with peer(call_seconds=0.7) as one:
        one.takes = False
        one.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
        one.say()
        opened, closed = one.ask(), one.ask()
        await one.settle()
        assert [one.answers[each].body for each in (opened, closed)] == [b'{"status":'] * 2
        assert one.wire.written == b""  # What has to wait isn't written anywhere.
        one.h2.increment_flow_control_window(5, opened)
        one.say()
        assert (await one.answer(opened)).body == b'{"status":"ok"}'
        answer = await one.answer(closed)
        assert (answer.is_whole, answer.reset) == (False, ErrorCodes.INTERNAL_ERROR)
        assert one.state.tasks == set()
        assert one.farewells == []


async def test_a_body_that_nobody_takes_yet_is_kept_within_the_window() -> None:
    class Undecided(Behind):
        async def choose(self, *_for: str) -> str:
            """The organization, once it may be known."""
            await self.go.wait()
            return SCANS.split("/")[3]

    behind = Undecided()
    behind.go.clear()
    async with peer(behind) as one:
        number = one.ask("/v1/organizations/-/scans", "POST", WHO, body=b"")
        for _ in range(4):
            one.h2.send_data(number, b" " * min(16_384, one.h2.local_flow_control_window(number)))
            one.say()
            await one.settle()
        assert one.h2.local_flow_control_window(number) == 0
        assert (await one.answer(one.ask())).status == 200
        behind.go.set()
        await one.settle()
        assert one.h2.local_flow_control_window(number) > 0
        one.h2.send_data(number, b"{}", end_stream=True)
        one.say()
        assert (await one.answer(number)).status == 200


async def test_who_does_not_read_is_not_read_and_is_ended_in_time() -> None:
    async with peer(call_seconds=0.2) as one:
        one.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**24})
        one.h2.increment_flow_control_window(2**24)
        one.say()
        await one.settle()
        one.reads = False
        one.ask("/openapi.json")
        await one.settle()
        assert not one.wire.is_read
        assert len(one.wire.written) < 100_000  # Of some hundred thousand more.
        await until(lambda: one.wire.aborted, one)


async def test_who_reads_slowly_gets_all() -> None:
    async with peer() as one:
        one.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2**24})
        one.h2.increment_flow_control_window(2**24)
        one.say()
        answer = await one.answer(one.ask("/openapi.json"))
        assert len(answer.body) == int(answer.headers[b"content-length"]) > 200_000
        assert one.wire.is_read


async def test_a_stream_of_answers_ends_with_its_caller() -> None:
    class Watched(Behind):
        """Streams whose end is seen."""

        ended = 0

        def unary_stream(self, *names: Any, **codecs: Any) -> Any:
            made = super().unary_stream(*names, **codecs)

            def call(*request: Any, **how: Any) -> Any:
                found = made(*request, **how)
                found.cancel = self._cancelled
                return found

            return call

        def _cancelled(self) -> None:
            self.ended += 1

    behind = Watched()
    async with peer(behind, reads_a_second=1000.0) as one:
        events = one.ask(STREAM, headers=((b"accept", b"text/event-stream"),))
        lines = one.ask(STREAM)
        await one.settle()
        assert one.answers[events].headers[b"content-type"] == b"text/event-stream"
        assert one.answers[events].body.startswith(b"data: {")
        assert one.answers[lines].body.endswith(b"}\n")
        assert b"content-length" not in one.answers[lines].headers
        one.h2.reset_stream(events, ErrorCodes.CANCEL)
        one.say()
        await until(lambda: behind.ended == 1, one)
        assert not one.answers[lines].is_whole
        await one.settle()
    await until(lambda: behind.ended == 2, one)
    assert one.state.tasks == set() == one.state.connections


@pytest.mark.parametrize("begins", [False, True], ids=["says nothing", "asks nothing"])
async def test_who_asks_nothing_is_ended_in_time_whatever_they_say(begins: bool) -> None:
    async with peer(begins=begins, head_seconds=0.3) as one:
        if begins:
            assert (await one.answer(one.ask())).status == 200
        async with asyncio.timeout(5):
            while not one.wire.closed:
                one.tell(frame(PING, content=b"12345678") if begins else b"")
                await asyncio.sleep(0.02)
                await one.settle()
        assert [code for _, code, _ in one.farewells] == [ErrorCodes.NO_ERROR]


async def test_a_head_that_never_ends_has_its_time_beside_a_request_that_runs() -> None:
    behind = Behind()
    behind.go.clear()
    async with peer(behind, head_seconds=0.3) as one:
        one.ask(SCANS, headers=WHO)
        await asyncio.sleep(0.4)  # One that runs has its own time.
        assert not one.wire.closed
        one.tell(frame(0x1, 3, b"\x82"))
        async with asyncio.timeout(5):
            while not one.wire.closed:
                one.tell(frame(0x9, 3, b"\x84"))
                await asyncio.sleep(0.05)
                await one.settle()
        assert one.farewells == [(1, ErrorCodes.ENHANCE_YOUR_CALM, b"a head took too long")]


async def test_who_says_goodbye_is_answered_first() -> None:
    behind = Behind()
    behind.go.clear()
    async with peer(behind) as one:
        number = one.ask(SCANS, headers=WHO)
        one.tell(frame(GOAWAY, content=bytes(8)))
        await one.settle()
        assert not one.wire.closed
        behind.go.set()
        assert (await one.answer(number)).status == 200
        await until_closed(one)


HIGHEST = 2**31 - 1


async def test_a_connection_ends_with_what_runs_when_the_process_is_to_end() -> None:
    behind = Behind()
    behind.go.clear()
    async with peer(behind) as one, peer() as idle:
        both = [one.ask(SCANS, headers=WHO) for _ in range(2)]
        await one.settle()
        one.gateway.leave()
        assert (await one.answer(one.ask("/readyz"))).status == 503  # Who has something to wait for may still ask.
        assert one.farewells == []
        behind.go.set()
        assert [(await one.answer(each)).status for each in both] == [200, 200]
        assert one.farewells == [(HIGHEST, 0, b""), (5, 0, b""), (5, 0, b"")]
        assert one.wire.closed
        idle.server.shutdown()
        await idle.settle()
        assert idle.farewells[0] == (HIGHEST, 0, b"")
        assert idle.wire.closed


async def test_what_was_sent_before_the_end_was_heard_of_is_answered() -> None:
    behind = Behind()
    behind.go.clear()
    async with peer(behind) as one:
        first = one.ask(SCANS, headers=WHO)
        await one.settle()
        one.server.shutdown()
        one.reads = False
        behind.go.set()
        await one.settle()
        assert b"\x7f\xff\xff\xff\x00\x00\x00\x00" in one.wire.written  # It is said, and isn't heard yet.
        behind.go.clear()
        second = one.ask(SCANS, headers=WHO)
        await one.settle()
        one.reads = True
        await one.settle()
        late = one.ask(SCANS, headers=WHO)
        assert (await one.answer(late)).reset == ErrorCodes.REFUSED_STREAM  # It may be asked elsewhere.
        behind.go.set()
        assert [(await one.answer(each)).status for each in (first, second)] == [200, 200]
        assert (second, 0, b"") in one.farewells
        assert one.wire.closed


async def test_who_does_not_answer_is_not_waited_for_when_the_process_ends() -> None:
    behind = Behind()
    behind.go.clear()
    async with peer(behind) as one, peer() as idle:
        one.ask(SCANS, headers=WHO)
        await one.settle()
        one.reads = idle.reads = False
        one.server.shutdown()
        idle.server.shutdown()
        await until(lambda: idle.wire.closed and one.wire.written.count(bytes((0, 0, 8, GOAWAY))) == 2, one)
        assert not one.wire.closed
        behind.go.set()
        await until_closed(one)


async def until_closed(one: Peer) -> None:
    await until(lambda: one.wire.closed, one)


async def until(condition: Any, one: Peer) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)
            await one.settle()
