"""How old an organization lets its connections' credentials get: when it is reminded, when they are refused. Pure.

Where the broker assumes the roles as itself, there is no secret that gets old, and none of it applies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

# Who says nothing is reminded and never refused, so that an upgrade stops no connection.
REMIND_AFTER_DAYS = 90
# A limit that becomes tighter holds for older credentials only after this, so that nobody stops their own work with it.
GRACE = timedelta(days=7)


class RulesInvalid(ValueError):
    """A field that can't be so, and the rule."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(rule)
        self.field, self.rule = field, rule


@dataclass(frozen=True, slots=True)
class RotationRules:
    """Days since a credential was given; 0 is never. Before `enforced_from` nothing is refused."""

    remind_after_days: int = REMIND_AFTER_DAYS
    rotate_within_days: int = 0
    enforced_from: datetime | None = None

    def changed(self, remind_after_days: int, rotate_within_days: int, now: datetime) -> RotationRules:
        """Other rules in the place of these. Raises RulesInvalid."""
        if rotate_within_days and not 0 < remind_after_days < rotate_within_days:
            rule = "must be from 1 to less than rotate_within_days, so that somebody is told in time"
            raise RulesInvalid("remind_after_days", rule)
        is_tighter = rotate_within_days and not 0 < self.rotate_within_days <= rotate_within_days
        enforced_from = now + GRACE if is_tighter else self.enforced_from
        return RotationRules(remind_after_days, rotate_within_days, enforced_from if rotate_within_days else None)

    def remind_at(self, given_at: datetime) -> datetime | None:
        """When somebody is reminded of a credential that was given at a moment."""
        return given_at + timedelta(days=self.remind_after_days) if self.remind_after_days else None

    def refused_from(self, given_at: datetime) -> datetime | None:
        """From when on the broker refuses a credential that was given at a moment."""
        if not self.rotate_within_days:
            return None
        limit = given_at + timedelta(days=self.rotate_within_days)
        return max(limit, self.enforced_from) if self.enforced_from else limit


@dataclass(frozen=True, slots=True)
class Deadlines:
    """When somebody is reminded of one credential, and from when on it is refused; None is never."""

    remind_at: datetime | None
    refused_from: datetime | None

    @classmethod
    def of(cls, rules: RotationRules, holds_secret: bool, given_at: datetime) -> Deadlines:
        """Those of a credential; none where it holds no secret."""
        if not holds_secret:
            return cls(None, None)
        return cls(rules.remind_at(given_at), rules.refused_from(given_at))

    def ahead(self, now: datetime) -> Iterator[datetime]:
        """Those that are still to come."""
        yield from (each for each in (self.remind_at, self.refused_from) if each is not None and each > now)
