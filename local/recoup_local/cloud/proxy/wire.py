"""HTTP/1.1 on asyncio streams: reads requests, forwards them to the upstream, writes answers.

It knows nothing of AWS. Raw streams, so that an answer can be dropped after the request was forwarded.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from urllib.parse import unquote

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
IDLE_SECONDS = 75.0
BODY_SECONDS = 30.0
UPSTREAM_SECONDS = 60.0
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect", "content-length"})


class BadRequestError(ValueError):
    """The peer sent something that is not acceptable HTTP/1.1."""


@dataclass(frozen=True)
class Request:
    """One request; `target` is the raw path and query as sent, `body` is already de-chunked."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str:
        """The first header of that name, or ''."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), "")

    @property
    def raw_path(self) -> str:
        """The path as sent, still percent-encoded."""
        return self.target.partition("?")[0]

    @property
    def path(self) -> str:
        """The decoded path."""
        return unquote(self.raw_path)

    @property
    def raw_query(self) -> str:
        """The query string as sent."""
        return self.target.partition("?")[2]


@dataclass(frozen=True)
class Answer:
    """One answer; the length header is computed when it is written."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = field(default=(("Content-Type", "text/xml"),))

    def header(self, name: str) -> str:
        """The first header of that name, or ''."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), "")


async def read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """The next request on a connection, or None when the peer has closed it or stayed idle too long."""
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
        return None
    except asyncio.LimitOverrunError as error:
        raise BadRequestError("request head too large") from error
    start, headers = _parse_head(head)
    parts = start.split(" ")
    if len(parts) != 3:
        raise BadRequestError(f"malformed request line: {start[:80]!r}")
    request = Request(parts[0], parts[1], headers)
    if request.header("expect").lower() == "100-continue":
        # botocore sends the body of an S3 upload only after this, or after waiting one second for it.
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
    async with asyncio.timeout(BODY_SECONDS):
        body = await _read_body(reader, headers, until_eof=False)
    return Request(parts[0], parts[1], headers, body)


async def forward(host: str, port: int, request: Request, extra: dict[str, str]) -> Answer:
    """Sends the request upstream on a connection of its own and reads the whole answer.

    Raises OSError or TimeoutError when the upstream can't be reached or doesn't answer in time.
    """
    async with asyncio.timeout(UPSTREAM_SECONDS):
        reader, writer = await asyncio.open_connection(host, port, limit=MAX_HEAD_BYTES)
        try:
            writer.write(_encode_request(request, extra))
            await writer.drain()
            start, headers = _parse_head(await reader.readuntil(b"\r\n\r\n"))
            status = int(start.split(" ")[1])
            body = b""
            if request.method != "HEAD" and status not in (204, 304):
                body = await _read_body(reader, headers, until_eof=True)
            return Answer(status, body, headers)
        except asyncio.IncompleteReadError as error:
            raise ConnectionError("the upstream closed the connection before answering") from error
        finally:
            writer.close()


def encode_answer(answer: Answer, *, head: bool, close: bool) -> bytes:
    """The bytes of an answer; `head` keeps the upstream's own length, since a HEAD has no body."""
    lines = [f"HTTP/1.1 {answer.status} {'OK' if answer.status < 400 else 'Error'}"]
    lines += [f"{key}: {value}" for key, value in answer.headers if key.lower() not in _HOP_BY_HOP]
    length = answer.header("content-length") if head else ""
    if answer.status != 204:
        lines.append(f"Content-Length: {length or len(answer.body)}")
    lines.append("Connection: close" if close else "Connection: keep-alive")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (b"" if head else answer.body)


def _encode_request(request: Request, extra: dict[str, str]) -> bytes:
    replaced = {name.lower() for name in extra}
    lines = [f"{request.method} {request.target} HTTP/1.1"]
    for key, value in request.headers:
        if key.lower() not in _HOP_BY_HOP and key.lower() not in replaced:
            lines.append(f"{key}: {value}")
    lines += [f"{key}: {value}" for key, value in extra.items()]
    lines += [f"Content-Length: {len(request.body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + request.body


def _parse_head(head: bytes) -> tuple[str, tuple[tuple[str, str], ...]]:
    if len(head) > MAX_HEAD_BYTES:
        raise BadRequestError("head too large")
    start, *lines = head.decode("latin-1").split("\r\n")
    headers: list[tuple[str, str]] = []
    for line in lines:
        if line:
            name, colon, value = line.partition(":")
            if not colon:
                raise BadRequestError(f"malformed header: {line[:80]!r}")
            headers.append((name.strip(), value.strip()))
    return start, tuple(headers)


async def _read_body(reader: asyncio.StreamReader, headers: tuple[tuple[str, str], ...], *, until_eof: bool) -> bytes:
    named = {key.lower(): value for key, value in headers}
    if "chunked" in named.get("transfer-encoding", "").lower():
        return await _read_chunks(reader)
    if "content-length" in named:
        length = int(named["content-length"])
        if length > MAX_BODY_BYTES:
            raise BadRequestError("body too large")
        return await reader.readexactly(length)
    return await reader.read(-1) if until_eof else b""


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    total = 0
    while True:
        size = int((await reader.readline()).split(b";")[0].strip() or b"0", 16)
        if size == 0:
            while (await reader.readline()).strip():
                pass
            return b"".join(parts)
        total += size
        if total > MAX_BODY_BYTES:
            raise BadRequestError("body too large")
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)
