"""Looks at the nine bytes before each frame, before anybody parses it: how large it may be, and how often it may come.

What HTTP/2 says about itself (settings, pings, priorities, windows, resets) is nearly free to send and not to be read,
and neither h2 nor the protocol bounds it. It knows nothing of what frames mean, but for how a head continues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from h2.errors import ErrorCodes

from services._mesh.clock import monotonic

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# The types and flags of RFC 9113, section 6.
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, GOAWAY, CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x5, 0x7, 0x9
_ACK, _END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8
_HEAD_BYTES = 9
# The settings of section 6.5.2, and that of RFC 8441; what one of them is said in.
_KNOWN_SETTINGS = frozenset({0x1, 0x2, 0x3, 0x4, 0x5, 0x6, 0x8})
_SETTING_BYTES = 6
# The least that a peer may always send, and what we ask for: more would only be kept longer.
MOST_FRAME_BYTES = 16_384
_MOST_CONTINUATIONS = 16
# A body in pieces smaller than this costs more to read than it says.
_SMALL_BYTES = 256
# So many frames at once that aren't a request or its body, and so many a second. Firefox says its priorities in six.
_FRAMES, _FRAMES_A_SECOND = 1000, 50.0
# What each request may bring along (a priority, windows), and what each piece of an answer is worth, and so many bytes
# of it: some clients open a window for each frame that they got, that of the stream and that of the connection. Not by
# the frames that we send: who opens a window by one byte at a time would be paid for each.
_OF_A_REQUEST, _OF_A_PIECE, _BYTES_OF_ONE = 6, 2, 2048


class Excess(Exception):
    """More than a connection may do: it ends, with this code and why."""

    def __init__(self, why: str, code: ErrorCodes = ErrorCodes.ENHANCE_YOUR_CALM) -> None:
        super().__init__(why)
        self.why, self.code = why, code


class Frame(NamedTuple):
    """One frame as it came, with its nine bytes; the preface stands for a frame of no type (-1)."""

    kind: int
    stream: int
    content: bytes


class Budget:
    """So much at once, and so much a second."""

    def __init__(self, burst: float, rate: float, clock: Callable[[], float] = monotonic) -> None:
        self._burst, self._rate, self._clock = burst, rate, clock
        self._left, self._at = burst, clock()

    def take(self, what: str) -> None:
        """Count one. Raises Excess where nothing is left."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - 1
        self._at = now
        if self._left < 0:
            raise Excess(f"too many {what}")

    def earn(self, amount: float) -> None:
        """So much more, up to the burst."""
        self._left = min(self._burst, self._left + amount)


class Meter:
    """Cuts what comes into frames. `head_bytes` bounds a head as it comes, compressed."""

    def __init__(self, head_bytes: int, clock: Callable[[], float] = monotonic) -> None:
        self._most = head_bytes
        self._bytes = bytearray()
        self._preface_is_here = False
        self._looked = False
        # Of the head that isn't whole yet: how many bytes, in how many further frames.
        self._block: int | None = None
        self._continuations = 0
        self._frames = Budget(_FRAMES, _FRAMES_A_SECOND, clock)
        # How many heads and other frames were whole.
        self.whole = 0

    @property
    def is_within_head(self) -> bool:
        """Whether the rest of something is owed that isn't a body."""
        return self._block is not None or (bool(self._bytes) and self._bytes[3:4] != b"\x00")

    def frames(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole. Raises Excess at the first that may not be, before it is here."""
        self._bytes += data
        if not self._preface_is_here:
            if len(self._bytes) < len(PREFACE):
                if not PREFACE.startswith(self._bytes):
                    raise Excess("no preface", ErrorCodes.PROTOCOL_ERROR)
                return
            if not self._bytes.startswith(PREFACE):
                raise Excess("no preface", ErrorCodes.PROTOCOL_ERROR)
            self._preface_is_here = True
            del self._bytes[: len(PREFACE)]
            yield Frame(-1, 0, PREFACE)
        while len(self._bytes) >= _HEAD_BYTES:
            length = int.from_bytes(self._bytes[:3], "big")
            kind = self._bytes[3]
            if not self._looked:
                self._look(kind, self._bytes[4], length)
                self._looked = True
            if len(self._bytes) < _HEAD_BYTES + length:
                return
            frame = Frame(kind, _number(self._bytes), bytes(self._bytes[: _HEAD_BYTES + length]))
            del self._bytes[: _HEAD_BYTES + length]
            self._looked = False
            self.whole += self._block is None
            yield frame

    def charge(self) -> None:
        """Count a frame that was for nothing, since its stream was over."""
        self._frames.take("frames")

    def expect(self, size: int) -> None:
        """A piece of an answer goes out, and the peer will say that it got it."""
        self._frames.earn(_OF_A_PIECE + size / _BYTES_OF_ONE)

    def _look(self, kind: int, flags: int, length: int) -> None:
        if length > MOST_FRAME_BYTES:
            raise Excess("a frame is too large", ErrorCodes.FRAME_SIZE_ERROR)
        if kind == HEADERS:
            self._block, self._continuations = length, 0
            self._frames.earn(_OF_A_REQUEST)
        elif kind == CONTINUATION and self._block is not None:
            self._block, self._continuations = self._block + length, self._continuations + 1
        elif kind != DATA or flags & _PADDED or (length < _SMALL_BYTES and not flags & _END_STREAM):
            self._frames.take("frames")
        if self._block is not None:
            if self._block > self._most or self._continuations > _MOST_CONTINUATIONS:
                raise Excess("a head is too large")
            if flags & _END_HEADERS and kind in (HEADERS, CONTINUATION):
                self._block = None


def understood(frame: Frame) -> bytes:
    """The frame without settings that nobody knows, which mean nothing (section 6.5.2). h2 keeps each of 65,000 for as
    long as the connection lasts: 50 MB of it, for 400 KB that were sent.
    """
    content = frame.content
    if frame.kind != SETTINGS or content[4] & _ACK or (len(content) - _HEAD_BYTES) % _SETTING_BYTES:
        return content
    places = range(_HEAD_BYTES, len(content), _SETTING_BYTES)
    known = b"".join(
        content[at : at + _SETTING_BYTES] for at in places if not content[at] and content[at + 1] in _KNOWN_SETTINGS
    )
    return len(known).to_bytes(3, "big") + content[3:_HEAD_BYTES] + known


def going_away(last: int, code: ErrorCodes, why: str = "") -> bytes:
    """A GOAWAY frame. h2 takes a connection for over once it has made one, and answers nothing more on it."""
    content = last.to_bytes(4, "big") + int(code).to_bytes(4, "big") + why.encode()
    return len(content).to_bytes(3, "big") + bytes((GOAWAY, 0)) + bytes(4) + content


def _number(head: bytearray) -> int:
    return int.from_bytes(head[5:9], "big") & 0x7FFFFFFF
