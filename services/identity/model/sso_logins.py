"""A sign-in on its way: the request, its test, the code and the session that come of it. Times are the wall clock's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

REQUEST_SECONDS, CODE_SECONDS, TEST_SECONDS = 600, 60, 3600
# Beyond this many sign-ins on their way somebody is filling the table: the oldest make room.
MAX_PENDING_REQUESTS = 10_000


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """A request that we sent somebody to a provider with.

    `challenge` binds what comes of it to the program that began it, `browser_sha256` to the browser; a test has none.
    """

    organization_id: UUID
    request_id: str
    provider_id: UUID
    relay_sha256: bytes
    challenge: str
    return_to: str
    test_id: UUID | None
    expires_at: datetime
    browser_sha256: bytes | None


@dataclass(frozen=True, slots=True)
class TestLogin:
    """A sign-in that is only a test. State is PENDING, PASSED or FAILED."""

    organization_id: UUID
    test_id: UUID
    provider_id: UUID
    config_version: int
    state: str
    problem: str
    name_id: str
    email: str
    role: str
    aal: int
    attribute_names: tuple[str, ...]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class LoginCode:
    """What a one-time code stands for."""

    organization_id: UUID
    code_sha256: bytes
    provider_id: UUID
    user_id: UUID
    aal: int
    authenticated_at: datetime
    session_ends_at: datetime
    challenge: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SsoSession:
    """A session made from an assertion."""

    organization_id: UUID
    session_id: UUID
    token_hash: bytes
    provider_id: UUID
    user_id: UUID
    aal: int
    authenticated_at: datetime
    expires_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class LoginFacts:
    """What of an assertion a session is made of."""

    aal: int
    authenticated_at: datetime
    session_ends_at: datetime | None
    challenge: str
