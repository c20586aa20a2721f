"""One HTTP/2 connection: h2 says what its frames mean, and each stream is served by the `Gateway` as HTTP/1.1 would be.

What HTTP/1.1 bounds is bounded alike (heads, bodies, times, connections); besides, what only HTTP/2 has: streams at a
time, also those that were given up and still run, resets, and frames that say nothing. Who goes beyond loses the
connection (GOAWAY), and nobody else anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from uvicorn import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from services.gateway.app import Gateway
from services.gateway.http2 import frames, heads, terms
from services.gateway.http2.frames import Budget, Excess, Frame, Meter
from services.gateway.http2.requests import asked
from services.gateway.http2.streams import Stream
from services.gateway.http2.timing import Patience, Unread

log = logging.getLogger(__name__)

# Streams that the peer gave up, or made us give up, and requests that are none: so many at once, and so many a second.
# A page that is left cancels what it asked for; who does it for ever makes us begin what nobody waits for.
_RESETS, _RESETS_A_SECOND = 200, 10.0
# Until whoever was told to go has said that they know: what they sent before is on its way.
_NOTICE_SECONDS = 1.0
_NOTICE = b"draining"
_A_REQUEST, _A_HEAD = "a request", "a head"


class Http2Protocol(asyncio.Protocol):
    """Serves a `Gateway`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        _app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        gateway = config.app
        assert isinstance(gateway, Gateway)
        self._gateway, self._settings, self._state = gateway, gateway.settings, server_state
        self._loop = _loop or asyncio.get_running_loop()
        self._meter = Meter(2 * self._settings.header_bytes)
        self._resets = Budget(_RESETS, _RESETS_A_SECOND)
        self._h2 = terms.made(self._settings)
        # All that still run, and those of them that somebody waits for.
        self._streams: dict[int, Stream] = {}
        self._awaited: set[int] = set()
        # Those that were answered before they were whole.
        self._unread = Unread(self._settings.head_seconds, self._wave_off)
        self._patience = Patience(self._settings.head_seconds, self._too_slow)
        self._begun = 0
        self._is_paused = self._is_flushing = False
        self._is_last = self._has_announced = self._has_ended = False
        self.on_lost: Callable[[], None] = lambda: None
        self._stuck: asyncio.TimerHandle | None = None
        self._shutting: asyncio.TimerHandle | None = None
        self._notice: asyncio.TimerHandle | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Whoever comes asks for something within the time of a head."""
        self._transport = transport
        self._state.connections.add(self)  # type: ignore[arg-type]
        self._about = {"server": get_local_addr(transport), "client": get_remote_addr(transport)}
        self.flush()
        self._watch()

    def connection_lost(self, _exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._has_ended = True
        self._state.connections.discard(self)
        self.on_lost()
        for stream in list(self._streams.values()):
            stream.leave()
        self._patience.owe(None)
        self._unread.clear()
        for timer in (self._stuck, self._shutting, self._notice):
            if timer is not None:
                timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Each frame in its turn, until one is too much."""
        try:
            for frame in self._meter.frames(data):
                if self._has_ended:
                    return
                self._frame(frame)
        except Excess as excess:
            self._gateway.watch.refuse("http2")
            self._end(excess.code, excess.why)
        except ProtocolError as error:
            self._end(error.error_code, type(error).__name__)
        self.flush()
        self._watch()

    def eof_received(self) -> None:
        """Closes the connection: over TLS, nobody is there to read an answer."""

    def pause_writing(self) -> None:
        """Who doesn't read isn't read, so that no answer to a frame is kept for them, and has the time of a call."""
        self._is_paused = True
        if not self._transport.is_closing():
            self._transport.pause_reading()
            self._stuck = self._loop.call_later(self._settings.call_seconds, self._transport.abort)

    def resume_writing(self) -> None:
        """It goes on."""
        self._is_paused = False
        if not self._has_ended:
            if self._stuck is not None:
                self._stuck.cancel()
            self._transport.resume_reading()
            self._wake()

    # What uvicorn calls.

    def shutdown(self) -> None:
        """Nobody is let in any more. Who waits for nothing is told at once, and others with their last answer, or soon:
        clients made with h2 lose what they wait for when they are told.
        """
        self._is_last = True
        if not self._awaited:
            self._announce()
        elif self._shutting is None:
            self._shutting = self._loop.call_later(_NOTICE_SECONDS, self._announce)

    # What a frame does.

    def _frame(self, frame: Frame) -> None:
        if frame.kind == frames.GOAWAY:  # h2 would answer nothing any more.
            self._is_last = True
            self._close_if_done()
            return
        found = self._h2.receive_data(frames.understood(frame))
        if not found and frame.kind in (frames.DATA, frames.HEADERS):
            self._meter.charge()  # Of a stream that was reset: h2 answers each with another reset.
        for event in found:
            if isinstance(event, events.RequestReceived):
                self._begin(event)
            elif isinstance(event, events.DataReceived):
                self._body(event)
            elif isinstance(event, events.StreamEnded):
                self._request_ended(event)
            elif isinstance(event, events.StreamReset):
                self._reset(event)
            elif isinstance(event, events.WindowUpdated):
                self._wake(event.stream_id)
            elif isinstance(event, events.RemoteSettingsChanged):
                self._wake()
            elif isinstance(event, events.PingAckReceived) and event.ping_data == _NOTICE:
                self._told()

    def _begin(self, event: events.RequestReceived) -> None:
        most = self._settings.connection_streams
        # What is answered may still end here when the peer, who saw that, asks again: so much more may run.
        if self._is_told or len(self._awaited) >= most or len(self._streams) + len(self._unread) >= 2 * most:
            self._h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)  # It may be asked again elsewhere.
            self._resets.take("refused streams")
            return
        is_full = self._is_full()
        found = asked(self._gateway, event, self._about, is_full=is_full)
        if found.is_none:
            self._resets.take("malformed requests")
        self._is_last = self._is_last or is_full
        stream = Stream(self, event.stream_id, found, self._settings.call_seconds)
        self._serve(stream, has_body=event.stream_ended is None)

    def _is_full(self) -> bool:
        most = self._settings.connections
        return len(self._state.connections) >= most or len(self._state.tasks) >= most

    def _serve(self, stream: Stream, *, has_body: bool) -> None:
        self._streams[stream.number] = stream
        self._awaited.add(stream.number)
        self._begun += 1
        if not has_body:
            stream.end_request()
        task = self._loop.create_task(stream.run())
        self._state.tasks.add(task)
        task.add_done_callback(partial(self._done, stream))

    def _done(self, stream: Stream, task: asyncio.Task[None]) -> None:
        self._state.tasks.discard(task)
        self._state.total_requests += 1
        self._streams.pop(stream.number, None)
        if not task.cancelled():
            task.exception()
        self._close_if_done()
        self._watch()

    def _body(self, event: events.DataReceived) -> None:
        stream, size = self._streams.get(event.stream_id), event.flow_controlled_length
        if stream is None or stream.is_gone:
            self._h2.acknowledge_received_data(size, event.stream_id)
        elif not stream.take(event.data, size):
            self._contradict(stream)

    def _contradict(self, stream: Stream) -> None:
        """A body of another length than was said isn't to be answered by anybody (RFC 9113, 8.1.1)."""
        if not stream.is_gone:
            self._h2.reset_stream(stream.number, ErrorCodes.PROTOCOL_ERROR)
            stream.leave()
            self._answered(stream)
            self._resets.take("malformed requests")

    def _request_ended(self, event: events.StreamEnded) -> None:
        """Whether by trailers too, which say nothing here: what a head says is checked before the body, or never."""
        stream = self._streams.get(event.stream_id)
        if stream is not None and not stream.end_request():
            self._contradict(stream)
        self._unread.discard(event.stream_id)
        self._close_if_done()

    def _reset(self, event: events.StreamReset) -> None:
        """Given up by the peer; or by h2, of a window that was made too large. It counts until its task has ended."""
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.leave()
            self._answered(stream)
        self._unread.discard(event.stream_id)
        self._close_if_done()
        self._resets.take("resets")

    def _wake(self, number: int = 0) -> None:
        for each in [self._streams.get(number)] if number else list(self._streams.values()):
            if each is not None:
                each.wake()

    # What a stream asks for.

    def begin(self, stream: Stream, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of an answer, with the first of its body if that is there soon."""
        given = [*self._state.default_headers, *headers] if status >= 200 else headers
        self._h2.send_headers(stream.number, heads.written(status, given))
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self.flush)

    def expect(self, size: int) -> None:
        """A piece of an answer will go out."""
        self._meter.expect(size)

    def room(self, stream: Stream, wanted: int) -> int | None:
        """How many bytes may be sent now; None while the peer, or the network, takes no more."""
        if self._is_paused:
            return None
        if not wanted:
            return 0
        window = self._h2.local_flow_control_window(stream.number)
        return min(wanted, window, frames.MOST_FRAME_BYTES) if window > 0 else None

    def send(self, stream: Stream, piece: bytes, *, is_last: bool) -> None:
        """Send so much of the answer. What is left of a request then is read for a while, since not every client looks
        for an answer, or understands a reset, before it has sent all.
        """
        self._h2.send_data(stream.number, piece, end_stream=is_last)
        if is_last:
            if not stream.has_whole_request:
                self._unread.add(stream.number)
                stream.leave()
            self._answered(stream)
        self.flush()

    def _wave_off(self, number: int) -> None:
        self._h2.reset_stream(number, ErrorCodes.NO_ERROR)
        self.flush()
        self._close_if_done()

    def acknowledge(self, stream: Stream, size: int) -> None:
        """As much as was taken may come."""
        if not self._has_ended:
            self._h2.acknowledge_received_data(size, stream.number)
            self.flush()

    def give_up(self, stream: Stream) -> None:
        """Its answer won't be whole, and the peer has to see that."""
        if stream.is_gone or self._has_ended:
            return
        self._h2.reset_stream(stream.number, ErrorCodes.INTERNAL_ERROR)
        stream.leave()
        self._answered(stream)
        self.flush()

    def _answered(self, stream: Stream) -> None:
        self._awaited.discard(stream.number)
        if not self._awaited and (self._is_last or self._gateway.leaving.is_set()):
            self._announce()

    def flush(self) -> None:
        """Send what h2 has made."""
        self._is_flushing = False
        content = self._h2.data_to_send()
        if content and not self._has_ended and not self._transport.is_closing():
            self._transport.write(content)

    # How it ends.

    def _watch(self) -> None:
        """See that what somebody began to send ends, and that who asks nothing goes. No frame, and no byte, that comes
        in between makes its time longer.
        """
        self._patience.owe(None if self._has_ended else self._now_owed())

    def _now_owed(self) -> tuple[str, int] | None:
        if not self._streams:
            return _A_REQUEST, self._begun
        return (_A_HEAD, self._meter.whole) if self._meter.is_within_head else None

    def _too_slow(self, what: str) -> None:
        if what == _A_HEAD:
            self._end(ErrorCodes.ENHANCE_YOUR_CALM, "a head took too long")
        else:
            self._end(ErrorCodes.NO_ERROR, "")

    def _announce(self) -> None:
        """Say that this is the end, and take what was sent before that was read: what is on its way is answered."""
        if self._has_announced or self._has_ended:
            return
        self._has_announced = True
        # In one piece, and the last word last: clients made with h2 understand nothing that comes after it.
        self._h2.ping(_NOTICE)
        last = frames.going_away(terms.HIGHEST_STREAM, ErrorCodes.NO_ERROR)
        self._transport.write(self._h2.data_to_send() + last)
        self._notice = self._loop.call_later(_NOTICE_SECONDS, self._told)

    @property
    def _is_told(self) -> bool:
        """Whether whatever comes was sent by who knew."""
        return self._has_announced and self._notice is None

    def _told(self) -> None:
        if self._notice is None or self._has_ended:
            return
        self._notice.cancel()
        self._notice = None
        self._transport.write(frames.going_away(self._h2.highest_inbound_stream_id, ErrorCodes.NO_ERROR))
        self._close_if_done()

    def _close_if_done(self) -> None:
        if not self._streams and not self._unread and (self._is_told or (self._is_last and not self._has_announced)):
            self._end(ErrorCodes.NO_ERROR, "")

    def _end(self, code: ErrorCodes | int, why: str) -> None:
        """Now, and for all streams. Who doesn't read it either isn't waited for."""
        if self._has_ended:
            return
        if why:
            log.warning("an HTTP/2 connection was ended: %s", why)
            self._h2.clear_outbound_data_buffer()  # h2's own word on it.
        last = frames.going_away(self._h2.highest_inbound_stream_id, ErrorCodes(code), why)
        self._transport.write(self._h2.data_to_send() + last)
        self._has_ended = True
        for stream in list(self._streams.values()):
            stream.leave()
        self._transport.close()
        if self._stuck is not None:
            self._stuck.cancel()
        self._stuck = self._loop.call_later(self._settings.head_seconds, self._transport.abort)
        self._watch()
