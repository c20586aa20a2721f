"""How an organization stands, and when its members were seen: facts, without a judgement."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from datetime import datetime
from uuid import UUID

from services._mesh.errors import Problem
from services._mesh.uow import Store
from services.identity.model.posture import LISTED, Posture
from services.identity.store import posture as store
from services.identity.store import scim_tokens
from services.identity.store.elevations import list_elevations
from services.identity.store.sso import list_domains

log = logging.getLogger(__name__)

EVERY_SECONDS = 30.0
# Who comes behind so many is noted the next time that they come.
_MOST = 20_000


class Sightings:
    """Who was seen with which assurance level: noted in memory at each passport, written twice a minute."""

    def __init__(self) -> None:
        self._seen: dict[tuple[UUID, UUID], tuple[datetime, int]] = {}

    def note(self, organization_id: UUID, user_id: UUID, aal: int, wall_now: datetime) -> None:
        """A person got a passport for an organization. Costs no query."""
        key = (organization_id, user_id)
        if key in self._seen or len(self._seen) < _MOST:
            self._seen[key] = (wall_now, aal)

    async def flush(self, writer: Store) -> int:
        """Write what was noted; returns how many. What can't be written is dropped: they come again."""
        seen, self._seen = self._seen, {}
        by_organization: dict[UUID, dict[UUID, tuple[datetime, int]]] = defaultdict(dict)
        for (organization_id, user_id), sighting in seen.items():
            by_organization[organization_id][user_id] = sighting
        for organization_id, users in by_organization.items():
            async with writer.begin(organization_id) as work:
                await store.put_sightings(work.connection, organization_id, users)
        return len(seen)

    async def run(self, writer: Store) -> None:
        """Write until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.flush(writer)
            except Exception as error:
                name = error.reason_name if isinstance(error, Problem) else type(error).__name__
                log.warning("who was seen isn't written: %s", name)


async def get_posture(reader: Store, now: datetime, wall_now: datetime) -> Posture:
    """The caller's organization as it stands now. Last uses go by the wall clock, ends and due dates by `now`."""
    async with reader.read() as connection:
        members, admins = await store.count_members(connection)
        weak, weak_total = await store.list_weak_members(connection)
        stale, stale_total = await store.list_stale_tokens(connection, wall_now)
        unused, unused_total = await store.list_unused_roles(connection)
        seen_at, synced_at = await scim_tokens.last_uses(connection)
        reviews_open, reviews_overdue = await store.count_reviews(connection, now)
        in_force, due, expired, overdue = await store.count_exceptions(connection, now)
        return Posture(
            taken_at=now,
            members=members,
            admins=admins,
            weak_members=weak,
            weak_members_total=weak_total,
            stale_tokens=stale,
            stale_tokens_total=stale_total,
            unused_roles=unused,
            unused_roles_total=unused_total,
            sso=await store.sso_enforcement(connection),
            missing_domains=[each for each in await list_domains(connection) if each.missing_since is not None],
            scim_tokens=await scim_tokens.count_tokens(connection, wall_now),
            scim_seen_at=seen_at,
            scim_synced_at=synced_at,
            elevations=await list_elevations(connection, None, LISTED, "ACTIVE", now),
            reviews_open=reviews_open,
            reviews_overdue=reviews_overdue,
            exceptions_in_force=in_force,
            exceptions_due=due,
            exceptions_expired=expired,
            exceptions_overdue=overdue,
        )
