"""The reconciler: compares what the outbox says was relayed with what the log holds, and names any difference.

Counts and digests of event ids, for each organization, window by window; ids only where those differ. It repairs
nothing: a difference means that somebody changed a row; it becomes an event, and is for people.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from sqlalchemy import text

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.errors import Problem
from services._mesh.log_client import Summary
from services._mesh.metrics import Metrics

log = logging.getLogger(__name__)

T = TypeVar("T", UUID, int)

# As the log limits one summary.
WINDOW = 10_000
EVERY_SECONDS = 60.0
# What was compared once is compared again in every so many rounds: a row may be changed at any time.
FULL_EVERY_ROUNDS = 60
# Between two windows of one organization, so that reading all of an outbox is no burden.
PAUSE_SECONDS = 0.05
_NAMED = 20
_ORGANIZATIONS = 500
# So many differences are told in one round, the others in the next ones; so many are remembered as told.
TOLD_A_ROUND = 20
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Difference:
    """Where outbox and log disagree, between two counters: ids that only one side has, and counters that have no row.

    A row that was deleted before it was relayed has left its counter behind, and nothing else.
    """

    organization_id: UUID
    first: int
    last: int
    outbox_count: int
    log_count: int
    only_in_log: tuple[UUID, ...]
    only_in_outbox: tuple[UUID, ...]
    missing: tuple[int, ...]

    @property
    def key(self) -> tuple[UUID | int, ...]:
        """What makes a difference that is found again the same as before, however far the counters went meanwhile."""
        return (self.organization_id, *self.only_in_log, *self.only_in_outbox, *self.missing)

    def metadata(self) -> dict[str, str]:
        """The difference as an event tells it."""
        return {
            "first": str(self.first),
            "last": str(self.last),
            "outbox_count": str(self.outbox_count),
            "log_count": str(self.log_count),
            "only_in_log": _list(self.only_in_log),
            "only_in_outbox": _list(self.only_in_outbox),
            "missing_counters": _list(self.missing),
        }

    def __str__(self) -> str:
        return (
            f"organization {self.organization_id}, counters {self.first} to {self.last}: the outbox has "
            f"{self.outbox_count}, the log has {self.log_count}, of {self.last - self.first + 1}; only in the log: "
            f"{_list(self.only_in_log)}; only in the outbox: {_list(self.only_in_outbox)}; counters without a row in "
            f"the outbox: {_list(self.missing)}"
        )


class Summarizer(Protocol):
    """What the log says about a producer: a `LogClient`."""

    async def summarize(self, organization_id: UUID, first: int, last: int, *, with_ids: bool = False) -> Summary:
        """What the log holds between two counters."""


# Has a difference recorded as an event. Raises Problem when it can't be now.
Tell = Callable[[Difference], Awaitable[None]]

_COUNTED = """
SELECT organization_id, relayed, value FROM {schema}.outbox_counters WHERE organization_id > :after
ORDER BY organization_id LIMIT :limit
"""
# Row and counter are written in one transaction: where nothing waits to be relayed, the last rows were deleted. One
# statement, so that both are seen as they were at one time.
_THROUGH = """
SELECT CASE WHEN EXISTS (
  SELECT FROM {schema}.outbox AS o WHERE o.organization_id = c.organization_id AND o.counter > c.relayed
) THEN c.relayed ELSE c.value END
FROM {schema}.outbox_counters AS c WHERE c.organization_id = :organization_id
"""
_OURS = """
SELECT event_id, counter, log_index FROM {schema}.outbox
WHERE organization_id = :organization_id AND counter BETWEEN :first AND :last
"""


class Reconciler:
    """The reconciling task of one service, under its relay role."""

    def __init__(
        self,
        database: Database,
        schema: str,
        summarizer: Summarizer,
        metrics: Metrics | None = None,
        tell: Tell | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._database, self._schema, self._log, self._tell = database, schema, summarizer, tell
        self._clock = clock or Clock()
        metrics = metrics or Metrics()
        self._differences = metrics.gauge(
            "recoup_outbox_differences", "Windows in which outbox and log disagree.", service=schema
        )
        self._finished = metrics.gauge(
            "recoup_outbox_reconciled_timestamp_seconds",
            "When every organization's outbox had last been compared with the log.",
            service=schema,
        )
        self._compared: dict[UUID, int] = {}
        self._told: OrderedDict[tuple[UUID | int, ...], None] = OrderedDict()
        self._round = 0

    async def run(self) -> None:
        """Reconcile until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.round()
            except Exception as error:
                name = error.reason_name if isinstance(error, Problem) else type(error).__name__
                log.warning("reconciling the outbox of %s will be tried again: %s", self._schema, name)

    async def round(self, *, full: bool = False) -> list[Difference]:
        """Compare what was relayed since the last round, or all of it; tells, logs and returns the differences.

        What stops one organization stops no other: the first failure is raised after all had their turn.
        """
        if full or self._round % FULL_EVERY_ROUNDS == 0:
            self._compared.clear()
        self._round += 1
        found, failures = list[Difference](), list[Exception]()
        organizations = await self._organizations(UUID(int=0), inclusive=True)
        while organizations:
            for organization_id, relayed, value in organizations:
                try:
                    through = relayed if relayed == value else await self._through(organization_id)
                    found += await self._compare(organization_id, through)
                except Exception as error:
                    failures.append(error)
            organizations = await self._organizations(organizations[-1][0])
        for difference in found:
            log.error("outbox and log of %s differ: %s", self._schema, difference)
        self._differences.set(len(found))
        await self._tell_new(found)
        if failures:
            raise failures[0]
        self._finished.set(self._clock.wall_seconds())
        return found

    async def _tell_new(self, found: Sequence[Difference]) -> None:
        new = [each for each in found if each.key not in self._told] if self._tell else []
        for difference in new[:TOLD_A_ROUND]:
            assert self._tell
            await self._tell(difference)
            self._told[difference.key] = None
            while len(self._told) > _REMEMBERED:
                self._told.popitem(last=False)

    async def _through(self, organization_id: UUID) -> int:
        """Up to which counter the outbox must have been relayed."""
        async with self._database.scoped(organization_id, read_only=True) as connection:
            statement = text(_THROUGH.format(schema=self._schema))
            return int((await connection.execute(statement, {"organization_id": organization_id})).scalar_one())

    async def _organizations(self, after: UUID, *, inclusive: bool = False) -> list[tuple[UUID, int, int]]:
        statement = _COUNTED.format(schema=self._schema)
        if inclusive:  # The installation's own events stand under the lowest id there is.
            statement = statement.replace("organization_id > :after", "organization_id >= :after")
        async with self._database.unscoped() as connection:
            rows = await connection.execute(text(statement), {"after": after, "limit": _ORGANIZATIONS})
            return [(row.organization_id, row.relayed, row.value) for row in rows]

    async def _compare(self, organization_id: UUID, through: int) -> list[Difference]:
        found = []
        first = self._compared.get(organization_id, 0) + 1
        while first <= through:
            last = min(first + WINDOW - 1, through)
            difference = await self._compare_window(organization_id, first, last)
            if difference is not None:
                found.append(difference)
            elif not found:
                self._compared[organization_id] = last
            first = last + 1
            if first <= through:
                await asyncio.sleep(PAUSE_SECONDS)
        return found

    async def _compare_window(self, organization_id: UUID, first: int, last: int) -> Difference | None:
        async with self._database.scoped(organization_id, read_only=True) as connection:
            rows = await connection.execute(
                text(_OURS.format(schema=self._schema)),
                {"organization_id": organization_id, "first": first, "last": last},
            )
            outbox = {row.event_id: (row.counter, row.log_index) for row in rows}
        theirs = await self._log.summarize(organization_id, first, last)
        before, counters = theirs.detached_before, {counter for counter, _ in outbox.values()}
        ours = {event_id for event_id, (_, place) in outbox.items() if place is None or place >= before}
        whole = len(counters) == last - first + 1
        if whole and theirs.count == len(ours) and theirs.digest == digest_of(list(ours)):
            return None
        named = set((await self._log.summarize(organization_id, first, last, with_ids=True)).event_ids)
        return Difference(
            organization_id,
            first,
            last,
            len(ours),
            theirs.count,
            _some(named - ours),
            _some(ours - named),
            _some(set(range(first, last + 1)) - counters),
        )


def digest_of(event_ids: Sequence[UUID]) -> bytes:
    """SHA-256 over the sorted event ids, as 16-byte UUIDs one after the other, as the log's own summary has it."""
    return hashlib.sha256(b"".join(sorted(event_id.bytes for event_id in event_ids))).digest()


def _some(found: set[T]) -> tuple[T, ...]:
    return tuple(sorted(found)[:_NAMED])


def _list(ids: Sequence[UUID | int]) -> str:
    return ", ".join(str(each) for each in ids) or "none"
