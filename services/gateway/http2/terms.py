"""What a connection says of itself at its start, and h2 set up for it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from hpack import Decoder, Encoder, HeaderTuple, HPACKDecodingError

from services.gateway.config import EdgeSettings

# At its finest, it says every header of every caller, their credentials too.
logging.getLogger("hpack").setLevel(logging.WARNING)

HIGHEST_STREAM = 2**31 - 1


class _Connection(H2Connection):
    """h2, but for two things. It remembers how streams ended: of fewer of them than it would, since a connection has no
    other bound. And it would end the connection over a body of another length than was announced.
    """

    MAX_CLOSED_STREAMS = 300

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        setattr(stream, "_initialize_content_length", _believe)  # noqa: B010
        return stream


class _StrictDecoder(Decoder):
    """hpack's own, which takes a head of nothing but changes of its table: 64 KiB of them in 40 ms. Two may begin one
    (RFC 7541, 4.2).
    """

    _MOST_CHANGES = 2
    _changes = 0

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        """The headers. Raises HPACKError."""
        self._changes = 0
        return super().decode(data, raw)

    def _update_encoding_context(self, data: bytes | memoryview) -> int:
        self._changes += 1
        if self._changes > self._MOST_CHANGES:
            raise HPACKDecodingError("too many changes of the table's size")
        return super()._update_encoding_context(data)


class PlainEncoder(Encoder):
    """Heads of answers as RFC 7541 writes them, without its table and Huffman's code: as long as those of HTTP/1.1.

    So nothing is kept for a caller, however large a table they ask for; no secret is compressed together with what
    somebody else chose (7.1); and a head costs a tenth of the processor time that hpack takes in Python.
    """

    def __init__(self) -> None:
        super().__init__()
        # Said once, at the beginning: the table has no room, and so never has more than a caller allows (4.2).
        self._first = b"\x20"

    @property
    def header_table_size(self) -> int:
        """Nothing."""
        return 0

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        """What a caller allows."""

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        """A block of headers, none of which anybody on the way is to keep either (6.2.3)."""
        first, self._first = self._first, b""
        fields = [b"\x10" + _length(name) + name + _length(value) + value for name, value in headers]
        return first + b"".join(fields)


def _length(text: bytes) -> bytes:
    """How long a text is (RFC 7541, 5.1, of seven bits)."""
    left = len(text) - 127
    if left < 0:
        return bytes((len(text),))
    found = bytearray((127,))
    while left >= 128:
        found.append(128 + left % 128)
        left //= 128
    found.append(left)
    return bytes(found)


def _believe(_headers: object) -> None:
    """Lengths are compared where the body is read."""


def made(edge: EdgeSettings) -> H2Connection:
    """h2's part, with its first words to be sent.

    It checks no head, and takes any number of streams: over a bad head, or a stream too many, it would end the
    connection, where one request is to be refused.
    """
    connection = _Connection(
        H2Configuration(
            client_side=False,
            validate_inbound_headers=False,
            normalize_inbound_headers=False,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    connection.encoder, connection.decoder = PlainEncoder(), _StrictDecoder()
    most = edge.header_bytes + 32 * edge.header_count
    said = {
        SettingCodes.MAX_CONCURRENT_STREAMS: edge.connection_streams,
        SettingCodes.MAX_HEADER_LIST_SIZE: most,
        SettingCodes.ENABLE_PUSH: 0,
    }
    connection.local_settings = Settings(client=False, initial_values=said)
    connection.initiate_connection()
    held = said | {SettingCodes.MAX_CONCURRENT_STREAMS: HIGHEST_STREAM}
    connection.local_settings = Settings(client=False, initial_values=held)
    connection.decoder.max_header_list_size = 2 * most  # What is between the two gets an answer (431).
    return connection
