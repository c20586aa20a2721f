"""Tells how old the newest backup is: a gauge, read from the register that `recoup backup` writes."""

from __future__ import annotations

import asyncio
import logging

from services._mesh.metrics import Metrics
from services._mesh.uow import PLATFORM, Store
from services.scanner.store import backups

log = logging.getLogger(__name__)
EVERY_SECONDS = 60.0


class BackupWatch:
    """The task. Both gauges are 0 while there is no backup, which is as old as can be."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._taken = metrics.gauge("recoup_backup_taken_timestamp_seconds", "Of when the newest backup is.")
        self._verified = metrics.gauge("recoup_backup_verified_timestamp_seconds", "When a backup was last verified.")

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:
                log.warning("the register of backups will be read again: %s", type(error).__name__)
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Read the register once. Raises Problem."""
        async with self._store.read(PLATFORM) as connection:
            taken, verified = await backups.read_newest(connection)
        self._taken.set(taken.timestamp() if taken else 0.0)
        self._verified.set(verified.timestamp() if verified else 0.0)
