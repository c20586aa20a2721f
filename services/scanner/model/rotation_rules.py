"""How old an organization lets its connections' credentials get: when it is reminded, when they are refused. Pure.

Where the broker assumes the roles as itself, there is no secret that gets old, and none of it applies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

# Who says nothing is reminded and never refused, so that an upgrade stops no connection.
REMIND_AFTER_DAYS = 90
# A limit that becomes tighter holds for older credentials only after this, so that nobody stops their own work with it.
GRACE = timedelta(days=7)
# Limits that are remembered beside the one in force. Who changes it more often within a week only gets a week again.
_MOST_LIMITS = 50


class RulesInvalid(ValueError):
    """A field that can't be so, and the rule."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(rule)
        self.field, self.rule = field, rule


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that an organization had before: nothing was refused by it before `enforced_from`. It was given up for a
    looser one at `eased_at`; None where a tighter one took its place, so that it holds as before.
    """

    days: int
    enforced_from: datetime | None
    eased_at: datetime | None = None

    def refused_from(self, given_at: datetime) -> datetime:
        """From when on it refuses a credential that was given at a moment."""
        limit = given_at + timedelta(days=self.days)
        return max(limit, self.enforced_from) if self.enforced_from else limit


@dataclass(frozen=True, slots=True)
class RotationRules:
    """Days since a credential was given; 0 is never. Before `enforced_from` the limit refuses nothing that those before
    it (`limits`) didn't.
    """

    remind_after_days: int = REMIND_AFTER_DAYS
    rotate_within_days: int = 0
    enforced_from: datetime | None = None
    limits: tuple[Limit, ...] = field(default=())

    def changed(self, remind_after_days: int, rotate_within_days: int, now: datetime) -> RotationRules:
        """Other rules in the place of these. Raises RulesInvalid.

        A week is left only to what no limit of the last week would have refused: neither a limit that is switched off
        and on again nor one that is tightened day by day puts anything off.
        """
        if rotate_within_days and not 0 < remind_after_days < rotate_within_days:
            rule = "must be from 1 to less than rotate_within_days, so that somebody is told in time"
            raise RulesInvalid("remind_after_days", rule)
        before = [limit for limit in self._all(now) if limit.eased_at is None or now < limit.eased_at + GRACE]
        if not rotate_within_days:
            eased = tuple(_eased(limit, now) for limit in before)
            return RotationRules(remind_after_days, 0, None, eased[:_MOST_LIMITS])
        # Who is older than the new limit is older than a tighter one, too, and has had that one's week.
        known = [limit.enforced_from for limit in before if limit.days <= rotate_within_days]
        enforced_from: datetime | None = now + GRACE
        if known:
            enforced_from = None if None in known else min(moment for moment in known if moment)
        kept = [
            replace(limit, eased_at=None) if limit.days > rotate_within_days else _eased(limit, now)
            for limit in before
            if limit.days != rotate_within_days
        ]
        return RotationRules(remind_after_days, rotate_within_days, enforced_from, tuple(kept[:_MOST_LIMITS]))

    def remind_at(self, given_at: datetime) -> datetime | None:
        """When somebody is reminded of a credential that was given at a moment."""
        return given_at + timedelta(days=self.remind_after_days) if self.remind_after_days else None

    def refused_from(self, given_at: datetime) -> datetime | None:
        """From when on the broker refuses a credential that was given at a moment."""
        if not self.rotate_within_days:
            return None
        held = (each for each in self.limits if each.eased_at is None and each.days > self.rotate_within_days)
        return min(limit.refused_from(given_at) for limit in (self._limit(), *held))

    def _limit(self) -> Limit:
        return Limit(self.rotate_within_days, self.enforced_from)

    def _all(self, now: datetime) -> list[Limit]:
        """The limit and those before it; not those that it makes superfluous, being enforced by now."""
        if not self.rotate_within_days:
            return [*self.limits]
        is_enforced = self.enforced_from is None or self.enforced_from <= now
        return [self._limit(), *(x for x in self.limits if not (is_enforced and x.days > self.rotate_within_days))]


def _eased(limit: Limit, now: datetime) -> Limit:
    return limit if limit.eased_at else replace(limit, eased_at=now)


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
