"""What a connection says of itself at its start, and h2 set up for it."""

from __future__ import annotations

import logging
from typing import Any

from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, H2Connection
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from hpack import Encoder

from services.gateway.config import EdgeSettings

# At its finest, it says every header of every caller, their credentials too.
logging.getLogger("hpack").setLevel(logging.WARNING)

HIGHEST_STREAM = 2**31 - 1
TABLE_BYTES = 4096


class _Connection(H2Connection):
    """h2, but for two things. It remembers how streams ended: of fewer of them than it would, since a connection has no
    other bound. And it would end the connection over a body of another length than was announced.
    """

    MAX_CLOSED_STREAMS = 300

    def _begin_new_stream(self, stream_id: int, allowed_ids: AllowedStreamIDs) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        setattr(stream, "_initialize_content_length", _believe)  # noqa: B010
        return stream


class _Encoder(Encoder):
    """Without Huffman's code: what is the same in each answer is in the table anyway, and the rest is short, and took a
    tenth of the processor time of a request.
    """

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        """A block of headers."""
        return super().encode(headers, huffman)


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
    connection.encoder = _Encoder()
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


def keep_little(connection: H2Connection) -> None:
    """After the peer's settings: however large a table they would keep for us, we'd have to keep as much for them."""
    connection.encoder.header_table_size = min(connection.encoder.header_table_size, TABLE_BYTES)
