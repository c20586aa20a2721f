"""What is said of an RPC whose end is in sight: `Deprecation` (RFC 9745) and `Sunset` (RFC 8594), from its proto."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from email.utils import format_datetime

from google.protobuf.descriptor import MethodDescriptor

from recoup.mesh.v1 import lifecycle_pb2
from services.gateway.templates import RouteError

Notices = tuple[tuple[bytes, bytes], ...]


def notices(method: MethodDescriptor) -> Notices:
    """The headers of its answers. Raises RouteError for a day that is none, or a deprecation without one."""
    options = method.GetOptions()
    said = options.Extensions[lifecycle_pb2.lifecycle]
    if not said.deprecated_on:
        if options.deprecated or said.sunset_on:
            raise RouteError("is deprecated, and doesn't say since when: set (recoup.mesh.v1.lifecycle).deprecated_on")
        return ()
    since = _day(said.deprecated_on)
    found = [(b"deprecation", f"@{int(since.timestamp())}".encode())]
    if said.sunset_on:
        until = _day(said.sunset_on)
        if until <= since:
            raise RouteError("is gone before it is deprecated: sunset_on must be after deprecated_on")
        found.append((b"sunset", format_datetime(until, usegmt=True).encode()))
    return tuple(found)


def _day(text: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(text), time.min, UTC)
    except ValueError as error:
        raise RouteError(f"has {text!r} for a day, which must be as 2026-11-26") from error
