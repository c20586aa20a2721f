"""The keyed digest by which a repeated event is told from one with another content. Pure.

A plain SHA-256 would be a leak: all of an event but its actor and metadata stands in the projection beside it, so that
whoever reads the log's database could try every member of an organization against it, also after an erasure.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

Digest = Callable[[bytes], bytes]
_LABEL = b"recoup payload digest v1"


def keyed_digest(key: bytes) -> Digest:
    """HMAC-SHA256 under a key of its own, which comes from the key that actors are hashed with."""
    own = hmac.digest(key, _LABEL, "sha256")

    def digest(raw: bytes) -> bytes:
        return hmac.digest(own, raw, "sha256")

    return digest


def plain_digest(raw: bytes) -> bytes:
    """SHA-256: what the log kept before its digests were keyed."""
    return hashlib.sha256(raw).digest()
