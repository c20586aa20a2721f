"""Sums up how all organizations' sealed credentials stand, for metrics: how many, how old, how many too old."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.database import Database
from services._mesh.errors import Problem
from services._mesh.metrics import Metrics
from services._mesh.process import Mesh
from services._mesh.uow import Store
from services.scanner.model.rotation_rules import REMIND_AFTER_DAYS
from services.scanner.store import rotation_rules
from services.scanner.store import secrets_posture as store

log = logging.getLogger(__name__)
EVERY_SECONDS = 300.0
_PAGE = 500
# After each organization, so that many of them are no burden.
_PAUSE_SECONDS = 0.005


class SecretsWatch:
    """The task. Each organization is read under its own row-level security; `listing` only says which there are."""

    def __init__(self, listing: Database, reader: Store, clock: Clock, metrics: Metrics) -> None:
        self._listing, self._reader, self._clock = listing, reader, clock
        self._counts = {
            state: metrics.gauge("recoup_secrets_credentials", "Sealed credentials of what is in use.", state=state)
            for state in ("held", "unrotated", "too_old", "stuck")
        }
        self._oldest = metrics.gauge("recoup_secrets_oldest_days", "Age of the oldest secret that could be rotated.")
        self._rotating = metrics.gauge("recoup_secrets_rotation_open_seconds", "Age of the oldest open rotation.")
        self._drifted = metrics.gauge(
            "recoup_connections_drifted", "Connections that were accepted, and lost a role or a permission since."
        )
        self._looked = metrics.gauge("recoup_secrets_looked_timestamp_seconds", "When all of it was last summed up.")
        self._looked.set(clock.wall_seconds())

    async def run(self) -> None:
        """Sum up until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:
                name = error.reason_name if isinstance(error, Problem) else type(error).__name__
                log.warning("the posture of secrets will be summed up again: %s", name)
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Sum up once. Raises Problem."""
        now, after = self._clock.now(), None
        counts, oldest_days, rotating_seconds, drifted = dict.fromkeys(self._counts, 0), 0.0, 0.0, 0
        while organizations := await self._organizations(after):
            for organization_id in organizations:
                async with self._reader.read(organization_id) as connection:
                    rules = await rotation_rules.find_rules(connection)
                    remind_days = rules.remind_after_days or REMIND_AFTER_DAYS
                    row = await store.measure(connection, rules, remind_days, now)
                    drifted += await store.count_drifted(connection)
                for state in counts:
                    counts[state] += getattr(row, state)
                if row.oldest_at is not None:
                    oldest_days = max(oldest_days, (now - row.oldest_at).total_seconds() / 86_400)
                if row.rotating_since is not None:
                    rotating_seconds = max(rotating_seconds, (now - row.rotating_since).total_seconds())
                await asyncio.sleep(_PAUSE_SECONDS)
            after = organizations[-1]
        for state, count in counts.items():
            self._counts[state].set(count)
        self._drifted.set(drifted)
        self._oldest.set(oldest_days)
        self._rotating.set(rotating_seconds)
        self._looked.set(self._clock.wall_seconds())

    async def _organizations(self, after: UUID | None) -> list[UUID]:
        async with self._listing.unscoped() as connection:
            return await store.list_organizations(connection, after, _PAGE)


def watch_secrets(mesh: Mesh, store: Store) -> None:
    """Start the task. The relay's role is the one that sees which organizations there are."""
    listing = mesh.database(mesh.role("relay"), pool_size=1)
    mesh.task(SecretsWatch(listing, store, mesh.clock, mesh.metrics).run(), "watch on secrets")
