"""Warrants and grants: the authority of work that nobody waits for. This module owns their formats.

A warrant is the owning API's signed decision on a job's row, and can't be executed. A grant is what a
worker gets when it claims the job: at most five minutes, bound to its certificate. Both are signed with the
API's own key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from services._mesh import tokens
from services._mesh.clock import Clock
from services._mesh.errors import Denied, Problem, Reason
from services._mesh.revocations import RevocationKind, Revocations
from services._mesh.tokens import SigningKey, TokenInvalid
from services._mesh.trust import TrustStore

GRANT_TYP = "recoup-grant+jwt"
WARRANT_TYP = "recoup-warrant+jwt"
METADATA_KEY = "recoup-grant"


class WarrantExpired(Denied):
    """A genuine warrant whose time is over, so that its job can never be done any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warrant:
    """What was decided: which organization, kind and subject (a row's id), optionally under which plan's
    hash.

    `not_before` and `expires_at` are by the injected clock.
    """

    issuer: str
    organization_id: UUID
    kind: str
    subject: str
    job_id: UUID
    plan: str = ""
    not_before: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialScope:
    """The one sealed credential that a grant may have opened, what for, and what the session may then do.

    `statements` are {"actions": [...], "resources": [...]} each. From `refused_from` on (injected clock, whole seconds)
    the credential is too old to be opened, by its organization's rule; None where there is no such rule.
    """

    credential_id: UUID
    purpose: str
    account: str
    region: str = ""
    role_arn: str = ""
    statements: tuple[Mapping[str, Sequence[str]], ...] = ()
    refused_from: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The claims of a grant. Times are whole seconds of wall time; `issuer` and `audience` name processes.

    `number` tells the grants of one lease apart: each is good for one use.
    """

    issuer: str
    audience: tuple[str, ...]
    presenter: str
    organization_id: UUID
    kind: str
    subject: str
    job_id: UUID
    fence: int
    number: int
    plan: str = ""
    credential: CredentialScope | None = None
    issued_at: int
    expires_at: int

    @property
    def jti(self) -> str:
        """The grant's id: job, fence and number."""
        return f"{self.job_id}.{self.fence}.{self.number}"


def sign_warrant(key: SigningKey, warrant: Warrant) -> str:
    """The signed warrant, to be stored on the job's row."""
    return key.sign(
        WARRANT_TYP,
        {
            "iss": tokens.spiffe(warrant.issuer),
            "org": str(warrant.organization_id),
            "kind": warrant.kind,
            "sub": warrant.subject,
            "jti": str(warrant.job_id),
            "plan": warrant.plan,
            "nbf": int(warrant.not_before.timestamp()),
            "exp": int(warrant.expires_at.timestamp()),
        },
    )


def verify_warrant(trust: TrustStore, token: str, *, issuer: str, profile: str, now: datetime) -> Warrant:
    """The warrant that `issuer` signed, in force at `now` (injected clock). Raises Denied with
    GRANT_INVALID: WarrantExpired where it is genuine, but over.
    """
    try:
        claims = _signed_claims(trust, token, WARRANT_TYP, issuer, profile)
        warrant = Warrant(
            issuer=issuer,
            organization_id=_uuid(claims, "org"),
            kind=tokens.text(claims, "kind"),
            subject=tokens.text(claims, "sub"),
            job_id=_uuid(claims, "jti"),
            plan=str(claims.get("plan") or ""),
            not_before=datetime.fromtimestamp(tokens.integer(claims, "nbf"), UTC),
            expires_at=datetime.fromtimestamp(tokens.integer(claims, "exp"), UTC),
        )
    except TokenInvalid as error:
        raise _refusal("The warrant can't be accepted.") from error
    if now < warrant.not_before:
        raise _refusal("The warrant isn't in force yet.")
    if now >= warrant.expires_at:
        raise WarrantExpired(Reason.ERROR_REASON_GRANT_INVALID, "The warrant isn't in force any more.")
    return warrant


def sign_grant(key: SigningKey, grant: Grant) -> str:
    """The signed grant."""
    claims: dict[str, Any] = {
        "iss": tokens.spiffe(grant.issuer),
        "aud": [tokens.spiffe(name) for name in grant.audience],
        "cnf": {"x5t#S256": grant.presenter},
        "org": str(grant.organization_id),
        "kind": grant.kind,
        "sub": grant.subject,
        "jti": grant.jti,
        "iat": grant.issued_at,
        "nbf": grant.issued_at,
        "exp": grant.expires_at,
    }
    if grant.plan:
        claims["plan"] = grant.plan
    if grant.credential is not None:
        claims["cred"] = _scope_claims(grant.credential)
    return key.sign(GRANT_TYP, claims)


class GrantVerifier:
    """Checks grants that name `audience`. `issuers` says which process may grant which kinds of work.

    Raises Denied with GRANT_INVALID, and never says to the caller which check failed. Single use is the
    broker's business, which remembers what it has seen.
    """

    def __init__(
        self,
        trust: TrustStore,
        revocations: Revocations,
        clock: Clock,
        *,
        audience: str,
        profile: str,
        issuers: Mapping[str, Sequence[str]],
    ) -> None:
        self._trust = trust
        self._revocations = revocations
        self._clock = clock
        self._audience = audience
        self._profile = profile
        self._issuers = issuers

    def verify(self, token: str | bytes | None, presenter: str) -> Grant:
        """The grant in `token`, which the peer whose certificate has the thumbprint `presenter` shows us."""
        if not isinstance(token, str) or not token:
            raise _refusal("The call carries no grant.")
        try:
            grant = self._parse(token)
        except TokenInvalid as error:
            raise _refusal("The grant can't be accepted.") from error
        if self._audience not in grant.audience or grant.presenter != presenter:
            raise _refusal("The grant is for somebody else.")
        if self._is_revoked(grant):
            raise _refusal("The grant was revoked.")
        return grant

    def _parse(self, token: str) -> Grant:
        issuer = tokens.process_of(tokens.text(tokens.peek(token, GRANT_TYP).claims, "iss"))
        if issuer not in self._issuers:
            raise TokenInvalid("issuer")
        claims = _signed_claims(self._trust, token, GRANT_TYP, issuer, self._profile)
        tokens.check_times(claims, self._clock.wall_seconds())
        grant = _grant(claims, issuer)
        if grant.kind not in self._issuers[issuer]:
            raise TokenInvalid("kind")
        return grant

    def _is_revoked(self, grant: Grant) -> bool:
        revoked, issued_at = self._revocations.is_revoked, grant.issued_at
        return (
            revoked(RevocationKind.TOKEN, grant.jti, issued_at)
            or revoked(RevocationKind.ORGANIZATION, str(grant.organization_id), issued_at)
            or (
                grant.credential is not None
                and revoked(RevocationKind.CREDENTIAL, str(grant.credential.credential_id), issued_at)
            )
        )


def metadata(grant: str) -> tuple[tuple[str, str], ...]:
    """The metadata that carries a grant."""
    return ((METADATA_KEY, grant),)


def read_own_grant(token: str) -> Grant:
    """What a grant says that its owning API has just handed us over mTLS; the worker's own copy of its
    orders.

    The signature is checked by those whom the worker then calls, not by the worker, who could only fool
    itself.
    """
    try:
        claims = tokens.peek(token, GRANT_TYP).claims
        return _grant(claims, tokens.process_of(tokens.text(claims, "iss")))
    except TokenInvalid as error:
        raise _refusal("The grant can't be read.") from error


def _refusal(message: str) -> Problem:
    return Denied(Reason.ERROR_REASON_GRANT_INVALID, message)


def _signed_claims(trust: TrustStore, token: str, typ: str, issuer: str, profile: str) -> Mapping[str, Any]:
    unverified = tokens.peek(token, typ)
    if unverified.claims.get("iss") != tokens.spiffe(issuer):
        raise TokenInvalid("issuer")
    tokens.check_signature(token, trust.key(issuer, tokens.text(unverified.header, "kid")))
    tokens.check_environment(unverified.claims, profile)
    return unverified.claims


def _grant(claims: Mapping[str, Any], issuer: str) -> Grant:
    audience, (job_id, fence, number) = claims.get("aud"), _split_jti(tokens.text(claims, "jti"))
    if not isinstance(audience, list) or not all(isinstance(item, str) for item in audience):
        raise TokenInvalid("claim aud")
    return Grant(
        issuer=issuer,
        audience=tuple(tokens.process_of(item) for item in audience),
        presenter=tokens.confirmed_thumbprint(claims),
        organization_id=_uuid(claims, "org"),
        kind=tokens.text(claims, "kind"),
        subject=tokens.text(claims, "sub"),
        job_id=job_id,
        fence=fence,
        number=number,
        plan=tokens.text(claims, "plan") if "plan" in claims else "",
        credential=_scope(claims["cred"]) if "cred" in claims else None,
        issued_at=tokens.integer(claims, "iat"),
        expires_at=tokens.integer(claims, "exp"),
    )


def _split_jti(jti: str) -> tuple[UUID, int, int]:
    parts = jti.split(".")
    if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        raise TokenInvalid("claim jti")
    return _uuid({"jti": parts[0]}, "jti"), int(parts[1]), int(parts[2])


def _uuid(claims: Mapping[str, Any], key: str) -> UUID:
    value = tokens.text(claims, key)
    try:
        parsed = UUID(value)
    except ValueError as error:
        raise TokenInvalid(f"claim {key}") from error
    if str(parsed) != value:
        raise TokenInvalid(f"claim {key}")
    return parsed


def _scope_claims(scope: CredentialScope) -> dict[str, Any]:
    return {
        "id": str(scope.credential_id),
        "purpose": scope.purpose,
        "account": scope.account,
        "region": scope.region,
        "role_arn": scope.role_arn,
        "statements": [{"actions": list(s["actions"]), "resources": list(s["resources"])} for s in scope.statements],
        **({"refused_from": int(scope.refused_from.timestamp())} if scope.refused_from else {}),
    }


def _scope(value: Any) -> CredentialScope:
    if not isinstance(value, dict) or not isinstance(value.get("statements", []), list):
        raise TokenInvalid("claim cred")
    return CredentialScope(
        credential_id=_uuid(value, "id"),
        purpose=tokens.text(value, "purpose"),
        account=tokens.text(value, "account"),
        region=str(value.get("region") or ""),
        role_arn=str(value.get("role_arn") or ""),
        statements=tuple(_statement(item) for item in value.get("statements", [])),
        refused_from=datetime.fromtimestamp(tokens.integer(value, "refused_from"), UTC)
        if "refused_from" in value
        else None,
    )


def _statement(value: Any) -> Mapping[str, Sequence[str]]:
    if not isinstance(value, dict):
        raise TokenInvalid("claim cred")
    actions, resources = value.get("actions"), value.get("resources")
    for items in (actions, resources):
        if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
            raise TokenInvalid("claim cred")
    return {"actions": tuple(actions or ()), "resources": tuple(resources or ())}
