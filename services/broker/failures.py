"""Counts what didn't open: in metrics by reason, and for each organization in bounded memory, since the start."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.metrics import Counter, Metrics

MAX_ORGANIZATIONS = 1000
# Why secrets don't open. Shown as zero from the start: of a count that appears as one, Prometheus sees no increase.
REASONS = ("CREDENTIAL_UNOPENABLE", "CREDENTIAL_TOO_OLD", "KMS_UNAVAILABLE", "KMS_KEY_UNUSABLE")


@dataclass(frozen=True, slots=True)
class Failed:
    """How often for one reason, and when last (wall clock)."""

    count: int
    last_at: datetime


class Failures:
    """The counts. Of more organizations than fit, those that failed last are kept; the metrics count all."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock, self._metrics = clock, metrics
        self.since = clock.wall_now()
        self._of: OrderedDict[UUID, dict[str, Failed]] = OrderedDict()
        for reason in REASONS:
            self._counter(reason)

    def add(self, organization_id: UUID, reason: str) -> None:
        """Count one. `reason` is one of our own words, never a caller's."""
        self._counter(reason).add()
        counts = self._of.setdefault(organization_id, {})
        self._of.move_to_end(organization_id)
        before = counts[reason].count if reason in counts else 0
        counts[reason] = Failed(before + 1, self._clock.wall_now())
        if len(self._of) > MAX_ORGANIZATIONS:
            self._of.popitem(last=False)

    def of(self, organization_id: UUID) -> Mapping[str, Failed]:
        """The counts of an organization, by reason."""
        return dict(self._of.get(organization_id, {}))

    def _counter(self, reason: str) -> Counter:
        return self._metrics.counter("recoup_broker_decrypt_failures", "Secrets that didn't open.", reason=reason)
