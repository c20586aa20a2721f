"""API tokens and service accounts: their text, their shapes, and the rules about them. Pure.

A token's text is `rcp_`, 256 random bits in base 62, and a checksum by which scanners for leaked secrets know it, and
by which a mistyped or made-up one is refused before anybody asks the database. Only its SHA-256 is kept, and a token
is found by that: comparing digests of 256 random bits tells nobody anything by the time that it takes.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services._mesh.errors import Denied, Reason, WrongState, invalid_field
from services.identity.model.membership import etag

PREFIX = "rcp_"
# A token proves nothing about a second factor.
TOKEN_AAL = 1
MAX_LIFETIME = timedelta(days=365)
MAX_OVERLAP_HOURS = 72
# Each counts those that are neither expired nor revoked.
MAX_TOKENS_OF_A_USER = 50
MAX_TOKENS_OF_A_SERVICE_ACCOUNT = 50
MAX_SERVICE_ACCOUNTS = 200
# How precise "last used" is; it is no reason to write more often.
USE_NOTED_EVERY = timedelta(minutes=1)
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_BITS, _RANDOM_DIGITS, _CHECK_DIGITS, _HINT = 256, 43, 6, 8
_SHAPE = re.compile(rf"rcp_[0-9A-Za-z]{{{_RANDOM_DIGITS + _CHECK_DIGITS}}}")


class TokenTextInvalid(Exception):
    """The text can't be a token's. It says nothing about the text itself."""


def new_text() -> str:
    """The text of a new token."""
    start = PREFIX + _digits(secrets.randbits(_RANDOM_BITS), _RANDOM_DIGITS)
    return start + _check(start)


def digest(token: str) -> bytes:
    """What is kept of a token's text. Raises TokenTextInvalid."""
    if not _SHAPE.fullmatch(token) or token[-_CHECK_DIGITS:] != _check(token[:-_CHECK_DIGITS]):
        raise TokenTextInvalid
    return hashlib.sha256(token.encode("ascii")).digest()


def hint(token: str) -> str:
    """The characters by which people find a token in a list."""
    return token[:_HINT]


def _check(start: str) -> str:
    return _digits(zlib.crc32(start.encode("ascii")), _CHECK_DIGITS)


def _digits(number: int, width: int) -> str:
    found = []
    for _ in range(width):
        number, digit = divmod(number, len(_ALPHABET))
        found.append(_ALPHABET[digit])
    return "".join(reversed(found))


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A machine, and the member who answers for it. `state` is ACTIVE or DISABLED."""

    organization_id: UUID
    service_account_id: UUID
    display_name: str
    owner_user_id: UUID
    state: str
    version: int
    created_at: datetime

    @property
    def etag(self) -> str:
        """Changes with every edit."""
        return etag(self.service_account_id, self.version)

    @property
    def actor(self) -> str:
        """How passports and events name it."""
        return f"service:{self.service_account_id}"


@dataclass(frozen=True, slots=True)
class ApiToken:
    """A token without its text. Times are wall time; `state` is ACTIVE or REVOKED, an expired one's too."""

    organization_id: UUID
    token_id: UUID
    service_account_id: UUID | None
    creator_user_id: UUID
    display_name: str
    permissions: frozenset[str]
    connection_ids: frozenset[UUID]
    state: str
    hint: str
    created_at: datetime
    expires_at: datetime
    replaced_by: UUID | None = None
    last_used_at: datetime | None = None

    @property
    def actor(self) -> str:
        """How passports and events name it, where no service account acts with it."""
        return f"token:{self.token_id}"

    def standing(self, wall_now: datetime) -> str:
        """ACTIVE, EXPIRED or REVOKED."""
        return "EXPIRED" if self.state == "ACTIVE" and self.expires_at <= wall_now else self.state


@dataclass(frozen=True, slots=True)
class NewToken:
    """What somebody asks for. `service_account_id` is None for a token of their own."""

    display_name: str
    permissions: frozenset[str]
    connection_ids: frozenset[UUID]
    expires_at: datetime
    service_account_id: UUID | None


def require_expiry(expires_at: datetime, wall_now: datetime) -> None:
    """Raise Invalid unless the moment lies ahead, and at most a year."""
    if not wall_now < expires_at <= wall_now + MAX_LIFETIME:
        raise invalid_field("expires_at", f"must lie ahead, by at most {MAX_LIFETIME.days} days")


def require_known(permissions: Collection[str], known: Collection[str], for_people: Collection[str]) -> None:
    """Raise Invalid where there is no such permission, or one that no token may use."""
    for name in sorted(permissions):
        if name not in known:
            raise invalid_field("permissions", f"there is no permission {name!r}; PERMISSIONS.md has all of them")
        if name in for_people:
            raise invalid_field("permissions", f"{name!r} is for people alone: no token may use it; leave it out")


def require_within(permissions: Collection[str], held: Collection[str]) -> None:
    """Raise Denied (TOKEN_TOO_WIDE) where whoever makes a token doesn't hold one of the permissions."""
    for name in sorted(permissions):
        if name not in held:
            raise Denied(
                Reason.ERROR_REASON_TOKEN_TOO_WIDE,
                f"You don't hold {name}, and a token is never wider than who makes it. Leave it out.",
                {"permission": name},
            )


def require_usable(token: ApiToken, wall_now: datetime) -> None:
    """Raise WrongState where a token is over, or has a successor."""
    standing = "REPLACED" if token.replaced_by is not None else token.standing(wall_now)
    if standing != "ACTIVE":
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"The token is {standing.lower()}: it can't be rotated. Create a new one.",
            {"state": standing, "allowed": "ACTIVE"},
        )


def user_of(actor: str) -> UUID:
    """The user that a person's own session names as actor, "user:<uuid>". Raises ValueError for a machine's."""
    kind, _, identifier = actor.partition(":")
    if kind != "user":
        raise ValueError("not a person's own session")
    return UUID(identifier)
