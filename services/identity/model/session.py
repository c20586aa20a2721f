"""Session tokens as Supabase signs them: what a token must look like before any key is fetched, and what it claims.

Pure. The algorithm is pinned by the key and never taken from the header; `user_metadata` is never read, because users
can write it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

MAX_TOKEN_BYTES = 8192
ALGORITHMS = frozenset({"ES256", "RS256", "EdDSA"})
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# A header that names where its own key lies, or demands extensions, isn't one that Supabase makes.
_HEADER_KEYS = frozenset({"alg", "kid", "typ"})
_REFUSED_ROLES = frozenset({"service_role", "anon", "supabase_admin"})
_LEEWAY_SECONDS = 5


class SessionInvalid(Exception):
    """The token can't be accepted. The text is for our own log only."""


class SessionExpired(SessionInvalid):
    """The token was good once."""


@dataclass(frozen=True, slots=True)
class Session:
    """A person's session: user id, session id, assurance level (1 or 2), when they proved who they are, the end."""

    user_id: UUID
    session_id: str
    email: str
    aal: int
    auth_time: int
    expires_at: int
    organization_hint: str


def read_header(token: str) -> tuple[str, str]:
    """The key id and algorithm that the token's header names, for finding the key. Raises SessionInvalid."""
    if len(token) > MAX_TOKEN_BYTES or not _SHAPE.fullmatch(token):
        raise SessionInvalid("shape")
    first, second, third = token.split(".")
    header = _json(first)
    _strict(second), _strict(third)
    if not header.keys() <= _HEADER_KEYS or header.get("alg") not in ALGORITHMS:
        raise SessionInvalid("header")
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= 200:
        raise SessionInvalid("kid")
    return kid, str(header["alg"])


def read_claims(claims: Mapping[str, Any], issuer: str, audience: str, now: float) -> Session:
    """The session that verified claims stand for. Raises SessionInvalid, SessionExpired."""
    if claims.get("iss") != issuer:
        raise SessionInvalid("issuer")
    given = claims.get("aud")
    if audience not in (given if isinstance(given, list) else [given]):
        raise SessionInvalid("audience")
    expires_at, issued_at = _integer(claims, "exp"), _integer(claims, "iat")
    if expires_at <= now:
        raise SessionExpired("expired")
    if issued_at > now + _LEEWAY_SECONDS or _integer(claims, "nbf", issued_at) > now + _LEEWAY_SECONDS:
        raise SessionInvalid("not yet valid")
    if claims.get("role") in _REFUSED_ROLES or claims.get("is_anonymous") is True:
        raise SessionInvalid("not a person")
    metadata = claims.get("app_metadata")
    return Session(
        _uuid(claims, "sub"),
        str(_uuid(claims, "session_id")),
        str(claims.get("email", "")),
        2 if claims.get("aal") == "aal2" else 1,
        _auth_time(claims, issued_at),
        expires_at,
        str(metadata.get("organization_id", "")) if isinstance(metadata, dict) else "",
    )


def _auth_time(claims: Mapping[str, Any], issued_at: int) -> int:
    """The latest authentication in `amr`; a refreshed token's own age says nothing about it."""
    methods = claims.get("amr")
    times = [m.get("timestamp") for m in methods if isinstance(m, dict)] if isinstance(methods, list) else []
    return max([t for t in times if isinstance(t, int)], default=issued_at)


def _integer(claims: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = claims.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise SessionInvalid(key)
    return value


def _uuid(claims: Mapping[str, Any], key: str) -> UUID:
    try:
        return UUID(str(claims[key]))
    except (KeyError, ValueError) as error:
        raise SessionInvalid(key) from error


def _json(part: str) -> dict[str, Any]:
    try:
        value = json.loads(_strict(part))
    except (ValueError, RecursionError) as error:
        raise SessionInvalid("json") from error
    if not isinstance(value, dict):
        raise SessionInvalid("json")
    return value


def _strict(part: str) -> bytes:
    """base64url without padding in its one canonical spelling."""
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise SessionInvalid("base64url") from error
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise SessionInvalid("base64url")
    return data
