"""The witness's HTTP side: C2SP tlog-witness, one POST. Strangers may speak to it; a log's signature is what it trusts.

Decides nothing itself: `model/witnessing.py` does. Bodies are bounded, and everything has a deadline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services._mesh.clock import Clock
from services._mesh.metrics import Metrics
from services._mesh.threads import BoundedThreads
from services.audit.model.cosigning import Cosigner
from services.audit.model.notes import Note, NoteInvalid, VerifierKey
from services.audit.model.witnessing import CONFLICT, MAX_BODY_BYTES, KnownLogs, Refused, Submission
from services.audit.witness_state import WitnessState

log = logging.getLogger(__name__)

PATH = "/add-checkpoint"
SIZE_TYPE = "text/x.tlog.size"
_TEXT = "text/plain; charset=utf-8"
BODY_SECONDS = 5.0
COSIGN_SECONDS = 5.0
_THREADS = 4
_MAX_KEYS_BYTES = 64 * 1024

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class LogKeys:
    """The file with the keys of the logs that are witnessed, one vkey a line; read anew at each request.

    A key's name is its log's. While a log rotates its key, both stand there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> KnownLogs:
        """The logs, as the file says now. Raises OSError, NoteInvalid."""
        with self._path.open(encoding="utf-8") as file:
            lines = file.read(_MAX_KEYS_BYTES).splitlines()
        found: dict[str, list[VerifierKey]] = {}
        for line in filter(None, map(str.strip, lines)):
            key = VerifierKey.parse(line)
            found.setdefault(key.name, []).append(key)
        if not found:
            raise NoteInvalid(f"{self._path} names no log's key")
        return KnownLogs(found)


class Witness:
    """Cosigns what continues what it has seen."""

    def __init__(self, cosigner: Cosigner, keys: LogKeys, state: WitnessState, clock: Clock) -> None:
        self._cosigner, self._keys, self._state, self._clock = cosigner, keys, state, clock
        self._threads = BoundedThreads(_THREADS, "witness")

    async def add_checkpoint(self, body: bytes) -> str:
        """The cosignature line over a submitted checkpoint. Raises Refused."""
        submission = Submission.parse(body)
        return await self._threads.run(COSIGN_SECONDS, self._add, submission)

    def _add(self, submission: Submission) -> str:
        head = self._keys.read().checked(submission.note)
        self._state.advance(submission, head)
        # The time of a cosignature is the wall clock's: it is compared with those of other witnesses.
        return self._cosigner.cosign(Note.parse(submission.note).text, int(self._clock.wall_seconds()))

    def close(self) -> None:
        """End the threads."""
        self._threads.close()


class WitnessApp:
    """The ASGI application."""

    def __init__(self, witness: Witness, metrics: Metrics, header_seconds: float) -> None:
        self._witness, self._metrics, self.header_seconds = witness, metrics, header_seconds

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status, media_type, text = await self._answer(scope, receive)
        self._metrics.counter("recoup_witness_requests", "Checkpoints that were submitted.", status=str(status)).add()
        headers = [(b"content-type", media_type.encode()), (b"content-length", str(len(text.encode())).encode())]
        if status == 405:
            headers.append((b"allow", b"POST"))
        if status in (408, 413):  # What is left of the body is not a request.
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})

    async def _answer(self, scope: Mapping[str, Any], receive: Receive) -> tuple[int, str, str]:
        if scope["path"] != PATH:
            return 404, _TEXT, f"There is only {PATH}.\n"
        if scope["method"] != "POST":
            return 405, _TEXT, "Use POST.\n"
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(receive)
        except TimeoutError:
            return 408, _TEXT, f"The body must come within {BODY_SECONDS:.0f} s.\n"
        if body is None:
            return 413, _TEXT, f"The body must be at most {MAX_BODY_BYTES} bytes.\n"
        try:
            return 200, _TEXT, await self._witness.add_checkpoint(body)
        except Refused as refused:
            log.warning("not cosigned: %s", refused)
            if refused.status == CONFLICT:
                return CONFLICT, SIZE_TYPE, f"{refused.size}\n"
            return refused.status, _TEXT, f"{refused}\n"
        except Exception as error:
            log.error("a checkpoint couldn't be looked at", exc_info=error)
            return 500, _TEXT, "The witness can't read or write its state, or its keys. Nothing was cosigned.\n"


async def _body(receive: Receive) -> bytes | None:
    """A request's whole body; None when it is too large, empty when the client went away."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


class WitnessProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol for a `WitnessApp`, with a deadline for headers, for which uvicorn has none."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come: it must speak."""
        super().connection_made(transport)
        self._await_headers()

    def on_message_begin(self) -> None:
        """A request has begun: its headers must come to an end."""
        super().on_message_begin()
        self._await_headers()

    def on_headers_complete(self) -> None:
        """The headers are there; the application sees to the rest."""
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        self._stop_waiting()
        app = self.config.app
        assert isinstance(app, WitnessApp)
        self._timer = self.loop.call_later(app.header_seconds, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
