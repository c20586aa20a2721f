"""Reads the head of an HTTP/2 request (RFC 9113, section 8) as what HTTP/1.1 would have said, and writes an answer's.

Strict: what another reader on the way could take for something else is no request. h2's own checks are off, because it
ends the whole connection over one bad request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_REQUIRED = (b":method", b":scheme", b":path", b":authority")
# Section 8.2.2; what HTTP/1.1 says of a connection would be said of the next one here.
_OF_A_CONNECTION = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"http2-settings"}
)
_METHOD = re.compile(rb"[A-Z][A-Z_-]{0,30}")
_PATH = re.compile(rb"/[!-\"$-~]*")  # No fragment: it is the caller's own.
_AUTHORITY = re.compile(rb"[A-Za-z0-9._\[\]:-]{1,300}")
_NAME = re.compile(rb"[a-z0-9!#$%&'*+.^_`|~-]+")
# RFC 9110, 5.5, without white space around it: a line break would begin another header for whoever speaks HTTP/1.1.
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Malformed(Exception):
    """It is no request."""


class TooLarge(Exception):
    """It has more, or larger, headers than a head may have."""


@dataclass(frozen=True)
class Head:
    """What is asked; `headers` in lower case, with the host first, and the length that is announced for the body."""

    method: bytes
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    length: int | None = None


def read(given: Iterable[tuple[bytes, bytes]], *, has_body: bool, most_bytes: int, most_headers: int) -> Head:
    """The head. Raises TooLarge where path and headers are, and Malformed."""
    pseudo: dict[bytes, bytes] = {}
    headers: list[tuple[bytes, bytes]] = []
    crumbs: list[bytes] = []
    size = 0
    for name, value in given:
        size += len(name) + len(value)
        if not _VALUE.fullmatch(value):
            raise Malformed
        if name.startswith(b":"):
            if headers or crumbs or name in pseudo or name not in _PSEUDO:
                raise Malformed
            pseudo[name] = value
        elif not _NAME.fullmatch(name) or name in _OF_A_CONNECTION or (name == b"te" and value != b"trailers"):
            raise Malformed
        elif name == b"cookie":
            crumbs.append(value)  # Section 8.2.3: browsers send them one by one.
        else:
            headers.append((name, value))
    if crumbs:
        headers.append((b"cookie", b"; ".join(crumbs)))
    if size > most_bytes or len(headers) > most_headers:
        raise TooLarge
    return _checked(pseudo, headers, has_body=has_body)


def written(status: int, headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The head of an answer. Raises ValueError for a value that HTTP/1.1 would take for more than one."""
    fields = [(b":status", b"%d" % status)]
    for name, value in headers:
        if _CONTROLS.search(value):
            raise ValueError(f"the header {name!r} of an answer has control characters")
        fields.append((name.lower(), value))
    return fields


def _checked(pseudo: dict[bytes, bytes], headers: list[tuple[bytes, bytes]], *, has_body: bool) -> Head:
    hosts = {value for name, value in headers if name == b"host"}
    if b":authority" not in pseudo and len(hosts) == 1:
        pseudo[b":authority"] = next(iter(hosts))
    if any(name not in pseudo for name in _REQUIRED) or hosts - {pseudo[b":authority"]}:
        raise Malformed
    method, path, authority = pseudo[b":method"], pseudo[b":path"], pseudo[b":authority"]
    if not _METHOD.fullmatch(method) or not _PATH.fullmatch(path) or not _AUTHORITY.fullmatch(authority):
        raise Malformed
    length = _length(headers, has_body=has_body)
    if pseudo[b":scheme"] != b"https" or method == b"CONNECT":
        raise Malformed
    path, _, query = path.partition(b"?")
    rest = [each for each in headers if each[0] != b"host"]
    return Head(method, path, query, [(b"host", authority), *rest], length)


def _length(headers: Iterable[tuple[bytes, bytes]], *, has_body: bool) -> int | None:
    said = {value for name, value in headers if name == b"content-length"}
    if not said:
        return None
    if len(said) > 1 or not _LENGTH.fullmatch(next(iter(said))):
        raise Malformed
    length = int(said.pop())
    if length and not has_body:
        raise Malformed
    return length
