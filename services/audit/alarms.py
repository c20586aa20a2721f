"""Raises alarms: events `audit.alarm.raise` of the log's own outbox, and a metric by kind.

The same alarm is raised once, and so many a minute of a kind and producer: whoever can cause alarms must not be able to
fill the log, nor to hide what others cause. How many were held back is an alarm of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from services._mesh import outbox
from services._mesh.clock import monotonic
from services._mesh.database import scope
from services._mesh.errors import Problem
from services._mesh.ids import PLATFORM, uuid7
from services._mesh.metrics import Metrics
from services._mesh.uow import Store
from services.audit.model.alarms import Alarm, AlarmKind, only_log
from services.audit.store import Connection

log = logging.getLogger(__name__)

ACTION = "audit.alarm.raise"
MAX_WAITING = 1000
MAX_REMEMBERED = 4096
MAX_A_MINUTE = 60
WINDOW_SECONDS = 60.0
# Windows of kinds and producers; there are some dozens of both together.
MAX_WINDOWS = 512
_AGAIN_SECONDS = 1.0
_LOOK_SECONDS = 5.0


@dataclass
class _Window:
    """What was raised of a kind and producer since it began, and held back."""

    began: float
    count: int = 0
    held_back: int = 0

    @property
    def over(self) -> bool:
        return monotonic() - self.began >= WINDOW_SECONDS


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
        self._times = 0
        self._windows: OrderedDict[tuple[AlarmKind, str], _Window] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many alarms were noted and aren't raised yet."""
        return self._waiting

    async def raise_(
        self, kind: AlarmKind, organization_id: UUID, metadata: Mapping[str, str], once: str = ""
    ) -> UUID | None:
        """Write the alarm's event, in a transaction of its own; returns its id.

        None where the same was raised before, or too many of its kind and producer were. Raises Problem when the
        database is away.
        """
        alarm = Alarm(kind, organization_id, metadata, once)
        if not self._is_due(alarm):
            return None
        event = _event(alarm)
        try:
            async with self._store.begin(organization_id) as work:
                event_id = work.emit(event.action, event.target, event.metadata, event.result)
        except BaseException:
            self._window_of(alarm).count -= 1  # It is tried again, and must not be held back by its own attempts.
            raise
        self._written([alarm])
        return event_id

    async def write_within(self, connection: Connection, alarms: Sequence[Alarm], now: datetime) -> Callable[[], None]:
        """Write alarms in the very transaction that finds what is wrong, as its last statements: they stand if it does.

        Returns what is to be called once it is committed. Its scope is another one afterwards.
        """
        due = [alarm for alarm in {each.key: each for each in alarms}.values() if self._is_due(alarm)]
        by_organization: defaultdict[UUID, list[outbox.Event]] = defaultdict(list)
        for alarm in due:
            by_organization[alarm.organization_id].append(_event(alarm))
        for organization_id, events in sorted(by_organization.items()):
            await scope(connection, organization_id)
            await outbox.write(connection, self._store.schema, organization_id, events, None, now)
        return partial(self._written, due)

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
            alarm = alarm or await self._next()
            self._sum_up()
            if alarm is None:
                continue
            if await self._raised_now(alarm):
                alarm, self._waiting = None, self._waiting - 1
            else:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _next(self) -> Alarm | None:
        """The next alarm, or None after a moment without one."""
        try:
            async with asyncio.timeout(min(_LOOK_SECONDS, WINDOW_SECONDS)):
                return await self._queue.get()
        except TimeoutError:
            return None

    def _sum_up(self) -> None:
        """Note how many alarms were held back in each window that is over."""
        for (kind, producer), window in [each for each in self._windows.items() if each[1].over]:
            del self._windows[kind, producer]
            if window.held_back:
                self._times += 1
                metadata = {"of": kind.value, "producer": producer, "count": str(window.held_back)}
                self.note(Alarm(AlarmKind.ALARMS_HELD_BACK, PLATFORM, metadata, f"{self._times}"))

    async def _raised_now(self, alarm: Alarm) -> bool:
        try:
            await self.raise_(alarm.kind, alarm.organization_id, alarm.metadata, alarm.once)
        except Exception as error:  # Whatever it is, the log goes on, and the alarm waits.
            name = error.reason_name if isinstance(error, Problem) else type(error).__name__
            log.warning("the alarm %s will be raised as soon as it can be: %s", alarm.kind, name)
            return False
        return True

    def _is_due(self, alarm: Alarm) -> bool:
        """Whether an alarm is to be written: it wasn't before, and not too many of its kind were."""
        if alarm.key in self._known:
            self._known.move_to_end(alarm.key)
            return False
        only_log(alarm)
        if self._within_limit(alarm):
            return True
        self._held_back[alarm.kind].add()
        return False

    def _written(self, alarms: Sequence[Alarm]) -> None:
        for alarm in alarms:
            self._raised[alarm.kind].add()
            self._remember(alarm)

    def _within_limit(self, alarm: Alarm) -> bool:
        window = self._window_of(alarm)
        if window.over:
            self._sum_up()
            window = self._window_of(alarm)
        within = window.count < MAX_A_MINUTE
        window.count += within
        window.held_back += not within
        return within

    def _window_of(self, alarm: Alarm) -> _Window:
        window = self._windows.setdefault((alarm.kind, alarm.metadata.get("producer", "")), _Window(monotonic()))
        while len(self._windows) > MAX_WINDOWS:
            self._windows.popitem(last=False)
        return window

    def _remember(self, alarm: Alarm) -> None:
        self._known[alarm.key] = None
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)


def _event(alarm: Alarm) -> outbox.Event:
    metadata = {**alarm.metadata, "kind": alarm.kind}
    return outbox.Event(uuid7(), ACTION, f"alarms/{alarm.kind}", "FAILED", metadata)
