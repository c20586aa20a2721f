"""What the scanner knows of backups: which there are, and how many secrets in them are under which KEK.

A KEK isn't retired while a backup needs it. Written as a login of its own, each organization's rows in a transaction of
its own, with their event.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from services._mesh.uow import PLATFORM, Store, UnitOfWork
from services.backup.model.manifest import KekUse, Manifest

_INSERT = text("""
INSERT INTO scanner.backups (organization_id, backup_id, kek, secrets, taken_at)
VALUES (:organization_id, :backup_id, :kek, :secrets, :taken_at) ON CONFLICT DO NOTHING
""")
_RETIRED = text("""
SELECT count(*) FROM scanner.keks k WHERE k.state = 'RETIRED' AND :kek IN (k.key_id, k.key_id || '/' || k.key_version,
  k.key_id || '/cryptoKeyVersions/' || k.key_version)
""")
_VERIFIED = text("UPDATE scanner.backups SET verified_at = :now WHERE backup_id = :backup_id AND kek = ''")
_KNOWN = text(
    "SELECT backup_id, taken_at, verified_at FROM scanner.backups WHERE kek = '' AND forgotten_at IS NULL"
    " ORDER BY taken_at DESC, backup_id DESC"
)
_FORGOTTEN = text(
    "UPDATE scanner.backups SET forgotten_at = :now WHERE backup_id = :backup_id AND forgotten_at IS NULL RETURNING kek"
)


@dataclass(frozen=True, slots=True)
class Known:
    """A whole backup on record; `verified_at` is None for one that was never verified."""

    backup_id: UUID
    taken_at: datetime
    verified_at: datetime | None


class Registry:
    """The scanner's register of backups, under `scanner_backup`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def record_keks(self, manifest: Manifest) -> list[KekUse]:
        """Note which KEKs a backup needs, before it is whole; returns those that were retired while it was made.

        Safe to repeat.
        """
        backup_id, retired = UUID(manifest.backup_id), list[KekUse]()
        for organization_id, uses in _by_organization(manifest.keks).items():
            async with self._store.begin(organization_id) as work:
                retired += await self._uses(work, backup_id, uses, datetime.fromisoformat(manifest.taken_at))
        return retired

    async def record_whole(self, manifest: Manifest) -> None:
        """Note that a backup is whole. Safe to repeat."""
        backup_id, taken_at = UUID(manifest.backup_id), datetime.fromisoformat(manifest.taken_at)
        async with self._store.begin(PLATFORM) as work:
            if await _inserted(work, backup_id, "", 0, taken_at):
                said = {"organizations": str(len(_by_organization(manifest.keks))), "taken_at": taken_at.isoformat()}
                work.emit("scanner.backup.record", f"backups/{backup_id}", said)

    async def _uses(
        self, work: UnitOfWork, backup_id: UUID, uses: Sequence[KekUse], taken_at: datetime
    ) -> list[KekUse]:
        new = [u for u in uses if await _inserted(work, backup_id, u.kek, u.secrets, taken_at)]
        if new:
            said = {"keks": [{"kek": use.kek, "secrets": str(use.secrets)} for use in new]}
            work.emit("scanner.backup.record", f"backups/{backup_id}", said)
        return [use for use in uses if (await work.execute(_RETIRED, {"kek": use.kek})).scalar_one()]

    async def list_known(self) -> list[Known]:
        """The backups that there are, as far as is on record, the newest first."""
        async with self._store.read(PLATFORM) as connection:
            rows = await connection.execute(_KNOWN)
            return [Known(UUID(str(row.backup_id)), row.taken_at, row.verified_at) for row in rows]

    async def verified(self, backup_id: UUID) -> None:
        """Note that a backup was verified."""
        async with self._store.begin(PLATFORM) as work:
            if (await work.execute(_VERIFIED, {"now": work.wall_now, "backup_id": backup_id})).rowcount:
                work.emit("scanner.backup.verify", f"backups/{backup_id}")

    async def forget(self, backup_id: UUID, organizations: Sequence[UUID]) -> int:
        """Note that a backup is gone, in all of these organizations; returns in how many it was known."""
        known = 0
        for organization_id in (*organizations, PLATFORM):
            async with self._store.begin(organization_id) as work:
                if (await work.execute(_FORGOTTEN, {"now": work.wall_now, "backup_id": backup_id})).all():
                    work.emit("scanner.backup.forget", f"backups/{backup_id}")
                    known += 1
        return known


def _by_organization(uses: Sequence[KekUse]) -> dict[UUID, list[KekUse]]:
    found: dict[UUID, list[KekUse]] = {}
    for use in uses:
        found.setdefault(UUID(use.organization_id), []).append(use)
    return found


async def _inserted(work: UnitOfWork, backup_id: UUID, kek: str, secrets: int, taken_at: datetime) -> bool:
    values = {"organization_id": work.organization_id, "backup_id": backup_id, "kek": kek, "secrets": secrets}
    return bool((await work.execute(_INSERT, {**values, "taken_at": taken_at})).rowcount)
