"""What one caller can make the edge keep, or work on, has bounds, whatever they send and however little they read."""

from __future__ import annotations

import asyncio
import socket

import pytest

from services._mesh.errors import Exhausted, Invalid, Reason, Unauthenticated
from services.gateway import coding, json_text
from services.gateway.passports import Issued
from tests.support.edge import SCANS, SIGN_IN, Behind, served, told
from tests.support.edge_tls import on_uvloop

_WAITS = f"GET {SCANS} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer x\r\n\r\n".encode()

_PAGE = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n"


async def test_few_requests_wait_for_the_one_before_them() -> None:
    behind = Behind()
    behind.go.clear()
    async with served(behind) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(_WAITS + b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n" * 1000)
        async with asyncio.timeout(20):
            while not behind.running:
                await asyncio.sleep(0.001)
            [connection] = server.server_state.connections
            assert len(connection.pipeline) == 16  # type: ignore[union-attr]
            behind.go.set()
            # Those are answered, and the connection ends: the others were never taken, and may be asked again.
            assert (await reader.read()).count(b"HTTP/1.1 200 ") == 17
        writer.close()


@on_uvloop
async def test_who_is_ended_amid_their_requests_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with served(Behind(), call_seconds=0.1) as (server, port):
        with socket.create_connection(("127.0.0.1", port)) as asking:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            asking.sendall(_PAGE * 16)
            async with asyncio.timeout(20):
                while not server.server_state.total_requests:
                    await asyncio.sleep(0.001)
                while server.server_state.connections or server.server_state.tasks:
                    await asyncio.sleep(0.001)
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == []


async def test_who_is_a_stranger_has_nothing_of_theirs_read() -> None:
    class Strict(Behind):
        """Knows nobody and lets nobody in."""

        def knows(self, _session: object) -> bool:
            return False

        async def passport(self, *_for: object) -> Issued:
            raise Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_INVALID, "No.")

    async with served(Strict(), stranger_burst=5, strangers_a_second=0.1) as (_, port):
        head = f"POST {SCANS} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
        said = []
        for number in range(7):
            # What is wrong with it would be said first, and count nothing, if it were read first.
            request = f"{head}authorization: Bearer {number}\r\ncontent-length: 8\r\n\r\n{{broken}}"
            said.append((await told(port, request.encode()))[0])
    assert said == [401] * 5 + [429] * 2


def test_a_body_has_so_many_values_and_a_text_has_any_number_of_commas() -> None:
    for body in (b"[" + b"[]," * 10_000 + b"0]", b"[" + b"1," * 10_000 + b"1]", b"[" + b'"",' * 10_000 + b'""]'):
        with pytest.raises(Exhausted, match="more than 10000 values"):
            json_text.read(body, 32)
    text = '{,[\\"' * 20_000
    assert json_text.read(f'["{text}"]'.encode(), 32) == [text.replace("\\", "")]
    assert len(json_text.read(b"[" + b"1," * 9_990 + b"1]", 32)) == 9_991


def test_what_is_between_brackets_is_looked_through_once() -> None:
    for each in ('"', '"\\', '""', "]", "a", '"]"', '"a'):
        text = "[]" * 40 + each * 100_000
        steps = sum(1 for _ in json_text._BRACKETS.finditer(text))
        assert steps <= text.count("[") + text.count("]") + 2
        with pytest.raises(Invalid):
            json_text.read(text.encode(), 32)


def test_of_a_long_list_of_what_is_accepted_the_beginning_counts() -> None:
    names = [f"a{number}" for number in range(10_000)]
    assert set(coding.weights(",".join(names))) == set(names[:100])
    assert coding.chosen(",".join(["gzip", *names])) == "gzip"


async def test_who_sends_heads_and_no_bodies_keeps_nobody_else_out() -> None:
    begun = (
        f"POST {SIGN_IN} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n".encode()
    )
    async with served(Behind(), concurrent_requests=8) as (server, port):
        waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        for _, writer in waiting:
            writer.write(begun)
        answers = {asyncio.create_task(reader.readuntil(b"\r\n")): writer for reader, writer in waiting}
        async with asyncio.timeout(20):
            while sum(each.done() for each in answers) < 8:
                await asyncio.sleep(0.001)
        assert {each.result() for each in answers if each.done()} == {b"HTTP/1.1 503 Service Unavailable\r\n"}
        assert (await told(port, _WAITS))[0] == 200
        assert 'recoup_http_refused{limit="requests"} 8\n' in server._gateway._watch._metrics.render()
        kept = [each for each in answers if not each.done()]
        for each in kept:
            answers[each].write(b"{}")  # Those that have a place have it until their time is over.
        assert not {b"HTTP/1.1 503 Service Unavailable\r\n"} & set(await asyncio.gather(*kept))
        assert (await told(port, begun + b"{}"))[0] != 503
        for _, writer in waiting:
            writer.close()
