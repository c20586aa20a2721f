"""Passports: who is asking, for which organization, presented by which process. This module owns their
format.

Identity signs them (`sign_passport`); every service checks them itself (`passport_verifier`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from services._mesh import tokens
from services._mesh.errors import Problem, Reason, Unauthenticated
from services._mesh.resource_limits import ResourceLimits
from services._mesh.tokens import SigningKey, TokenInvalid

TYP = "recoup-passport+jwt"
ISSUER = "identity"
METADATA_KEY = "authorization"
_SCHEME = "Bearer "
_MAX_ACT_DEPTH = 8
_PROVIDER_CHANGED = "provider"


class Kind(StrEnum):
    """What kind of session a passport rests on: a person's own, or a machine's (API token, service account)."""

    HUMAN = "human"
    MACHINE = "machine"


_KINDS = {kind.value: kind for kind in Kind}


@dataclass(frozen=True, slots=True, kw_only=True)
class Elevation:
    """The break-glass access that a passport was issued under: what it adds, where break-glass may reach.

    `expires_at` is whole seconds of the injected clock.
    """

    elevation_id: UUID
    permissions: frozenset[str]
    expires_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Passport:
    """The claims of a passport. Times are whole seconds of wall time; `audience` and `act` name processes.

    `act` lists the services that exchanged it, the latest first (RFC 8693). `rests_on` names the users ("user:<uuid>")
    whose memberships it ends with; the actor alone where it says nothing. `ceiling` holds the permissions, of all
    services, that no exchange of it may go beyond; None where the role alone says what it holds. What says nothing
    about its kind is a machine's: less is open to it. What `elevation` adds isn't in `permissions`. `withheld` are
    permissions that the role holds and the person doesn't yet (`awaits_provider`: because the identity provider of the
    session was changed); `limits` what the role is limited to; `linked` the other users that the responsible person is.
    `email` is an address that the session proves, in passports of no organization for identity alone.
    `revocations_seen` is the last entry of the revocation feed that all of this takes into account. `browser` names the
    browser session that was shown for it, if one was: it ends with that, besides with the session of the sign-in.
    """

    audience: str
    actor: str
    responsible_person: UUID
    organization_id: UUID | None
    role: str
    permissions: frozenset[str]
    permissions_version: int
    session_id: str
    aal: int
    auth_time: int
    act: tuple[str, ...]
    presenter: str
    jti: str
    issued_at: int
    expires_at: int
    kind: Kind = Kind.MACHINE
    rests_on: tuple[str, ...] = ()
    ceiling: frozenset[str] | None = None
    elevation: Elevation | None = None
    withheld: frozenset[str] = frozenset()
    awaits_provider: bool = False
    limits: ResourceLimits | None = None
    email: str = ""
    linked: frozenset[UUID] = frozenset()
    revocations_seen: int | None = None
    browser: str = ""

    @property
    def authority(self) -> str:
        """What the log names as that which an act under this passport rests on."""
        if self.elevation is None:
            return f"passport:{self.jti}"
        return f"elevation:{self.elevation.elevation_id}.{self.jti}"


def sign_passport(key: SigningKey, passport: Passport) -> str:
    """The signed passport; only identity holds a key that others accept for it."""
    claims: dict[str, Any] = {
        "iss": tokens.spiffe(ISSUER),
        "aud": tokens.spiffe(passport.audience),
        "sub": passport.actor,
        "rsp": str(passport.responsible_person),
        "role": passport.role,
        "perms": sorted(passport.permissions),
        "pv": passport.permissions_version,
        "sid": passport.session_id,
        "kind": passport.kind.value,
        "aal": passport.aal,
        "auth_time": passport.auth_time,
        "cnf": {"x5t#S256": passport.presenter},
        "jti": passport.jti,
        "iat": passport.issued_at,
        "nbf": passport.issued_at,
        "exp": passport.expires_at,
    }
    if passport.organization_id is not None:
        claims["org"] = str(passport.organization_id)
    if passport.rests_on not in ((), (passport.actor,)):
        claims["rests"] = list(passport.rests_on)
    if passport.ceiling is not None:
        claims["lim"] = sorted(passport.ceiling)
    if passport.withheld:
        claims["wait"] = sorted(passport.withheld)
    if passport.awaits_provider:
        claims["why"] = _PROVIDER_CHANGED
    if passport.linked:
        claims["also"] = sorted(str(user) for user in passport.linked)
    if passport.limits is not None:
        claims["only"] = passport.limits.claim()
    if passport.revocations_seen is not None:
        claims["seen"] = passport.revocations_seen
    if passport.browser:
        claims["browser"] = passport.browser
    if passport.email:
        claims["email"] = passport.email
    if passport.act:
        claims["act"] = _nest(passport.act)
    if passport.elevation is not None:
        claims["elv"] = {
            "id": str(passport.elevation.elevation_id),
            "perms": sorted(passport.elevation.permissions),
            "exp": passport.elevation.expires_at,
        }
    return key.sign(TYP, claims)


def glance(token: str) -> Passport:
    """What a passport says that identity itself has just handed over, unverified. Raises TokenInvalid."""
    return parse(tokens.peek(token, TYP).claims)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a passport."""
    return ((METADATA_KEY, _SCHEME + token),)


def from_metadata(value: str | bytes | None) -> str:
    """The token in the metadata's value. Raises Unauthenticated where none came."""
    if value is None:
        raise refusal(Reason.ERROR_REASON_CREDENTIAL_MISSING, "The call carries no passport.")
    if not isinstance(value, str) or not value.startswith(_SCHEME):
        raise refusal(Reason.ERROR_REASON_CREDENTIAL_INVALID, "The passport can't be accepted.")
    return value.removeprefix(_SCHEME)


def refusal(reason: Reason.ValueType, message: str) -> Problem:
    return Unauthenticated(reason, message)


def parse(claims: Mapping[str, Any]) -> Passport:
    org = claims.get("org")
    return Passport(
        audience=tokens.process_of(tokens.text(claims, "aud")),
        actor=tokens.text(claims, "sub"),
        responsible_person=_uuid(tokens.text(claims, "rsp")),
        organization_id=None if org is None else _uuid(org),
        role=_optional_text(claims, "role"),
        permissions=frozenset(_texts(claims, "perms")),
        permissions_version=tokens.integer(claims, "pv"),
        session_id=tokens.text(claims, "sid"),
        aal=tokens.integer(claims, "aal"),
        auth_time=tokens.integer(claims, "auth_time"),
        act=_unnest(claims.get("act")),
        presenter=tokens.confirmed_thumbprint(claims),
        jti=tokens.text(claims, "jti"),
        issued_at=tokens.integer(claims, "iat"),
        expires_at=tokens.integer(claims, "exp"),
        kind=_kind(claims.get("kind", "machine")),
        rests_on=_texts(claims, "rests") if claims.get("rests") else (tokens.text(claims, "sub"),),
        ceiling=None if claims.get("lim") is None else frozenset(_texts(claims, "lim")),
        elevation=_elevation(claims.get("elv")),
        withheld=frozenset(_texts(claims, "wait")) if claims.get("wait") else frozenset(),
        awaits_provider=claims.get("why") == _PROVIDER_CHANGED,
        limits=_limits(claims.get("only")),
        email=_optional_text(claims, "email"),
        linked=frozenset(_uuid(user) for user in _texts(claims, "also")) if claims.get("also") else frozenset(),
        browser=_optional_text(claims, "browser"),
        revocations_seen=None if claims.get("seen") is None else tokens.integer(claims, "seen"),
    )


def _elevation(value: Any) -> Elevation | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise TokenInvalid("claim elv")
    return Elevation(
        elevation_id=_uuid(tokens.text(value, "id")),
        permissions=frozenset(_texts(value, "perms")),
        expires_at=tokens.integer(value, "exp"),
    )


def _uuid(value: Any) -> UUID:
    try:
        parsed = UUID(value)
    except (ValueError, AttributeError, TypeError) as error:
        raise TokenInvalid("uuid") from error
    if str(parsed) != value:
        raise TokenInvalid("uuid")
    return parsed


def _optional_text(claims: Mapping[str, Any], key: str) -> str:
    return tokens.text(claims, key) if claims.get(key) else ""


def _texts(claims: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = claims.get(key)
    if not isinstance(value, list) or not set(map(type, value)) <= {str}:
        raise TokenInvalid(f"claim {key}")
    return tuple(value)


def _kind(value: Any) -> Kind:
    kind = _KINDS.get(value) if isinstance(value, str) else None
    if kind is None:
        raise TokenInvalid("claim kind")
    return kind


def _limits(value: Any) -> ResourceLimits | None:
    """Limits that can't be read are none that anybody may ignore."""
    if value is None:
        return None
    try:
        found = ResourceLimits.from_claim(value)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TokenInvalid("claim only") from error
    if not found:
        raise TokenInvalid("claim only")
    return found


def _nest(act: tuple[str, ...]) -> dict[str, Any]:
    inner = {"act": _nest(act[1:])} if len(act) > 1 else {}
    return {"sub": tokens.spiffe(act[0]), **inner}


def _unnest(value: Any) -> tuple[str, ...]:
    chain: list[str] = []
    while value is not None:
        if not isinstance(value, dict) or len(chain) >= _MAX_ACT_DEPTH:
            raise TokenInvalid("claim act")
        chain.append(tokens.process_of(tokens.text(value, "sub")))
        value = value.get("act")
    return tuple(chain)
