"""The edge's real server: slow and hostile callers cost others nothing, and a process that ends loses no request."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from recoup_local.ca import LocalCa
from services._mesh import passports
from services._mesh.channel import REQUEST_ID_KEY, TRACE_KEY
from services._mesh.clock import monotonic
from services._mesh.settings import TlsSettings
from services._mesh.tls import CertificateFiles
from services.gateway.exchange import SECURITY_HEADERS
from services.gateway.serving import EdgeTls
from tests.support.edge import SCANS, SIGN_IN, STREAM, Behind, answer_of, served, told
from tests.support.edge_tls import Place, on_uvloop

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n"
POST = f"POST {SCANS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\ncontent-type: application/json\r\n".encode()
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def dribble(streams: Streams, piece: bytes) -> bytes:
    """Send a piece again and again until the connection is ended; what was answered meanwhile."""
    reader, writer = streams

    async def read() -> bytes:
        came = b""
        try:
            while more := await reader.read(65536):
                came += more
        except ConnectionError:  # What we sent after the end wasn't read.
            pass
        return came

    reading = asyncio.create_task(read())
    while not reading.done():
        writer.write(piece)
        await asyncio.wait({reading}, timeout=0.02)
    writer.close()
    return reading.result()


def problem(answer: bytes, status: int, reason: str) -> None:
    top, _, body = answer.partition(b"\r\n\r\n")
    assert top.startswith(f"HTTP/1.1 {status} ".encode()), answer
    assert json.loads(body)["reason"] == reason
    lines = {tuple(line.split(b": ", 1)) for line in top.split(b"\r\n")[1:]}
    assert set(SECURITY_HEADERS) <= lines


async def test_who_dribbles_is_ended_in_time_and_others_are_served() -> None:
    behind = Behind()
    async with asyncio.timeout(20), served(behind, head_seconds=0.3, call_seconds=0.3) as (_, port):

        async def slow(before: bytes, piece: bytes, answers: int = 0) -> bytes:
            streams = await asyncio.open_connection("127.0.0.1", port)
            streams[1].write(before)
            for _ in range(answers):
                assert (await answer_of(streams[0]))[0] == 200
            return await dribble(streams, piece)

        async def beside() -> None:
            for _ in range(20):
                assert (await told(port, HEALTH + b"\r\n"))[0] == 200
                await asyncio.sleep(0.01)

        head, second, silent, breaks, body, rest, _ = await asyncio.gather(
            slow(HEALTH + b"x: ", b"y"),
            slow(HEALTH + b"\r\n" + HEALTH, b"x: y\r\n", answers=1),
            slow(b"", b""),
            slow(b"", b"\r\n"),
            slow(POST + b"content-length: 1000\r\n\r\n", b" "),
            slow(POST + b"content-length: 999999999\r\n\r\n", b" "),
            beside(),
        )
    for each in (head, second, body):
        problem(each, 408, "REQUEST_TOO_SLOW")
    problem(rest, 413, "TOO_LARGE")
    assert silent == breaks == b""
    assert behind.running == 0


async def test_what_is_too_much_is_refused_in_the_edges_words() -> None:
    async with served(Behind(), header_count=20, header_bytes=4096, connections=3) as (_, port):
        for odd in (b"x: " + b"y" * 5000 + b"\r\n", b"x: y\r\n" * 20):
            status, headers, body = await told(port, HEALTH + odd + b"\r\n")
            assert (status, json.loads(body)["reason"]) == (431, "HEADERS_TOO_LARGE")
            assert headers["connection"] == "close"
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        status, headers, body = await told(port, HEALTH + b"\r\n")
        assert (status, json.loads(body)["reason"], headers["retry-after"]) == (503, "DEPENDENCY_UNAVAILABLE", "1")
        assert {(name.decode(), value.decode()) for name, value in SECURITY_HEADERS} <= headers.items()
        for _, writer in held:
            writer.close()


@on_uvloop
async def test_who_does_not_read_is_ended_in_time_and_who_reads_slowly_gets_all(tmp_path: Path) -> None:
    place, large = Place(tmp_path), b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n"
    last = large.replace(b"host", b"connection: close\r\nhost")
    async with asyncio.timeout(20), served(Behind(), place.tls(), call_seconds=0.3) as (server, port):

        async def caller(asks: bytes) -> Streams:
            line = socket.socket()
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            line.setblocking(False)
            await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", port))
            how: Any = {"ssl": place.trust("http/1.1"), "server_hostname": "localhost", "limit": 16 * 1024}
            reader, writer = await asyncio.open_connection(sock=line, **how)
            writer.write(asks)
            return reader, writer

        # More than the network keeps.
        held = [await caller(large * 6), await caller(large * 5 + last), await caller(last)]
        reader, slow = await caller(large * 6)
        began = monotonic()
        for _ in range(6):
            top = await reader.readuntil(b"\r\n\r\n")
            left = int(top.lower().partition(b"content-length: ")[2].split()[0])
            while left:
                left -= len(await reader.readexactly(min(left, 128 * 1024)))
                await asyncio.sleep(0.02)
        assert monotonic() - began > 0.6
        slow.close()
        await until(lambda: not server.server_state.connections and not server.server_state.tasks)
        for _, writer in held:
            writer.close()


# What the mesh or gRPC would take for its own word, if a header went on as metadata.
HOSTILE = (
    *(b"recoup-passport: forged", b"recoup-request-id: forged", b"recoup-grant: forged", b"passport: forged"),
    *(b"organization-id: 1", b"x-organization-id: 1", b"actor: 1", b"x-actor: 1", b"traceparent: forged"),
    *(b"grpc-timeout: 1n", b"grpc-encoding: x", b"grpc-status: 0", b"grpc-trace-bin: AA", b"x-thing-bin: AA"),
    *(b"te: trailers", b"user-agent: x", b"x-http-method-override: DELETE", b"x-forwarded-for: 203.0.113.9"),
    b"x-request-id: a\x85b",
)


async def test_no_header_of_a_caller_becomes_metadata_or_an_address() -> None:
    behind = Behind()
    async with served(behind, write_burst=2, writes_a_second=0.1) as (_, port):
        top = f"GET {SCANS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer x\r\n".encode()
        status, headers, _ = await told(port, top + b"\r\n".join(HOSTILE) + b"\r\n\r\n")
        assert status == 200
        ours = [(REQUEST_ID_KEY, headers["x-request-id"]), (TRACE_KEY, headers["traceresponse"])]
        assert behind.metadata == [*passports.bearer("a passport"), *ours]
        assert headers["x-request-id"].isascii()
        # A pseudo-header of HTTP/2 is no header's name here, and nothing is served.
        assert (await told(port, top + b":authority: evil\r\n\r\n"))[0] == 400
        # Who says that they speak for others is counted as who they are.
        top = f"POST {SIGN_IN} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113."
        statuses = [(await told(port, f"{top}{n}\r\n\r\n".encode()))[0] for n in range(3)]
        assert statuses == [200, 200, 429]


async def test_a_server_that_ends_under_load_answers_everybody() -> None:
    behind, statuses, last = Behind(), [0] * 0, [""] * 0
    async with served(behind, leaving_seconds=60.0) as (server, port):

        async def call(client: httpx.AsyncClient) -> httpx.Response:
            answer = await client.get(SCANS, headers={"authorization": "Bearer x"})
            statuses.append(answer.status_code)
            return answer

        async def caller() -> None:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                while (answer := await call(client)).headers.get("connection") != "close":
                    pass
                last.append(answer.headers["connection"])
                assert (await call(client)).headers["connection"] == "close"  # Who comes anew is still let in,
                assert (await client.get("/readyz")).status_code == 503  # and told to come no more.

        async def stream() -> tuple[int, dict[str, str], bytes]:
            return await told(port, f"GET {STREAM} HTTP/1.1\r\nhost: x\r\n\r\n".encode())

        callers = [asyncio.create_task(caller()) for _ in range(8)]
        await until(lambda: len(statuses) > 50)
        behind.go.clear()
        streaming = asyncio.create_task(stream())
        await until(lambda: behind.running == 8)
        before = len(statuses)
        leaving = asyncio.create_task(server.leave())
        await asyncio.sleep(0)
        behind.go.set()
        await asyncio.wait_for(asyncio.gather(*callers), 20)
        server.should_exit = True  # As if its time had come.
        await asyncio.wait_for(leaving, 20)
        assert set(statuses) == {200}
        # What was under way was its connection's last; and each asked once more.
        assert (len(last), len(statuses) - before) == (8, 16)
        status, _, body = await streaming
        assert status == 200
        assert b"is being ended" in body
        assert body.endswith(b"0\r\n\r\n")  # Its last chunk: it is whole.
        with pytest.raises(ConnectionRefusedError):
            await told(port, HEALTH + b"\r\n")


async def test_a_stream_over_http_1_0_has_no_chunks_and_ends_with_its_connection() -> None:
    async with served(Behind(), stream_seconds=0.3, leaving_seconds=0.1) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {STREAM} HTTP/1.0\r\nhost: x\r\nconnection: keep-alive\r\n\r\n".encode())
        top = await reader.readuntil(b"\r\n\r\n")
        assert top.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in top
        assert b"transfer-encoding" not in top
        assert "error" not in json.loads(await reader.readline())
        writer.write_eof()
        assert [json.loads(line) for line in (await reader.read()).splitlines()] == []
        writer.close()


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_new_certificate_is_shown_without_a_failed_call(tmp_path: Path) -> None:
    ca = LocalCa(tmp_path / "ca")
    issued = ca.issue("gateway", tmp_path)
    settings = TlsSettings(ca=ca.cert_file, cert=issued.cert, key=issued.key, check_seconds=0.001)
    trust = ssl.create_default_context(cafile=str(ca.cert_file))
    serials, done = [0] * 0, asyncio.Event()
    async with served(Behind(), EdgeTls(CertificateFiles(settings), settings)) as (_, port):

        async def shown() -> int:
            """The serial number that a new connection is shown, after one call on it."""
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
            writer.write(HEALTH + b"\r\n")
            assert (await answer_of(reader))[0] == 200
            certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            return x509.load_der_x509_certificate(certificate).serial_number

        async def caller() -> None:
            while not done.is_set():
                serials.append(await shown())

        def serial() -> int:
            return x509.load_pem_x509_certificate(issued.cert.read_bytes()).serial_number

        callers = [asyncio.create_task(caller()) for _ in range(2)]
        wanted = []
        for _ in range(3):
            wanted.append(serial())
            await until(lambda: wanted[-1] in serials)
            await asyncio.to_thread(ca.issue, "gateway", tmp_path)
        # A pair that is half of each is never taken.
        whole = issued.key.read_bytes()
        wanted.append(serial())
        await until(lambda: wanted[-1] in serials)
        issued.key.write_bytes(b"half")
        await until_more(serials)
        issued.key.write_bytes(whole)
        done.set()
        await asyncio.gather(*callers)
    assert list(dict.fromkeys(serials)) == wanted


async def until_more(serials: list[int]) -> None:
    before = len(serials)
    await until(lambda: len(serials) > before + 5)
