"""Runs the self-check when it is due, and says what it found: a log line, metrics, an alarm."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from services._mesh.clock import Clock
from services._mesh.database import problem_of
from services._mesh.errors import Problem
from services._mesh.metrics import Metrics
from services._mesh.uow import PLATFORM
from services.audit.checking import Checker
from services.audit.model.alarms import Alarm, AlarmKind, Note
from services.audit.model.check_result import CheckResult, spoken
from services.audit.model.faults import Fault
from services.audit.model.progress import Scope
from services.audit.model.shards import split

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
SOUND = -1


class CheckMetrics:
    """What operators see of one scope's checks. The bad index is -1 while the log is what it should be."""

    def __init__(self, metrics: Metrics, scope: Scope) -> None:
        label = scope.lower()
        self.bad_index = metrics.gauge(
            "recoup_log_self_check_bad_index", "First index that isn't what it should be; -1 for none.", scope=label
        )
        self.bad_shard = metrics.gauge(
            "recoup_log_self_check_bad_shard", "The shard of the first bad index; -1 for none.", scope=label
        )
        self.last_success = metrics.gauge(
            "recoup_log_self_check_last_success_timestamp_seconds", "When a check last found all well.", scope=label
        )
        self.rows = metrics.gauge("recoup_log_self_check_rows", "Rows that the last check read.", scope=label)
        self.leaves = metrics.gauge("recoup_log_self_check_leaves", "Leaves that the last check hashed.", scope=label)
        self.bad_index.set(SOUND)
        self.bad_shard.set(SOUND)

    def bad(self, fault: Fault) -> None:
        """There is a fault."""
        shard, index = split(max(fault.place, 0))
        self.bad_index.set(index)
        self.bad_shard.set(shard)

    def ended(self, result: CheckResult) -> None:
        """A check ended."""
        self.rows.set(result.rows)
        self.leaves.set(result.leaves)
        if result.sound:
            self.bad_index.set(SOUND)
            self.bad_shard.set(SOUND)
            self.last_success.set(result.finished_at.timestamp())
        else:
            self.bad(result.faults[0])


class CheckTask:
    """The self-checking task of the audit process that appends; `active` tells whether this is the one."""

    def __init__(
        self,
        checker: Checker,
        clock: Clock,
        note: Note,
        metrics: Metrics,
        active: Callable[[], bool],
        every_seconds: float = 3600.0,
        nightly_hour: int = 2,
    ) -> None:
        self._checker, self._clock, self._note, self._active = checker, clock, note, active
        self._every, self._hour = timedelta(seconds=every_seconds), nightly_hour
        self._metrics = {scope: CheckMetrics(metrics, scope) for scope in Scope}
        self._recalled = False

    async def run(self) -> None:
        """Check until cancelled, each time that it is due."""
        while True:
            try:
                if self._active():
                    await self.round()
            except Exception as error:
                name = error.reason_name if isinstance(error, Problem) else type(error).__name__
                foreseen = isinstance(error, Problem) or problem_of(error) is not None
                log.warning("the log's self-check will be tried again: %s", name, exc_info=None if foreseen else error)
            await asyncio.sleep(LOOK_SECONDS)

    async def round(self) -> list[CheckResult]:
        """Run what is due; returns the results."""
        if not self._recalled:
            await self._recall()
        done = []
        for scope in (Scope.FULL, Scope.RECENT):
            if self._is_due(scope, await self._checker.last_finished(scope)):
                done.append(await self.check(scope))
        return done

    async def whole(self) -> CheckResult:
        """Check the whole log once more, beside what is due, and keep nothing of it."""
        return await self._checker.check(Scope.FULL, keep=False)

    async def check(self, scope: Scope) -> CheckResult:
        """Run one check now, or go on with the one that was interrupted."""
        result = await self._checker.check(scope, report=lambda fault: self._found(scope, fault))
        self._metrics[scope].ended(result)
        for line in result.lines():
            (log.info if result.sound else log.error)("%s", line)
        return result

    async def _recall(self) -> None:
        """What was found before this process began is still so."""
        for scope in Scope:
            result = await self._checker.last_result(scope)
            if result is not None:
                self._metrics[scope].ended(result)
        self._recalled = True

    def _found(self, scope: Scope, fault: Fault) -> None:
        self._metrics[scope].bad(fault)
        log.error("security: the log's self-check failed: %s", spoken(fault))
        shard, index = split(max(fault.place, 0))
        metadata = {
            "scope": scope.value,
            "shard": str(shard),
            "index": str(index),
            "field": fault.field,
            "detail": fault.detail,
        }
        self._note(Alarm(AlarmKind.SELF_CHECK_FAILED, PLATFORM, metadata, f"{fault.place}/{fault.field}"))

    def _is_due(self, scope: Scope, finished_at: datetime | None) -> bool:
        return is_due(scope, finished_at, self._clock.now(), self._every, self._hour)


def is_due(scope: Scope, finished_at: datetime | None, now: datetime, every: timedelta, nightly_hour: int) -> bool:
    """Whether a check is to begin: the recent one after `every`, the full one once after each day's hour."""
    if finished_at is None:
        return True
    if scope is Scope.RECENT:
        return now - finished_at >= every
    night = now.replace(hour=nightly_hour, minute=0, second=0, microsecond=0)
    return finished_at < (night if night <= now else night - timedelta(days=1))
