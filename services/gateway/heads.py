"""Whether a head of HTTP/1.1 says one thing to everybody who reads it (RFC 9112). HTTP/2 has its own. Pure.

The parser takes what others read as another request, or as one for another host: what is no host, a target with one of
its own, a version that isn't spoken here, a coding of the body that nobody undoes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# As HTTP/2's authority and path are: no user, and no fragment, which is the caller's own.
_HOST = re.compile(rb"[A-Za-z0-9._\[\]:-]{1,300}")
_PATH = re.compile(rb"/[!-\"$-~\x80-\xff]*")
_ABSOLUTE = re.compile(rb"https?://([^/]*)/[!-\"$-~]*", re.IGNORECASE)
_SPOKEN = ("1.1", "1.0")


def is_clear(version: str, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether nobody takes it for another one. Names of headers are in lower case."""
    hosts, codings = [], []
    for name, value in headers:
        if name == b"host":
            hosts.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
    if version not in _SPOKEN or len(hosts) > 1 or (not hosts and version != "1.0"):  # RFC 9112, 3.2
        return False
    if hosts and not _HOST.fullmatch(hosts[0]):
        return False
    if codings and (version == "1.0" or [each.lower() for each in codings] != [b"chunked"]):  # RFC 9112, 6.1
        return False
    return _PATH.fullmatch(target) is not None or target == b"*" or _is_of(hosts, target)


def _is_of(hosts: list[bytes], target: bytes) -> bool:
    """Whether it is in the absolute form, and names the same host (RFC 9112, 3.2.2)."""
    found = _ABSOLUTE.fullmatch(target)
    return found is not None and [found.group(1).lower()] == [each.lower() for each in hosts]
