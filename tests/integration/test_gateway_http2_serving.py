"""HTTP/2 over TLS on the edge's real server, beside HTTP/1.1, on the event loop that it runs on."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from hpack import Encoder

from services.gateway.http2.frames import HEADERS, PREFACE, RST_STREAM
from tests.support.edge import SCANS, STREAM, Behind, served
from tests.support.edge_tls import Place, on_uvloop, until
from tests.support.http2 import frame

SETTINGS, END_STREAM, END_HEADERS = 0x4, 0x1, 0x4
WHO = {"authorization": "Bearer x"}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@on_uvloop
@pytest.mark.parametrize("http2", [True, False], ids=["offered", "turned off"])
async def test_what_is_spoken_is_agreed_on_by_tls(place: Place, http2: bool) -> None:
    async with served(Behind(), place.tls(http2=http2)) as (_, port):

        async def agreed(*spoken: str) -> str | None:
            _, writer = await asyncio.open_connection("localhost", port, ssl=place.trust(*spoken))
            found: str | None = writer.get_extra_info("ssl_object").selected_alpn_protocol()
            writer.close()
            return found

        assert await agreed() is None
        assert await agreed("spdy/3") is None
        assert await agreed("http/1.1") == "http/1.1"
        assert await agreed("http/1.1", "h2") == ("h2" if http2 else "http/1.1")
        answers = []
        for wants in (True, False):
            async with place.client(port, http2=wants) as client:
                answer = await client.get(SCANS, headers=WHO)
                answers.append((answer.http_version, answer.status_code, answer.content, sorted(answer.headers)))
        assert [version for version, *_ in answers] == ["HTTP/2" if http2 else "HTTP/1.1", "HTTP/1.1"]
        assert answers[0][1:] == answers[1][1:]


@on_uvloop
async def test_a_server_that_ends_under_load_answers_everybody_over_http_2(place: Place) -> None:
    behind, statuses, moved = Behind(), [0] * 0, 0
    async with served(behind, place.tls(), leaving_seconds=60.0) as (server, port):

        async def caller() -> None:
            nonlocal moved
            async with place.client(port) as client:
                before = after = None
                while after is before:
                    answer = await client.get(SCANS, headers=WHO)
                    assert answer.http_version == "HTTP/2"
                    statuses.append(answer.status_code)
                    after = answer.extensions["network_stream"].get_extra_info("ssl_object")
                    before = before or after
                moved += 1  # The connection was at its end, and another one was made: who comes anew is still let in,
                assert (await client.get("/readyz")).status_code == 503

        async def stream() -> httpx.Response:
            async with place.client(port) as client:
                return await client.get(STREAM)

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        await until(lambda: len(statuses) > 50)
        behind.go.clear()
        streaming = asyncio.create_task(stream())
        await until(lambda: behind.running == 8)
        leaving = asyncio.create_task(server.leave())
        await asyncio.sleep(0)
        behind.go.set()
        await asyncio.wait_for(asyncio.gather(*callers), 20)
        server.should_exit = True  # As if its time had come.
        answer = await streaming
        await asyncio.wait_for(leaving, 20)
        assert (set(statuses), moved) == ({200}, 8)
        assert (answer.status_code, b"is being ended" in answer.content) == (200, True)
        with pytest.raises(OSError):
            await asyncio.open_connection("localhost", port)


@on_uvloop
async def test_a_new_certificate_is_shown_over_http_2_without_a_failed_call(place: Place) -> None:
    serials: list[int] = []
    done = asyncio.Event()
    async with served(Behind(), place.tls()) as (_, port):

        async def caller() -> None:
            while not done.is_set():
                async with place.client(port) as client:
                    answer = await client.get("/healthz")
                    shown = answer.extensions["network_stream"].get_extra_info("ssl_object")
                    assert (answer.status_code, shown.selected_alpn_protocol()) == (200, "h2")
                    pem = shown.getpeercert(binary_form=True)
                    serials.append(x509.load_der_x509_certificate(pem).serial_number)

        calling = [asyncio.create_task(caller()) for _ in range(2)]
        wanted = []
        for _ in range(3):
            wanted.append(x509.load_pem_x509_certificate(place.cert.read_bytes()).serial_number)
            await until(lambda: wanted[-1] in serials)
            await asyncio.to_thread(place.issue)
        done.set()
        await asyncio.gather(*calling)
    assert list(dict.fromkeys(serials))[:3] == wanted


@on_uvloop
async def test_who_floods_with_resets_is_ended_and_others_are_served(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    behind = Behind()
    async with served(behind, place.tls(), read_burst=100_000, organization_read_burst=100_000) as (_, port):

        async def flood() -> None:
            """A connection that begins requests and gives them up at once, to its end."""
            speaks = place.trust("h2")
            reader, writer = await asyncio.open_connection("localhost", port, ssl=speaks)
            encoder = Encoder()
            writer.write(PREFACE + frame(SETTINGS))
            with contextlib.suppress(ConnectionError):  # What came too late wasn't read.
                for number in range(1, 20_001, 2):
                    pseudo = {
                        ":method": "GET",
                        ":scheme": "https",
                        ":authority": "x",
                        ":path": SCANS,
                        "authorization": "Bearer y",
                    }
                    begun = frame(HEADERS, number, encoder.encode(pseudo), END_STREAM | END_HEADERS)
                    writer.write(begun + frame(RST_STREAM, number, bytes(4)))
                    if number % 100 == 1:
                        await writer.drain()
                await reader.read()
            writer.close()

        async with place.client(port) as client:
            flooding = asyncio.gather(*(flood() for _ in range(5)))
            statuses = []
            while not flooding.done():
                statuses.append((await client.get(SCANS, headers=WHO)).status_code)
                await asyncio.sleep(0)
        await flooding
        assert caplog.text.count("was ended: too many re") == 5  # Resets, or refused streams.
        assert set(statuses) == {200}
        await until(lambda: behind.running == 0)


async def test_a_server_has_room_for_as_many_connections_as_it_takes() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
        async with served(Behind(), connections=1000):
            assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 1000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
