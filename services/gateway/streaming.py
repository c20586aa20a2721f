"""The answers of a stream as newline-delimited JSON, or as Server-Sent Events for who accepts those."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from google.protobuf.message import Message

from services._mesh.errors import Internal, Problem
from services._mesh.telemetry import trace_id
from services.gateway import coding, problems, transcode
from services.gateway.bindings import Route
from services.gateway.exchange import Exchange, Receive, Send, head
from services.gateway.newcomers import going

LINES, EVENTS = "application/x-ndjson", "text/event-stream"


def media_type(exchange: Exchange) -> str:
    """Events where the caller names them, and likes lines no better; a browser's EventSource names nothing else."""
    given = coding.weights(exchange.headers.get("accept", ""))
    return EVENTS if 0 < given.get(EVENTS, 0.0) >= given.get(LINES, 0.0) else LINES


async def pieces(
    route: Route, exchange: Exchange, answers: AsyncGenerator[Message, None]
) -> AsyncGenerator[bytes, None]:
    """The body, piece by piece. What goes wrong on the way is its last: {"error": …} in a line, an event "problem"."""
    is_events = media_type(exchange) == EVENTS
    try:
        async for answer in answers:
            content = transcode.render(route, answer)
            yield b"data: %b\n\n" % content if is_events else content + b"\n"
    except Exception as error:
        yield _last_words(exchange, error if isinstance(error, Problem) else Internal(trace_id()))
    finally:
        await answers.aclose()


def _last_words(exchange: Exchange, problem: Problem) -> bytes:
    _, document = problems.render(problem, exchange.request_id, trace_id())
    if media_type(exchange) == EVENTS:
        return b"event: problem\ndata: %b\n\n" % document
    return b'{"error":%b}\n' % document


async def answer(
    send: Send,
    receive: Receive,
    exchange: Exchange,
    body: AsyncGenerator[bytes, None],
    seconds: float,
    ending: asyncio.Event,
) -> None:
    """Send the body while the caller is there, and reads it, for at most so many seconds, and until the process ends:
    then its last words say so.
    """
    exchange.answer_headers.append((b"vary", b"accept"))
    await send({"type": "http.response.start", "status": 200, "headers": head(exchange, media_type(exchange), None)})
    sending = asyncio.create_task(_send_all(send, body, is_empty=exchange.method == "HEAD"))
    others = (asyncio.create_task(_left(receive)), asyncio.create_task(ending.wait()))
    try:
        await asyncio.wait({sending, *others}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        has_to_end = ending.is_set() and not sending.done() and not others[0].done()
        for task in (sending, *others):
            task.cancel()
        results = await asyncio.gather(sending, *others, return_exceptions=True)
    if has_to_end:
        piece = b"" if exchange.method == "HEAD" else _last_words(exchange, going())
        await send({"type": "http.response.body", "body": piece, "more_body": False})
    elif isinstance(results[0], Exception):
        raise results[0]


async def _send_all(send: Send, body: AsyncGenerator[bytes, None], *, is_empty: bool) -> None:
    try:
        if not is_empty:
            async for piece in body:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        await body.aclose()


async def _left(receive: Receive) -> None:
    """Returns when the caller went away."""
    while (await receive())["type"] != "http.disconnect":
        pass
