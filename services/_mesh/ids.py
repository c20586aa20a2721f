"""Makes identifiers: UUIDs of version 7 (RFC 9562), which sort by the time they were made. Knows the one fixed id."""

from __future__ import annotations

import os
import re
import time
from uuid import UUID

# The platform organization: what is the installation's own, and no customer's, stands under it.
PLATFORM = UUID(int=0)
# Any UUID as people write it.
UUID_TEXT = re.compile("(?i:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")
_VERSION = 7 << 76
_VARIANT = 0b10 << 62
_RAND_A = ((1 << 12) - 1) << 64
_RAND_B = (1 << 62) - 1


def uuid7() -> UUID:
    """A new UUID: 48 bits of wall-clock milliseconds, then 74 random bits.

    The time inside is a sorting aid for indexes, never evidence of when something happened, so that it may
    come from the wall clock even where the injected clock has been moved.
    """
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    return UUID(int=(milliseconds & 0xFFFF_FFFF_FFFF) << 80 | _VERSION | random & _RAND_A | _VARIANT | random & _RAND_B)
