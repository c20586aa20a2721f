"""Cookies: the one of a browser session, and those of forwarded protocols, which only their names tell apart here.

A browser session's token is in no body and no URL: it leaves as a cookie that no script reads and comes back as one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from recoup.mesh.v1 import forward_pb2
from services._mesh.errors import Internal
from services._mesh.telemetry import trace_id
from services.gateway.exchange import Exchange

# For this host alone, over TLS alone: nobody else's page or host can set one of this name.
NAME = "__Host-recoup-session"
PREFIX = "rcb_"
CSRF_HEADER = "recoup-csrf"
_TOKEN = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{64}}")
_VALUE = re.compile(r"[A-Za-z0-9_-]{0,200}")
_FIELD, _TYPE = "cookie", forward_pb2.HttpCookie.DESCRIPTOR.full_name
_CSRF_LABEL = b"recoup csrf 1"


def value_of(exchange: Exchange, name: str) -> str:
    """The value of a cookie that was shown once; else nothing."""
    given = exchange.headers.get("cookie", "")
    if not name or name not in given:
        return ""
    shown = [each.partition("=") for each in map(str.strip, given.split(";")) if each.startswith(name)]
    values = [value for key, _, value in shown if key == name]
    return values[0] if len(values) == 1 and _VALUE.fullmatch(values[0]) else ""


def session_of(exchange: Exchange) -> str:
    """The token of the browser session that is shown; else nothing."""
    value = value_of(exchange, NAME)
    return value if _TOKEN.fullmatch(value) else ""


def csrf_token(session: str) -> str:
    """What a page of ours says to show that it may read our answers: made of the session's secret, so that it is this
    session's alone, nothing more is kept, and nothing of the secret shows.
    """
    made = hmac.new(session.encode(), _CSRF_LABEL, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode()


@cache
def sets_cookie(response: Descriptor) -> bool:
    """Whether answers of that type may set or clear the session's cookie."""
    field = response.fields_by_name.get(_FIELD)
    return field is not None and field.message_type is not None and field.message_type.full_name == _TYPE


def keep(exchange: Exchange, response: Message) -> None:
    """Turn the cookie of an answer into headers. It is in the body no more."""
    held: Any = response
    if not sets_cookie(held.DESCRIPTOR) or not held.HasField(_FIELD):
        return
    cookie: forward_pb2.HttpCookie = held.cookie
    value, seconds = cookie.value, cookie.max_age_seconds
    response.ClearField(_FIELD)
    exchange.answer_headers.append((b"set-cookie", written(NAME, value, seconds, "Strict")))
    if value:
        exchange.answer_headers.append((CSRF_HEADER.encode(), csrf_token(value).encode()))
    else:
        # Not "cookies": that clears those of all hosts of the domain.
        exchange.answer_headers.append((b"clear-site-data", b'"cache", "storage"'))


def written(name: str, value: str, seconds: int, same_site: str) -> bytes:
    """The header's value. Raises Internal for a value that might be more than one."""
    if not _VALUE.fullmatch(value):
        raise Internal(trace_id())
    return f"{name}={value}; Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite={same_site}".encode()
