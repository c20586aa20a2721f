"""What is nearly free to send over HTTP/2 and not to be read ends the connection, within bounds, and no other one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.config import EdgeSettings
from services.gateway.http2.frames import PREFACE, Budget, Excess, Meter
from tests.support.edge import SCANS, STREAM, Behind, gateway
from tests.support.http2 import WHO, Peer, frame, peer

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8
CALM = ErrorCodes.ENHANCE_YOUR_CALM


def head(
    number: int, path: bytes = b"/healthz", *, ends: bool = True, ends_head: bool = True, repeated: int = 0
) -> bytes:
    """A request that no table is needed for."""
    fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"x"), (b":path", path), WHO[0]]
    fields += [(b"x", path)] * repeated
    content = b"".join(bytes((0, len(name))) + name + bytes((len(value),)) + value for name, value in fields)
    return frame(HEADERS, number, content, ends * END_STREAM | ends_head * END_HEADERS)


FLOODS: dict[str, Callable[[int], bytes]] = {
    "settings": lambda _: frame(SETTINGS),
    "settings that were never sent": lambda _: frame(SETTINGS, flags=0x1),
    "pings": lambda _: frame(PING, content=b"12345678"),
    "answers to pings": lambda _: frame(PING, content=b"12345678", flags=0x1),
    "priorities": lambda n: frame(PRIORITY, 2 * n + 101, bytes(4) + b"\x0f"),
    "windows": lambda _: frame(WINDOW_UPDATE, content=b"\x00\x00\x00\x01"),
    "windows of a stream": lambda _: frame(WINDOW_UPDATE, 1, b"\x00\x00\x00\x01"),
    "empty data": lambda _: frame(DATA, 1),
    "nothing but padding": lambda _: frame(DATA, 1, b"\x00", PADDED),
    "resets of what is over": lambda _: frame(RST_STREAM, 3, bytes(4)),
    "frames of no known kind": lambda _: frame(0xEE, 1),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
async def test_frames_that_say_nothing_end_the_connection(flood: Callable[[int], bytes]) -> None:
    behind = Behind()
    async with peer(behind) as one, peer(behind) as other:
        assert (await one.answer(one.ask(SCANS, "POST", WHO, body=b"{}"))).status == 200
        one.tell(head(3))
        one.tell(frame(HEADERS, 5, head(5)[9:], END_HEADERS))  # Its body is to come.
        for number in range(500):
            one.tell(flood(number).replace(frame(DATA, 1)[5:9], (5).to_bytes(4, "big")))
            one.wire.taken()
        assert not one.wire.closed  # What honest clients say stays far below.
        for number in range(1500):
            one.tell(flood(number).replace(frame(DATA, 1)[5:9], (5).to_bytes(4, "big")))
            if not one.wire.closed:
                one.wire.taken()
        assert one.wire.closed
        assert CALM.to_bytes(4, "big") + b"too many frames" in one.wire.written
        assert (await other.answer(other.ask())).status == 200


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "once they run"])
async def test_rapid_resets_end_the_connection_and_what_they_began_is_bounded(at_once: bool) -> None:
    behind = Behind()
    behind.go.clear()
    most = 0
    async with peer(behind, connection_streams=20) as one:
        for number in range(1, 2001, 2):
            one.tell(head(number, SCANS.encode()))
            for _ in range(0 if at_once else 5):
                await asyncio.sleep(0)
            one.tell(frame(RST_STREAM, number, bytes(4)))
            most = max(most, len(one.state.tasks))
            one.wire.taken()
            if one.wire.closed:
                break
        assert one.wire.closed
        assert 2 * 200 <= number < 2 * 400
        assert most == 40  # Who gives up doesn't make place for more: theirs still run.
        assert at_once or behind.running == 40


async def test_resets_that_the_edge_is_made_to_send_count_as_well() -> None:
    behind = Behind()
    behind.go.clear()
    ways = (lambda n: frame(WINDOW_UPDATE, n, b"\x7f\xff\xff\xff"), lambda n: frame(DATA, n, b"x" * 300))
    for way in ways:
        async with peer(behind, connection_streams=1000) as one:
            for number in range(1, 1001, 2):
                one.tell(head(number, SCANS.encode()) + way(number))
                if one.wire.closed:
                    break
                one.wire.taken()
            assert one.wire.closed
            assert number < 2 * 400
            assert CALM.to_bytes(4, "big") + b"too many resets" in one.wire.written
            assert 'recoup_http_refused{limit="http2"} 1\n' in one.gateway._watch._metrics.render()


async def test_a_body_that_goes_on_after_its_stream_was_reset_counts_as_well() -> None:
    async with peer() as one:
        one.tell(head(1, SCANS.encode(), ends=False) + frame(RST_STREAM, 1, bytes(4)))
        for _ in range(1500):
            one.tell(frame(DATA, 1, bytes(300)))  # Each is answered with another reset.
            if not one.wire.closed:
                one.wire.taken()
        assert one.wire.closed
        assert CALM.to_bytes(4, "big") + b"too many frames" in one.wire.written


@pytest.mark.parametrize("path", [b"no path", b"/" + b"x" * 125, SCANS.encode()], ids=["bad", "large", "refused"])
async def test_requests_that_are_none_count_as_well(path: bytes) -> None:
    behind = Behind()
    behind.go.clear()
    async with peer(behind, connection_streams=2, header_bytes=1024, header_count=10) as one:
        for number in range(1, 1001, 2):
            one.tell(head(number, path, repeated=9 if len(path) > 120 else 1))
            await one.settle()
            if one.wire.closed:
                break
        assert number < 2 * 280
        assert [code for _, code, _ in one.farewells] == [CALM]


async def test_a_window_that_opens_by_a_byte_at_a_time_ends_the_connection() -> None:
    async with peer() as one:
        one.tell(frame(SETTINGS, content=b"\x00\x04\x00\x00\x00\x00"))
        number = one.ask("/openapi.json")
        await one.settle()
        for _ in range(3000):
            one.tell(FLOODS["windows of a stream"](0))
            await asyncio.sleep(0)
            if one.wire.closed:
                break
            one.wire.taken()
        assert one.wire.closed
        assert one.answers[number].body == b""
        assert CALM.to_bytes(4, "big") + b"too many frames" in one.wire.written


async def test_who_opens_windows_for_each_of_many_events_goes_on() -> None:
    class Events(Behind):
        """A stream of many answers."""

        def unary_stream(self, _name: str, response_deserializer: Any, **_codecs: Any) -> Any:
            class Call:
                async def __aiter__(_self) -> AsyncIterator[Any]:
                    for _ in range(1500):
                        yield response_deserializer(b"")
                        await asyncio.sleep(0)

                def cancel(_self) -> None:
                    """Nothing runs behind it."""

            return lambda *_request, **_how: Call()

    async with peer(Events()) as one:
        one.takes = False
        number = one.ask(STREAM)
        answered = 0
        async with asyncio.timeout(20):
            while not one.answers[number].is_whole and not one.wire.closed:
                came = one.heard.count((DATA, number)) - answered
                for _ in range(came if not one.answers[number].is_whole else 0):
                    one.h2.increment_flow_control_window(300)
                    one.h2.increment_flow_control_window(300, number)
                    one.say()
                answered += came
                await one.settle()
        assert one.answers[number].body.count(b"\n") == 1500
        assert not one.wire.closed


async def test_a_page_that_is_left_may_give_up_what_it_asked_for() -> None:
    async with peer() as one:
        for _ in range(100):
            number = one.ask()
            one.h2.reset_stream(number, ErrorCodes.CANCEL)
            one.say()
        assert (await one.answer(one.ask())).status == 200


async def test_a_head_in_pieces_has_few_of_them_and_is_never_kept_beyond_its_size() -> None:
    async with peer() as one:
        one.tell(head(1, ends_head=False))
        one.tell(frame(CONTINUATION, 1, b"", END_HEADERS))
        await one.settle()
        assert one.heard[-2:] == [(HEADERS, 1), (DATA, 1)]
        one.tell(head(3, ends_head=False))
        for _ in range(20):
            one.tell(frame(CONTINUATION, 3))
        assert one.wire.closed
    async with peer(header_bytes=4096) as one:
        one.tell(frame(HEADERS, 1, b"\x00" * 5000))
        assert not one.wire.closed
        one.tell(frame(CONTINUATION, 1, b"\x00" * 5000)[:9])  # Before it is here.
        assert one.wire.closed


async def test_a_small_head_that_becomes_a_large_one_is_never_unpacked() -> None:
    async with peer() as one:
        large = Encoder().encode([(b":method", b"GET"), (b"x", b"y" * 4000)], huffman=False)
        one.tell(frame(HEADERS, 1, large + b"\xbe" * 10_000, END_STREAM | END_HEADERS))  # 40 MB, of 14 kB.
        await one.settle()
        assert [code for _, code, _ in one.farewells] == [CALM]


async def test_a_frame_that_would_be_too_large_is_refused_when_it_is_announced() -> None:
    for announced in (frame(DATA, 1, bytes(20_000))[:9], b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"):
        async with peer() as one:
            one.tell(announced)
            await one.settle()
            assert [code for _, code, _ in one.farewells] == [ErrorCodes.FRAME_SIZE_ERROR]


async def test_no_table_of_headers_is_kept_however_large_a_caller_likes_it() -> None:
    async with peer(read_burst=100_000) as one:
        for size in (2**31 - 1, 0, 100, 2**20, 0):
            one.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
            one.say()
            await one.settle()
            answers = [await one.answer(one.ask()) for _ in range(3)]
            assert [each.headers[b"content-length"] for each in answers] == [b"15"] * 3
        encoder = one.server._h2.encoder
        assert (len(encoder.header_table.dynamic_entries), encoder.table_size_changes) == (0, [])


async def test_nothing_is_pushed_upgraded_or_spoken_before_the_preface() -> None:
    for wrong in (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", PREFACE[:-2] + b"xx"):
        made = Peer(gateway(Behind(), EdgeSettings(listen="127.0.0.1:0")), begins=False)
        made.tell(wrong[:10])
        assert made.wire.closed is not PREFACE.startswith(wrong[:10])
        made.tell(wrong[10:])
        assert made.wire.closed
        await made.end()
    async with peer() as one:
        one.tell(frame(PUSH, 1, b"\x00\x00\x00\x02\x82", END_HEADERS))
        assert one.wire.closed


def test_a_budget_is_whole_again_after_its_time_and_never_more() -> None:
    now = [0.0]
    budget = Budget(3, 2.0, lambda: now[0])
    for _ in range(3):
        budget.take("x")
    with pytest.raises(Excess):
        budget.take("x")
    now[0] = 1000.0
    for _ in range(3):
        budget.take("x")
    with pytest.raises(Excess):
        budget.take("x")


def test_padding_makes_no_frame_say_more() -> None:
    meter = Meter(4096)
    with pytest.raises(Excess):
        list(meter.frames(PREFACE + frame(DATA, 1, b"\xff" + bytes(255), PADDED) * 1100))
    assert len(list(Meter(4096).frames(PREFACE + frame(DATA, 1, bytes(256)) * 1100))) == 1101


def test_frames_are_the_same_however_they_come() -> None:
    whole = PREFACE + frame(SETTINGS) + head(1, ends_head=False) + frame(CONTINUATION, 1, b"", END_HEADERS) + head(3)
    at_once = list(Meter(4096).frames(whole))
    meter = Meter(4096)
    one_by_one = [each for place in range(len(whole)) for each in meter.frames(whole[place : place + 1])]
    assert at_once == one_by_one
    assert b"".join(each.content for each in at_once) == whole
    assert not meter.is_within_head


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.sampled_from([*range(11), 0xEE]), st.integers(0, 7), st.binary(max_size=40), st.integers(0, 255)),
        max_size=30,
    ),
    st.booleans(),
)
def test_whatever_comes_ends_a_connection_or_not_and_nothing_else(frames: Any, requests: bool) -> None:
    async def run() -> None:
        failed: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
        behind = Behind()
        async with peer(behind) as one:
            for place, (kind, stream, content, flags) in enumerate(frames):
                one.tell((head(2 * place + 1, ends=False) if requests else b"") + frame(kind, stream, content, flags))
                await asyncio.sleep(0)
        assert one.state.tasks == set() == one.state.connections
        assert failed == []
        assert json.dumps(behind.running) == "0"

    asyncio.run(run())


async def test_settings_that_nobody_knows_are_not_kept_and_those_among_them_hold() -> None:
    unknown = b"".join(number.to_bytes(2, "big") + bytes(4) for number in range(0x100, 0x600))
    async with peer() as one:
        before = len(one.server._h2.remote_settings)
        one.tell(frame(SETTINGS, content=unknown + b"\x00\x06\x00\x00\x10\x00" + unknown))
        await one.settle()
        found = one.server._h2.remote_settings
        assert (len(found), found.max_header_list_size) == (before, 4096)
        assert (await one.answer(one.ask())).status == 200
        one.tell(frame(SETTINGS, content=unknown[:-1]))  # What is no list of settings is still an error.
        assert one.farewells or one.wire.closed


async def test_a_head_of_changes_of_the_table_ends_the_connection() -> None:
    for changes, is_taken in ((2, True), (3, False)):
        async with peer() as one:
            one.tell(frame(HEADERS, 1, b"\x20" * changes + head(1)[9:], END_STREAM | END_HEADERS))
            await one.settle()
            assert (((HEADERS, 1) in one.heard), one.wire.closed) == (is_taken, not is_taken)
