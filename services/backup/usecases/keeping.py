"""Where backups are kept: attempts that were begun, parts, and the manifests that make a backup whole."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.envelope import open_envelope, seal
from services._mesh.errors import Problem
from services._mesh.ids import uuid7
from services._mesh.kms.interface import EnvelopeBroken, Kek, Kms, SecretContext
from services._mesh.outbox import PLATFORM
from services._mesh.storage import Missing, PrunedStorage, StorageFailed, StorageLocked
from services.backup.model.manifest import (
    KEYS,
    MAIN,
    Header,
    Manifest,
    ManifestBroken,
    open_manifest,
    signed_line,
    split_manifest,
)
from services.backup.model.parts import KEY_BYTES, PartBroken, Place, open_part

R = TypeVar("R")
_TRIES, _FIRST_PAUSE_SECONDS = 5, 0.5
# What S3 lists at once, and how often it is asked: backups of every hour, for ten years.
_LISTED, _MOST_LISTS = 1000, 100


class BackupUnusable(Exception):
    """The backup can't be used; says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A backup that is being made, with its data keys."""

    header: Header
    keys: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """A whole backup, opened."""

    header: Header
    manifest: Manifest
    keys: Mapping[str, bytes] = field(repr=False)


class Keep:
    """The storage of backups. `keys_storage` has the parts of the keys' database; it may be the same."""

    def __init__(
        self, storage: PrunedStorage, keys_storage: PrunedStorage, kms: Kms, kek: Kek, verifiers: Sequence[bytes]
    ) -> None:
        self._storage, self._keys_storage, self._kms, self._kek = storage, keys_storage, kms, kek
        self._verifiers = verifiers

    @property
    def where(self) -> str:
        """The storage as a person would name it."""
        return self._storage.where

    async def begin(self, source: str, now: datetime, signer: Ed25519PrivateKey) -> Attempt:
        """A new attempt, noted in the storage before anything else is. Raises Problem, StorageFailed."""
        backup_id = uuid7()
        keys = {name: os.urandom(KEY_BYTES) for name in (MAIN, KEYS)}
        sealed = {name: await seal(key, _context(backup_id, name), self._kek, self._kms) for name, key in keys.items()}
        header = Header(backup_id, now, source, sealed)
        await insisting(lambda: self._storage.put(f"begun/{header.name}", signed_line(header, signer)))
        return Attempt(header, keys)

    async def find_unfinished(self, source: str, now: datetime, hours: float) -> Attempt | None:
        """The newest attempt, if it isn't whole yet and may go on. Raises StorageFailed."""
        for name in await self._storage.first("begun", 1):
            try:
                header, _ = split_manifest(await self._storage.get(name), self._verifiers)
            except ManifestBroken:
                return None
            begun_lately = timedelta(0) <= now - header.begun_at <= timedelta(hours=hours)
            if header.source != source or not begun_lately or await self._storage.holds(f"manifests/{header.name}"):
                return None
            try:
                return Attempt(header, await self._open_keys(header))
            except (Problem, EnvelopeBroken):
                return None  # Who may only wrap begins anew.
        return None

    async def put_part(self, place: Place, digest: str, sealed: bytes) -> bool:
        """Keep a part; False where it was there already. Raises StorageFailed, Occupied."""
        storage, name = self._of(place.database), place.object(digest)
        if await insisting(lambda: storage.holds(name)):
            return False
        await insisting(lambda: storage.put(name, sealed))
        return True

    async def get_part(self, place: Place, digest: str, key: bytes) -> bytes:
        """A part, opened. Raises PartBroken, StorageFailed."""
        name, storage = place.object(digest), self._of(place.database)
        try:
            sealed = await insisting(lambda: storage.get(name))
        except Missing:
            raise PartBroken(f"part {place.number} of {place.database}'s {place.table} is missing: {name}") from None
        return await asyncio.to_thread(open_part, sealed, place, digest, key)

    async def put_manifest(self, header: Header, content: bytes) -> None:
        """Make a backup whole. Raises StorageFailed."""
        await insisting(lambda: self._storage.put(f"manifests/{header.name}", content))

    async def list_names(self) -> list[str]:
        """Names of whole backups, the newest first. Raises StorageFailed."""
        return await self._list("manifests")

    async def list_unfinished(self) -> list[Header]:
        """Attempts of ours that never became a backup, or whose manifest is deleted. Raises StorageFailed."""
        whole, found = set(await self.list_names()), list[Header]()
        for name in await self._list("begun"):
            if name not in whole:
                with suppress(ManifestBroken, Missing):  # Nobody's, or another installation's: not ours to delete.
                    header, _ = split_manifest(await self._storage.get(f"begun/{name}"), self._verifiers)
                    found += [header] if header.name == name else []
        return found

    async def delete_manifest(self, name: str) -> None:
        """Make a whole backup none: the first of its objects to go. Raises StorageLocked, StorageFailed."""
        await insisting(lambda: self._storage.delete(f"manifests/{name}"))

    async def delete_rest(self, name: str) -> int:
        """Delete what is left of a backup without its manifest; returns how many parts there were.

        Its beginning goes last, so that a kill at any moment leaves what names it. Raises StorageLocked, StorageFailed.
        """
        backup_id, _ = Header.of_name(name)
        deleted = 0
        for storage in {id(each): each for each in (self._storage, self._keys_storage)}.values():
            deleted += await insisting(partial(storage.delete_below, f"parts/{UUID(backup_id)}"))
        await insisting(lambda: self._storage.delete(f"begun/{name}"))
        return deleted

    async def _list(self, folder: str) -> list[str]:
        found: list[str] = []
        for _ in range(_MOST_LISTS):
            more = await insisting(partial(self._storage.first, folder, _LISTED, found[-1] if found else ""))
            found += more
            if len(more) < _LISTED:
                break
        return [name.rpartition("/")[2] for name in found]

    async def open(self, backup_id: UUID | None = None) -> Kept:
        """A backup by its id, or the newest. Raises BackupUnusable, Problem, StorageFailed."""
        names = [name for name in await self.list_names() if backup_id is None or name.endswith(f"-{backup_id}")]
        if not names:
            which = "any backup" if backup_id is None else f"a whole backup {backup_id}"
            raise BackupUnusable(f"{self.where} doesn't hold {which}. See `recoup backup list`.")
        content = await insisting(lambda: self._storage.get(f"manifests/{names[0]}"))
        try:
            header, body = split_manifest(content, self._verifiers)
            if header.name != names[0]:
                raise ManifestBroken("it lies under another backup's name")
            keys = await self._open_keys(header)
            return Kept(header, await asyncio.to_thread(open_manifest, header, body, keys[MAIN]), keys)
        except ManifestBroken as error:
            raise BackupUnusable(f"the manifest {names[0]} can't be used: {error}") from error
        except EnvelopeBroken as error:
            raise BackupUnusable(f"the data keys of {names[0]} don't open under {self._kek.reference}.") from error

    async def _open_keys(self, header: Header) -> dict[str, bytes]:
        contexts = {name: _context(header.backup_id, name) for name in (MAIN, KEYS)}
        return {n: await open_envelope(header.keys[n], context, self._kms) for n, context in contexts.items()}

    def _of(self, database: str) -> PrunedStorage:
        return self._keys_storage if database == KEYS else self._storage


def _context(backup_id: UUID, database: str) -> SecretContext:
    return SecretContext(PLATFORM, backup_id, f"backup.{database}")


async def insisting(call: Callable[[], Awaitable[R]]) -> R:
    """Call again after a failure of the storage, a few times: what is put twice is there once. Raises StorageFailed."""
    for attempt in range(_TRIES - 1):
        try:
            return await call()
        except StorageLocked:
            raise
        except StorageFailed:
            await asyncio.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
    return await call()
