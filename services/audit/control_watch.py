"""Watches the controls that stand in the database: what is disabled, missing or opened there is an event.

It looks once a minute, so that what was undone in between isn't seen (SECURITY.md). It changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.errors import Problem
from services._mesh.metrics import Metrics
from services._mesh.uow import PLATFORM
from services.audit.model.alarms import Alarm, AlarmKind, Note
from services.audit.model.controls import Bypass
from services.audit.store import controls as store

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0


class ControlWatch:
    """The watching task of the audit process. `database` is under any role of the schema that reads heads.

    `keys` is the subjects' database under any role.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        note: Note,
        metrics: Metrics,
        *,
        event_triggers: bool = True,
        keys: Database | None = None,
    ) -> None:
        self._database, self._clock, self._note, self._event_triggers = database, clock, note, event_triggers
        self._keys = keys
        self._bypassed = metrics.gauge(
            "recoup_controls_bypassed", "Controls in the database that aren't as the migrations made them."
        )
        self._looked = metrics.gauge(
            "recoup_controls_looked_timestamp_seconds", "When the controls in the database were last looked at."
        )
        self._unsigned = metrics.gauge(
            "recoup_log_unsigned_seconds", "Age of the newest checkpoint while leaves wait for the next; else 0."
        )
        self._left = metrics.gauge("recoup_log_shards_left", "Shards of the log that there are partitions for.")
        self._found: frozenset[Bypass] = frozenset()
        self._of_keys: list[Bypass] = []
        self._times = 0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:
                name = error.reason_name if isinstance(error, Problem) else type(error).__name__
                log.warning("the controls in the database will be looked at again: %s", name)
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> list[Bypass]:
        """Look once; each bypass is noted when it appears, and again when it comes back after it was gone."""
        async with self._database.unscoped() as connection:
            found = await store.read_bypasses(connection, event_triggers=self._event_triggers)
            since = await store.read_unsigned_since(connection)
            self._left.set(await store.read_shards_left(connection))
        async with self._database.scoped(PLATFORM, read_only=True) as connection:
            found += await store.read_unannounced(connection)
        self._unsigned.set(0.0 if since is None else max(0.0, self._clock.wall_seconds() - since))
        # What was found of the keys stands until they are looked at again: who cuts them off hides nothing here.
        self._tell([*found, *self._of_keys])
        if self._keys is not None:
            async with self._keys.unscoped() as connection:
                self._of_keys = await store.read_key_bypasses(connection)
            found += self._of_keys
            self._tell(found)
        self._looked.set(self._clock.wall_seconds())
        return found

    def _tell(self, found: Sequence[Bypass]) -> None:
        self._bypassed.set(len(found))
        for bypass in sorted(set(found) - self._found):
            self._times += 1
            metadata = {"control": bypass.control, "what": bypass.what, "how": bypass.how}
            self._note(Alarm(AlarmKind.CONTROL_BYPASSED, PLATFORM, metadata, f"{self._times} {bypass}"))
        for bypass in sorted(self._found - set(found)):
            log.warning("a control in the database is as it should be again: %s", bypass)
        self._found = frozenset(found)
