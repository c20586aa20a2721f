"""Conditional requests (RFC 9110, 13): tags of answers, 304 for who has the same already, `If-Match` for changes.

A tag of JSON is the etag of what it shows, where that has one, a point, and a digest of the whole; `If-Match` takes the
etag of it, or the etag alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from services._mesh.errors import Invalid, invalid_field
from services.gateway.coding import CODINGS
from services.gateway.exchange import Exchange
from services.gateway.shapes import unknown

_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]{1,200})"')
_ETAG = "etag"
_CHANGES = ("PUT", "POST", "PATCH", "DELETE")


def tag(body: bytes, response: Message | None = None) -> str:
    """The tag of an answer, without its quotes."""
    digest = hashlib.sha256(body).hexdigest()[:32]
    etag = _etag_of(response) if response is not None else ""
    return f"{etag}.{digest}" if etag else digest


def _etag_of(response: Message) -> str:
    """The etag of a response, or of the one message in it."""
    found = _etag_from(response.DESCRIPTOR)(response)
    return found if isinstance(found, str) and _TAG.fullmatch(f'"{found}"') else ""


@cache
def _etag_from(descriptor: Descriptor) -> Callable[[Message], Any]:
    """Where messages of that type have it."""
    fields = descriptor.fields
    inner = fields[0].message_type if len(fields) == 1 and not fields[0].is_repeated else None
    if _ETAG in (inner or descriptor).fields_by_name:
        return attrgetter(f"{fields[0].name}.{_ETAG}" if inner else _ETAG)
    return lambda _: ""


def is_known(exchange: Exchange, shown: str) -> bool:
    """Whether the caller has it already: what `If-None-Match` names is compared weakly, and without our codings."""
    given = exchange.headers.get("if-none-match", "")
    if exchange.method not in ("GET", "HEAD") or not given:
        return False
    return given.strip() == "*" or shown in (_without_coding(each) for each in _TAG.findall(given))


def require_match(exchange: Exchange, request: Message) -> None:
    """Put the etag of `If-Match` into the request of a change. Raises Invalid where it can't be compared, or is given
    otherwise too.
    """
    if exchange.method not in _CHANGES:
        return
    if "if-none-match" in exchange.headers:
        raise unknown("If-None-Match", "what changes something is asked with If-Match, where it compares an etag")
    given = exchange.headers.get("if-match")
    if given is None:
        return
    if _ETAG not in request.DESCRIPTOR.fields_by_name:
        raise unknown("If-Match", "this call compares no etag")
    found = _TAG.fullmatch(given.strip())
    if found is None or found.group().startswith("W/"):
        raise _wrong("must be one strong tag, as ETag said it.")
    whole = _without_coding(found.group(1))
    etag = whole.rpartition(".")[0] or whole
    written: Any = request
    if written.etag not in ("", etag):
        raise _wrong("must be the same as etag: send one of them.")
    written.etag = etag
    exchange.is_conditional = True


def _wrong(rule: str) -> Invalid:
    return invalid_field("If-Match", rule)


def _without_coding(shown: str) -> str:
    before, _, coding = shown.rpartition("-")
    return before if coding in CODINGS else shown
