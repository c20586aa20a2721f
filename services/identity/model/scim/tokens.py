"""SCIM tokens: a prefix that secret scanners know, 256 random bits, of which only the SHA-256 is kept. Pure."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

PREFIX = "rcs_"
DEFAULT_LIFETIME = timedelta(days=365)
_SHAPE = re.compile(r"rcs_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class ScimToken:
    """A token's facts; the token itself is known to whoever holds it alone."""

    organization_id: UUID
    token_id: UUID
    name: str
    created_by: UUID
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None
    last_used_at: datetime | None = None

    def is_good(self, wall_now: datetime) -> bool:
        """Whether it lets anybody in. Tokens go by the wall clock."""
        return self.revoked_at is None and wall_now < self.expires_at


def new_token() -> str:
    """A token."""
    return PREFIX + secrets.token_urlsafe(32)


def is_token(text: str) -> bool:
    """Whether a text has a token's shape, so that it is worth looking up."""
    return _SHAPE.fullmatch(text) is not None


def digest(token: str) -> bytes:
    """What is kept of a token. It has 256 random bits, so that no salt or stretching is needed."""
    return hashlib.sha256(token.encode()).digest()
