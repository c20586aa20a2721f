"""Checks the passports that a process is shown.

No verdict is cached: only the signature of byte-identical tokens is, and everything that can change is checked on
every call.
"""

from __future__ import annotations

import hashlib

from services._mesh import tokens
from services._mesh.clock import Clock
from services._mesh.errors import Reason
from services._mesh.limits import BoundedCache
from services._mesh.passports import ISSUER, TYP, Passport, parse, refusal
from services._mesh.revocations import Revocable, RevocationKind, Revocations
from services._mesh.tokens import TokenExpired, TokenInvalid
from services._mesh.trust import TrustStore

_CACHED_SIGNATURES = 4096


class PassportVerifier:
    """Checks passports for one audience. Raises Unauthenticated, and never says to the caller which check
    failed.
    """

    def __init__(
        self, trust: TrustStore, revocations: Revocations, clock: Clock, *, audience: str, profile: str
    ) -> None:
        self._trust = trust
        self._revocations = revocations
        self._clock = clock
        self._audience = audience
        self._profile = profile
        self._parsed: BoundedCache[bytes, Passport] = BoundedCache(_CACHED_SIGNATURES)
        self._epoch = -1

    def verify(self, token: str, presenter: str) -> Passport:
        """The passport in `token`, which the peer whose certificate has the thumbprint `presenter` shows
        us.
        """
        passport = self._verified(token, self._audience)
        if passport.presenter != presenter:
            raise refusal(Reason.ERROR_REASON_PRESENTER_MISMATCH, "The passport is bound to another process.")
        return passport

    def verify_subject(self, token: str, audience: str) -> Passport:
        """The passport that the process `audience` received, and now shows to have it exchanged (RFC 8693).

        Only identity asks this. The passport is bound to whoever presented it to that process, so the
        presenter can't be checked here; that it was meant for `audience` can.
        """
        return self._verified(token, audience)

    def _verified(self, token: str, audience: str) -> Passport:
        try:
            passport = self._signed(token)
            if passport.audience != audience:
                raise TokenInvalid("audience")
            if self._clock.wall_seconds() >= passport.expires_at:
                raise TokenExpired("expired")
            if passport.elevation is not None and self._clock.now().timestamp() >= passport.elevation.expires_at:
                raise TokenExpired("elevation")
        except TokenExpired as error:
            raise refusal(Reason.ERROR_REASON_CREDENTIAL_EXPIRED, "The passport has expired.") from error
        except TokenInvalid as error:
            raise refusal(Reason.ERROR_REASON_CREDENTIAL_INVALID, "The passport can't be accepted.") from error
        if is_revoked(self._revocations, passport):
            raise refusal(Reason.ERROR_REASON_CREDENTIAL_REVOKED, "The session was revoked.")
        return passport

    def _signed(self, token: str) -> Passport:
        """The claims of a token whose signature holds.

        An Ed25519 check costs a tenth of a millisecond and can't come out differently for the same bytes
        and the same keys; so it is done once per token. Keys that change (the trust store's epoch) void all
        of it. Whatever else can change between two calls (time, revocations, presenter) is not part of
        this.
        """
        epoch = self._trust.refresh(ISSUER)
        if epoch != self._epoch:
            self._parsed.clear()
            self._epoch = epoch
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        passport = self._parsed.get(digest)
        if passport is None:
            passport = self._check(token)
            self._parsed.put(digest, passport, tokens.MAX_LIFETIME_SECONDS)
        return passport

    def _check(self, token: str) -> Passport:
        unverified = tokens.peek(token, TYP)
        claims = unverified.claims
        if claims.get("iss") != tokens.spiffe(ISSUER):
            raise TokenInvalid("issuer")
        tokens.check_signature(token, self._trust.key(ISSUER, tokens.text(unverified.header, "kid")))
        tokens.check_environment(claims, self._profile)
        tokens.check_times(claims, self._clock.wall_seconds())
        return parse(claims)


def is_revoked(revocations: Revocations, passport: Passport) -> bool:
    """Whether the feed took trust from anything that the passport rests on, since it was issued."""
    return revocations.is_any_revoked(revocable(passport), passport.issued_at, passport.revocations_seen)


def revocable(passport: Passport) -> tuple[Revocable, ...]:
    """All that the passport rests on, of which some may be somebody else's membership."""
    organization = "" if passport.organization_id is None else str(passport.organization_id)
    others = [user for user in passport.rests_on if user != passport.actor]
    return (
        (RevocationKind.SESSION, passport.session_id),
        *(((RevocationKind.SESSION, passport.browser),) if passport.browser else ()),
        (RevocationKind.ACTOR, passport.actor),
        (RevocationKind.TOKEN, passport.jti),
        *(((RevocationKind.TOKEN, str(passport.elevation.elevation_id)),) if passport.elevation else ()),
        *(((RevocationKind.ORGANIZATION, organization),) if organization else ()),
        *((RevocationKind.ACTOR, user) for user in others),
        *((RevocationKind.MEMBER, f"{organization}/{user}") for user in passport.rests_on if organization),
    )
