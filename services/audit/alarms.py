"""Raises alarms: events `audit.alarm.raise` of the log's own outbox, and a metric by kind.

The same alarm is raised once, and so many a minute: whoever can cause alarms must not be able to fill the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from uuid import UUID

from services._mesh.clock import monotonic
from services._mesh.errors import Problem
from services._mesh.metrics import Metrics
from services._mesh.uow import Store
from services.audit.model.alarms import Alarm, AlarmKind, only_log

log = logging.getLogger(__name__)

ACTION = "audit.alarm.raise"
MAX_WAITING = 1000
MAX_REMEMBERED = 4096
MAX_A_MINUTE = 60
_AGAIN_SECONDS = 1.0


class Alarms:
    """The alarms of this process. `store` is of the schema audit, and may write into its outbox."""

    def __init__(self, store: Store, metrics: Metrics | None = None) -> None:
        self._store = store
        metrics = metrics or Metrics()
        text = "Alarms that the log raised: events audit.alarm.raise."
        self._raised = {kind: metrics.counter("recoup_audit_alarms", text, kind=kind) for kind in AlarmKind}
        text = "Alarms that weren't written, because there were too many of their kind."
        self._held_back = {
            kind: metrics.counter("recoup_audit_alarms_held_back", text, kind=kind) for kind in AlarmKind
        }
        self._queue: asyncio.Queue[Alarm] = asyncio.Queue(MAX_WAITING)
        self._waiting = 0
        self._known: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._minute = dict.fromkeys(AlarmKind, (0.0, 0))

    @property
    def waiting(self) -> int:
        """How many alarms were noted and aren't raised yet."""
        return self._waiting

    async def raise_(
        self, kind: AlarmKind, organization_id: UUID, metadata: Mapping[str, str], once: str = ""
    ) -> UUID | None:
        """Write the alarm's event, in a transaction of its own; returns its id.

        None where the same was raised before, or too many of its kind were. Raises Problem when the database is away.
        """
        alarm = Alarm(kind, organization_id, metadata, once)
        if alarm.key in self._known:
            self._known.move_to_end(alarm.key)
            return None
        only_log(alarm)
        if not self._within_limit(kind):
            self._held_back[kind].add()
            return None
        async with self._store.begin(organization_id) as work:
            event_id = work.emit(ACTION, f"alarms/{kind}", {**metadata, "kind": kind}, "FAILED")
        self._raised[kind].add()
        self._remember(alarm)
        return event_id

    def note(self, alarm: Alarm) -> None:
        """Have an alarm raised soon; never waits. What finds no room is counted, and stands in the process's log."""
        if alarm.key in self._known:
            return
        try:
            self._queue.put_nowait(alarm)
            self._waiting += 1
        except asyncio.QueueFull:
            self._held_back[alarm.kind].add()
            only_log(alarm)

    async def run(self) -> None:
        """Raise what was noted, until cancelled."""
        alarm: Alarm | None = None
        while True:
            alarm = alarm or await self._queue.get()
            if await self._raised_now(alarm):
                alarm, self._waiting = None, self._waiting - 1
            else:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _raised_now(self, alarm: Alarm) -> bool:
        try:
            await self.raise_(alarm.kind, alarm.organization_id, alarm.metadata, alarm.once)
        except Exception as error:  # Whatever it is, the log goes on, and the alarm waits.
            name = error.reason_name if isinstance(error, Problem) else type(error).__name__
            log.warning("the alarm %s will be raised as soon as it can be: %s", alarm.kind, name)
            return False
        return True

    def _within_limit(self, kind: AlarmKind) -> bool:
        began, count = self._minute[kind]
        if monotonic() - began >= 60:
            began, count = monotonic(), 0
        self._minute[kind] = (began, count + 1)
        return count < MAX_A_MINUTE

    def _remember(self, alarm: Alarm) -> None:
        self._known[alarm.key] = None
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
