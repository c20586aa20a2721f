"""The reconciler: compares what the outbox says was relayed with what the log holds, and names any difference.

Counts and digests of event ids, for each organization, window by window; ids only where those differ. It repairs
nothing: a difference means that somebody changed a row, and is for people.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from uuid import UUID

from sqlalchemy import text

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
_NAMED = 20
_ORGANIZATIONS = 500


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


_RELAYED = """
SELECT organization_id, relayed FROM {schema}.outbox_counters WHERE organization_id > :after AND relayed > 0
ORDER BY organization_id LIMIT :limit
"""
_OURS = """
SELECT event_id, counter FROM {schema}.outbox
WHERE organization_id = :organization_id AND counter BETWEEN :first AND :last
"""


class Reconciler:
    """The reconciling task of one service, under its relay role."""

    def __init__(self, database: Database, schema: str, summarizer: Summarizer, metrics: Metrics | None = None) -> None:
        self._database, self._schema, self._log = database, schema, summarizer
        metrics = metrics or Metrics()
        self._differences = metrics.gauge(
            "recoup_outbox_differences", "Windows in which outbox and log disagree.", service=schema
        )
        self._compared: dict[UUID, int] = {}
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
        """Compare what was relayed since the last round, or all of it; logs and returns the differences."""
        if full or self._round % FULL_EVERY_ROUNDS == 0:
            self._compared.clear()
        self._round += 1
        found: list[Difference] = []
        after = UUID(int=0)
        organizations = await self._organizations(after, inclusive=True)
        while organizations:
            for organization_id, relayed in organizations:
                found += await self._compare(organization_id, relayed)
            organizations = await self._organizations(organizations[-1][0])
        for difference in found:
            log.error("outbox and log of %s differ: %s", self._schema, difference)
        self._differences.set(len(found))
        return found

    async def _organizations(self, after: UUID, *, inclusive: bool = False) -> list[tuple[UUID, int]]:
        statement = _RELAYED.format(schema=self._schema)
        if inclusive:  # The installation's own events stand under the lowest id there is.
            statement = statement.replace("organization_id > :after", "organization_id >= :after")
        async with self._database.unscoped() as connection:
            rows = await connection.execute(text(statement), {"after": after, "limit": _ORGANIZATIONS})
            return [(row.organization_id, row.relayed) for row in rows]

    async def _compare(self, organization_id: UUID, relayed: int) -> list[Difference]:
        found = []
        first = self._compared.get(organization_id, 0) + 1
        while first <= relayed:
            last = min(first + WINDOW - 1, relayed)
            difference = await self._compare_window(organization_id, first, last)
            if difference is not None:
                found.append(difference)
            elif not found:
                self._compared[organization_id] = last
            first = last + 1
        return found

    async def _compare_window(self, organization_id: UUID, first: int, last: int) -> Difference | None:
        async with self._database.scoped(organization_id, read_only=True) as connection:
            rows = await connection.execute(
                text(_OURS.format(schema=self._schema)),
                {"organization_id": organization_id, "first": first, "last": last},
            )
            counters = {row.event_id: row.counter for row in rows}
        ours = set(counters)
        theirs = await self._log.summarize(organization_id, first, last)
        if theirs.count == len(ours) == last - first + 1 and theirs.digest == digest_of(list(ours)):
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
            _some(set(range(first, last + 1)) - set(counters.values())),
        )


def digest_of(event_ids: Sequence[UUID]) -> bytes:
    """SHA-256 over the sorted event ids, as 16-byte UUIDs one after the other, as the log's own summary has it."""
    return hashlib.sha256(b"".join(sorted(event_id.bytes for event_id in event_ids))).digest()


def _some(found: set[T]) -> tuple[T, ...]:
    return tuple(sorted(found)[:_NAMED])


def _list(ids: Sequence[UUID | int]) -> str:
    return ", ".join(str(each) for each in ids) or "none"
