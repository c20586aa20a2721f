"""Reads the body of a request: within its limit, within the time of a call, and of a media type that is taken here."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from services._mesh.errors import DeadlinePassed, Exhausted, FieldViolation, Invalid, Reason, invalid_field
from services.gateway import coding
from services.gateway.exchange import Exchange, Receive

_MAX_LENGTH_DIGITS = 18


async def read_body(exchange: Exchange, receive: Receive, limit: int, seconds: float) -> bytes:
    """The whole body, without its coding. Raises Exhausted beyond `limit` bytes, with and without it, DeadlinePassed
    after `seconds`, and Invalid for a coding that isn't one of ours.
    """
    if not exchange.may_have_body:
        return b""
    body = bytearray()
    declared = exchange.headers.get("content-length", "0")
    # int() takes no more than 4300 digits, and none are needed to see that these are too many.
    if declared.isdecimal() and (len(declared.lstrip("0")) > _MAX_LENGTH_DIGITS or int(declared[-20:]) > limit):
        raise _too_large(limit)
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise DeadlinePassed(Reason.ERROR_REASON_DEADLINE_TOO_SHORT, "The caller went away.")
                body += message.get("body", b"")
                if len(body) > limit:
                    raise _too_large(limit)
                if not message.get("more_body"):
                    break
    except TimeoutError as error:
        raise DeadlinePassed(
            Reason.ERROR_REASON_REQUEST_TOO_SLOW, "The body didn't arrive within the time of a call."
        ) from error
    given = exchange.headers.get("content-encoding", "")
    if not body or not given:
        return bytes(body)
    try:
        return coding.decoded(bytes(body), given, limit)
    except Invalid as problem:
        if problem.reason == Reason.ERROR_REASON_MEDIA_TYPE_UNSUPPORTED:  # RFC 9110, 15.5.16
            exchange.answer_headers.append((b"accept-encoding", ", ".join(coding.CODINGS).encode()))
        raise


def require_media_type(exchange: Exchange, allowed: Collection[str]) -> None:
    """Raise Invalid unless the body's media type is one of `allowed`."""
    given = exchange.headers.get("content-type", "")
    if given.partition(";")[0].strip().lower() not in allowed:
        raise _unsupported(given, f"Send the body as {' or '.join(sorted(allowed))}.")


def require_utf8(exchange: Exchange) -> None:
    """Raise Invalid where the body's media type names another charset than UTF-8."""
    given = exchange.headers.get("content-type", "")
    for parameter in given.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in ("utf-8", "utf8"):
            raise _unsupported(given, "Send the body as UTF-8.")


def _unsupported(given: str, message: str) -> Invalid:
    return Invalid(Reason.ERROR_REASON_MEDIA_TYPE_UNSUPPORTED, message, {"content_type": given[:100]})


def _too_large(limit: int) -> Exhausted:
    return Exhausted(Reason.ERROR_REASON_TOO_LARGE, f"The body is larger than {limit} bytes.", {"limit": str(limit)})


def unreadable() -> Invalid:
    """What is said of bytes that are no request."""
    return invalid_field(
        "(request)", "must be a request of HTTP, for one host, with its path and the names of headers in ASCII."
    )


def too_large_head(limit: int, count: int) -> Invalid:
    """What is said of a request whose path and headers go beyond `limit` bytes, or of more than `count` headers."""
    rule = f"must have at most {limit} bytes together with the path, and be at most {count}"
    return Invalid(
        Reason.ERROR_REASON_HEADERS_TOO_LARGE,
        f"The path and headers are larger than {limit} bytes, or there are more than {count} headers.",
        {"limit": str(limit)},
        [FieldViolation("(headers)", rule)],
    )


def too_slow_head(seconds: float) -> DeadlinePassed:
    """What is said of a request whose path and headers didn't come within their time."""
    return DeadlinePassed(
        Reason.ERROR_REASON_REQUEST_TOO_SLOW, f"The path and headers didn't arrive within {seconds:g} s."
    )
