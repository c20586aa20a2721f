"""Restores a backup into two empty databases, and refuses what couldn't be used once it is restored."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from services._mesh.envelope import VERSION
from services._mesh.errors import Problem
from services._mesh.ids import uuid7
from services._mesh.kms.interface import Binding, EnvelopeBroken, Kek, KeyService, Kms, SecretContext
from services._mesh.settings import DatabaseSettings
from services.backup.model.manifest import KEYS, MAIN, DatabaseCopy, KekUse, Table
from services.backup.model.parts import PartBroken, Place
from services.backup.store.target import copy_in, migrate_to, require_empty
from services.backup.usecases.creating import Tell
from services.backup.usecases.keeping import Keep, Kept

_AT_ONCE = 4
# A KEK is tried by wrapping: what comes of it is for nothing, and unwraps nowhere.
_PURPOSE = "backup.kek_probe"


@dataclass(frozen=True, slots=True)
class LostKek:
    """A KEK that secrets in the backup are under, and that can't be used; why not."""

    use: KekUse
    why: str

    def __str__(self) -> str:
        whose = f"{self.use.secrets} secrets of organization {self.use.organization_id}"
        return f"{self.use.kek} ({whose}): {self.why}"


class KeksLost(Exception):
    """Secrets in the backup couldn't be opened any more; names each KEK."""

    def __init__(self, lost: Sequence[LostKek]) -> None:
        super().__init__("; ".join(map(str, lost)))
        self.lost = lost


async def require_keks(kms: Kms, uses: Sequence[KekUse], given_up: frozenset[str] = frozenset()) -> None:
    """Try each KEK that the backup needs. Raises KeksLost for those that can't be used and weren't given up."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def tried(use: KekUse) -> LostKek | None:
        kek, organization_id = Kek(KeyService(use.service), use.kek), UUID(use.organization_id)
        context = SecretContext(organization_id, uuid7(), _PURPOSE)
        try:
            async with places:
                await kms.wrap(kek, os.urandom(32), Binding(context.canonical(VERSION), context, kek))
        except Problem as problem:
            cause = problem.metadata.get("cause", problem.reason_name)
            return LostKek(use, f"{cause}. {problem.message}")
        except EnvelopeBroken:
            return LostKek(use, "it is no key that wraps.")
        return None

    wanted = [use for use in uses if use.kek not in given_up]
    if lost := [each for each in await asyncio.gather(*map(tried, wanted)) if each is not None]:
        raise KeksLost(lost)


class Restorer:
    """Writes what a backup holds into databases that are empty."""

    def __init__(self, keep: Keep, kept: Kept, tell: Tell) -> None:
        self._keep, self._kept, self._tell = keep, kept, tell

    async def require_parts(self) -> int:
        """Read every part, and hold it against the manifest; returns how many there are. Raises PartBroken."""
        count = 0
        for name in (MAIN, KEYS):
            for table in self._kept.manifest.databases[name].tables:
                async for _ in self._rows(name, table):
                    pass
                count += len(table.parts)
        return count

    async def restore(self, main: DatabaseSettings, keys: DatabaseSettings) -> None:
        """The keys first, then the log and all else: where that is whole, so are the keys.

        Raises TargetUnusable before anything is changed; PartBroken, Differs, OSError, and then what is there is none.
        """
        await require_empty(keys, KEYS)
        await require_empty(main, MAIN)
        for settings, name in ((keys, KEYS), (main, MAIN)):
            copy = self._kept.manifest.databases[name]
            self._tell(f"restoring {len(copy.tables)} tables into {settings.dbname}")
            await migrate_to(settings, copy.revisions)
            await self._fill(settings, name, copy)

    async def _fill(self, settings: DatabaseSettings, name: str, copy: DatabaseCopy) -> None:
        await copy_in(settings, name, copy, lambda table: self._rows(name, table))

    async def _rows(self, database: str, table: Table) -> AsyncIterator[bytes]:
        """A table's rows as COPY's text, part by part. Raises PartBroken, also at the end where anything is missing."""
        digest, size = hashlib.sha256(), 0
        for number, part in enumerate(table.parts):
            place = Place(self._kept.header.backup_id, database, table.name, number)
            plaintext = await self._keep.get_part(place, part, self._kept.keys[database])
            digest.update(plaintext)
            size += len(plaintext)
            yield plaintext
        if (size, digest.hexdigest()) != (table.size_bytes, table.sha256):
            raise PartBroken(f"{table.name} isn't the rows that the manifest says")
