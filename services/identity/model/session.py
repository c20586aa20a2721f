"""Session tokens as Supabase signs them: what a token must look like before any key is fetched, and what it claims.

Pure. The algorithm is pinned by the key and never taken from the header; `user_metadata` is never read, because users
can write it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from services._mesh import compact

MAX_TOKEN_BYTES = 8192
ALGORITHMS = frozenset({"ES256", "RS256", "EdDSA"})
# The project's clock and ours may differ by two minutes; the rest is for the way.
SKEW_SECONDS = 150
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# A header that names where its own key lies, or demands extensions, isn't one that Supabase makes.
_HEADER_KEYS = frozenset({"alg", "kid", "typ"})
# The one role of people who signed in: not service_role, not anon, not what else a project's keys stand for.
_PERSON = "authenticated"
_MAX_EMAIL = 320


class SessionInvalid(Exception):
    """The token can't be accepted. The text is for our own log only."""


class SessionExpired(SessionInvalid):
    """The token was good once."""


@dataclass(frozen=True, slots=True)
class Session:
    """A person's session: user id, session id, assurance level (1 or 2), when they last proved who they are (0 where
    the token doesn't say), until when it is accepted, and the organization that its claims name.
    """

    user_id: UUID
    session_id: str
    email: str
    aal: int
    auth_time: int
    expires_at: int
    organization_hint: UUID | None


def read_header(token: str) -> tuple[str, str]:
    """The key id and algorithm that the token's header names, for finding the key. Raises SessionInvalid."""
    if len(token) > MAX_TOKEN_BYTES or not _SHAPE.fullmatch(token):
        raise SessionInvalid("shape")
    first, second, third = token.split(".")
    try:
        header = compact.members(compact.octets(first))
        compact.octets(second), compact.octets(third)
    except ValueError as error:
        raise SessionInvalid("encoding") from error
    kid, algorithm, typ = header.get("kid"), header.get("alg"), header.get("typ", "JWT")
    if not header.keys() <= _HEADER_KEYS or not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise SessionInvalid("header")
    if not isinstance(typ, str) or typ.upper() != "JWT":
        raise SessionInvalid("type")
    if not isinstance(kid, str) or not 0 < len(kid) <= 200:
        raise SessionInvalid("kid")
    return kid, algorithm


def read_claims(claims: Mapping[str, Any], issuer: str, audience: str, now: float) -> Session:
    """The session that verified claims stand for. Raises SessionInvalid, SessionExpired."""
    if claims.get("iss") != issuer:
        raise SessionInvalid("issuer")
    given = claims.get("aud")
    if audience not in (given if isinstance(given, list) else [given]):
        raise SessionInvalid("audience")
    expires_at, issued_at = _integer(claims, "exp"), _integer(claims, "iat")
    if expires_at + SKEW_SECONDS <= now:
        raise SessionExpired("expired")
    if max(issued_at, _integer(claims, "nbf", issued_at)) > now + SKEW_SECONDS:
        raise SessionInvalid("not yet valid")
    if claims.get("role") != _PERSON or claims.get("is_anonymous", False) is not False:
        raise SessionInvalid("not a person")
    return Session(
        _uuid(claims.get("sub")),
        str(_uuid(claims.get("session_id"))),
        _email(claims.get("email")),
        2 if claims.get("aal") == "aal2" else 1,
        _auth_time(claims.get("amr"), now),
        expires_at + SKEW_SECONDS,
        _hint(claims),
    )


def _auth_time(methods: Any, now: float) -> int:
    """The latest authentication in `amr`. Where it says none, nobody knows: how old the token is says nothing, since
    any token may come from a refresh.
    """
    times = [
        method.get("timestamp")
        for method in (methods if isinstance(methods, list) else [])
        if isinstance(method, dict) and method.get("method") != "token_refresh"
    ]
    known = [t for t in times if isinstance(t, int) and not isinstance(t, bool) and 0 <= t <= now + SKEW_SECONDS]
    return max(known, default=0)


def _hint(claims: Mapping[str, Any]) -> UUID | None:
    """The organization that the project's server side wrote into the token, at the top (as a custom access token hook
    does) or in `app_metadata`. It only chooses among memberships, so that one that can't be read is none.
    """
    metadata = claims.get("app_metadata")
    below = metadata.get("organization_id") if isinstance(metadata, dict) else None
    try:
        return _uuid(claims.get("organization_id", below))
    except SessionInvalid:
        return None


def _email(value: Any) -> str:
    usable = isinstance(value, str) and len(value) <= _MAX_EMAIL and value.isprintable()
    return str(value) if usable else ""


def _integer(claims: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = claims.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise SessionInvalid(key)
    return value


def _uuid(value: Any) -> UUID:
    """A UUID in its one spelling."""
    try:
        found = UUID(value)
    except (ValueError, AttributeError, TypeError) as error:
        raise SessionInvalid("uuid") from error
    if str(found) != value:
        raise SessionInvalid("uuid")
    return found
