"""Browser sessions: what a dashboard's cookie stands for, and when that is over. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

# The cookie's text is made as session tokens are (sso_tokens): the organization, and 256 random bits.
PREFIX = "rcb_"
LIFETIME = timedelta(hours=12)
IDLE = timedelta(minutes=30)
# How precise "last used" is. A session in use is shown here every few minutes, when its passport ends.
USE_NOTED_EVERY = timedelta(minutes=1)
MOST_LISTED = 100


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """One of them. `login_id` is the session of the sign-in that it was made of; `provider_id` the identity provider of
    that, whose sessions are for one organization. Times are wall time.
    """

    organization_id: UUID
    session_id: UUID
    token_sha256: bytes
    user_id: UUID
    login_id: str
    provider_id: UUID | None
    aal: int
    authenticated_at: datetime
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None

    @property
    def key(self) -> str:
        """How passports and the revocation feed name it."""
        return key_of(self.organization_id, self.session_id)


@dataclass(frozen=True, slots=True)
class Shown:
    """A session as the database sees it at a moment: `is_over` and `is_idle` are compared there."""

    session: BrowserSession
    used_at: datetime
    is_over: bool
    is_idle: bool
    is_use_noted: bool

    @property
    def idle_ends_at(self) -> datetime:
        """When it ends unless it is used before."""
        return min(self.used_at + IDLE, self.session.expires_at)


def key_of(organization_id: UUID, session_id: UUID) -> str:
    """How a session of an organization is named."""
    return f"{organization_id}/{session_id}"


def read_key(key: str) -> tuple[UUID, UUID]:
    """Organization and session of a key. Raises ValueError."""
    organization_id, _, session_id = key.partition("/")
    return UUID(organization_id), UUID(session_id)
