"""Knows what may no longer be trusted, and how old that knowledge is.

It holds what the feed said in bounded memory, for as long as a token could live; it decides nothing about
roles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from services._mesh.clock import Clock, monotonic
from services._mesh.errors import Reason, Unavailable

# A feed older than this says nothing any more: state changes and credential use stop (HOUSE.md, section 4).
STALE_SECONDS = 5.0
# Tokens live five minutes at most, so an entry outlives every token that it could void.
_KEEP_SECONDS = 600.0
_MAX_ENTRIES = 200_000


class RevocationKind(StrEnum):
    """What a revocation takes trust from."""

    SESSION = "session"
    ACTOR = "actor"
    MEMBER = "member"
    ORGANIZATION = "organization"
    TOKEN = "token"  # noqa: S105 - a kind of revocation, not a secret
    CREDENTIAL = "credential"
    RESEALED = "resealed"  # Takes no trust: told to whoever keeps keys (`on_entry`), and not remembered.


# Sessions, tokens and credentials end for good; an actor or organization may be trusted again afterwards.
_FOR_GOOD = frozenset({RevocationKind.SESSION, RevocationKind.TOKEN, RevocationKind.CREDENTIAL})


# What trust may be taken from.
Revocable = tuple[RevocationKind, str]


@dataclass(frozen=True, slots=True)
class Revocation:
    """One entry of the feed; `revoked_at` is wall time in seconds."""

    seq: int
    kind: RevocationKind
    key: str
    revoked_at: float


def _nothing(_: Revocation) -> None:
    pass


class FeedGap(Exception):
    """Entries are missing: the feed must be asked again from the last one that we have."""


class Revocations:
    """What is revoked now. Fed by `apply`, in order; asked by every check of a token."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # When, and at which place of the feed, last.
        self._entries: dict[tuple[RevocationKind, str], tuple[float, int]] = {}
        self._fresh_at: float | None = None
        self._catching_up = True
        self.last_seq = 0
        # Called with each entry of the feed, also with one that came before: for whoever keeps what may be revoked.
        self.on_entry: Callable[[Revocation], None] = _nothing

    def resume(self) -> int:
        """To be called when a stream begins: returns the entry to ask from, and allows pruned entries to be
        skipped until the stream has caught up.
        """
        self._catching_up = True
        return self.last_seq

    def apply(self, entries: Sequence[Revocation], latest_seq: int) -> None:
        """Takes one piece of the feed. Raises FeedGap if something between the last piece and this one is
        missing.
        """
        if latest_seq < self.last_seq:
            # The feed itself went back (restored from a backup): keep what we know, and read all of it again.
            self.last_seq = 0
            raise FeedGap("the feed went back")
        for entry in entries:
            if not self._catching_up and entry.seq != self.last_seq + 1:
                raise FeedGap(f"{entry.seq} after {self.last_seq}")
            if entry.kind is not RevocationKind.RESEALED:
                before, _ = self._entries.get((entry.kind, entry.key), (0.0, 0))
                self._entries[entry.kind, entry.key] = max(entry.revoked_at, before), entry.seq
            self.last_seq = entry.seq
            self.on_entry(entry)
        if self.last_seq < latest_seq:
            self._behind(bool(entries), latest_seq)
            if self._catching_up:
                return
        self._catching_up = False
        self._prune()
        self._fresh_at = monotonic() if len(self._entries) <= _MAX_ENTRIES else None

    def _behind(self, more_to_come: bool, latest_seq: int) -> None:
        if not self._catching_up:
            raise FeedGap(f"{latest_seq} announced after {self.last_seq}")
        if not more_to_come:  # Nothing of what lies between matters any more.
            self.last_seq = latest_seq
            self._catching_up = False

    def _prune(self) -> None:
        oldest = self._clock.wall_seconds() - _KEEP_SECONDS
        if len(self._entries) > _MAX_ENTRIES or any(at < oldest for at in self._oldest()):
            self._entries = {key: found for key, found in self._entries.items() if found[0] >= oldest}

    def _oldest(self) -> Sequence[float]:
        """The entry that came first, which is about the oldest: a cheap sign that pruning is worth its
        walk.
        """
        return [self._entries[next(iter(self._entries))][0]] if self._entries else []

    def age_seconds(self) -> float:
        """Seconds since the feed was last known to be complete."""
        return float("inf") if self._fresh_at is None else monotonic() - self._fresh_at

    def is_fresh(self) -> bool:
        """Whether the feed is young enough to change state or open a credential by."""
        return self.age_seconds() <= STALE_SECONDS

    def require_fresh(self) -> None:
        """Raises Unavailable with REVOCATION_FEED_STALE where the feed is too old."""
        if not self.is_fresh():
            age = self.age_seconds()
            raise Unavailable(
                Reason.ERROR_REASON_REVOCATION_FEED_STALE,
                "What was revoked lately isn't known, so nothing that changes state is done.",
                {"age_seconds": "never" if age == float("inf") else f"{age:.0f}"},
            )

    def is_revoked(self, kind: RevocationKind, key: str, issued_at: float, seen: int | None = None) -> bool:
        """Whether something issued at `issued_at` (wall time) is void; `seen` is the last entry that its issuer knew.

        Whoever issued it may have read what was so before a revocation, and have dated it after: the places tell. The
        times still void what was issued in a second before it, whatever a feed that was set back has for places.
        """
        revoked_at, seq = self._entries.get((kind, key), (None, 0))
        if revoked_at is None:
            return False
        if kind in _FOR_GOOD:
            return True
        if seen is None:  # Times are whole seconds: one of the same second counts as issued before, and fails closed.
            return issued_at <= revoked_at
        return seq > seen or issued_at < int(revoked_at)

    def is_any_revoked(self, what: Iterable[Revocable], issued_at: float, seen: int | None = None) -> bool:
        """The same of several things."""
        return any(self.is_revoked(kind, key, issued_at, seen) for kind, key in what)

    def __len__(self) -> int:
        return len(self._entries)
