"""The next page of a list as a link (RFC 8288), for who follows links instead of reading tokens."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote, urlencode

from google.protobuf.message import Message

from services.gateway.exchange import Exchange

_TOKENS = ("page_token", "pageToken")
_MOST_BYTES = 4096


def add_link(exchange: Exchange, query: Sequence[tuple[str, str]], response: Message) -> None:
    """Say where the next page is, where there is one and its address isn't too long for a header."""
    token = getattr(response, "next_page_token", "")
    if not token or exchange.method not in ("GET", "HEAD"):
        return
    others = [(name, value) for name, value in query if name not in _TOKENS]
    # What came is written anew: nothing of it can end the address, or the header.
    path = quote(exchange.raw_path, safe="/%:@!$&'()*+,;=-._~")
    link = f'<{path}?{urlencode([*others, (_TOKENS[0], token)])}>; rel="next"'
    if len(link) <= _MOST_BYTES:
        exchange.answer_headers.append((b"link", link.encode("ascii")))
