"""Passports that identity issued, kept until shortly before they end, and no longer than nothing revokes them; bounded.

It saves asking identity again. It decides nothing: whoever is shown a passport checks it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from services._mesh.clock import Clock
from services._mesh.limits import BoundedCache
from services._mesh.passport_verifier import revocable
from services._mesh.passports import Passport, glance
from services._mesh.revocations import Revocable, Revocations

# A passport isn't used in its last seconds: it must still be good when the other side looks at it.
MARGIN_SECONDS = 30.0
K = TypeVar("K", bound=Hashable)


class PassportCache(Generic[K]):
    """At most `size` passports, by what they were asked for with."""

    def __init__(self, size: int, revocations: Revocations, clock: Clock) -> None:
        self._revocations, self._clock = revocations, clock
        self._known: BoundedCache[K, tuple[str, Passport, tuple[Revocable, ...]]] = BoundedCache(size)

    def get(self, key: K) -> str | None:
        """The passport, unless there is none, or the feed has taken it back since."""
        found = self.find(key)
        return found and found[0]

    def find(self, key: K) -> tuple[str, Passport] | None:
        """The same, with what it says."""
        found = self._known.get(key)
        if found is None:
            return None
        token, passport, rests_on = found
        if self._revocations.is_any_revoked(rests_on, passport.issued_at, passport.revocations_seen):
            self._known.drop(key)
            return None
        return token, passport

    def put(self, key: K, token: str) -> Passport:
        """Keep a passport for as long as it may be used; returns what it says. Raises TokenInvalid."""
        passport = glance(token)
        left = passport.expires_at - self._clock.wall_seconds() - MARGIN_SECONDS
        if left > 0:
            self._known.put(key, (token, passport, revocable(passport)), left)
        return passport

    def __len__(self) -> int:
        return len(self._known)
