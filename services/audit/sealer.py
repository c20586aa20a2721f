"""Finds or makes the key of each data subject in a flush, and seals its payloads: the sequencer's half of the keys.

Keys are looked up all at once and kept in a bounded cache. A key that was made for a flush that then failed is found by
the next one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.database import Database, problem_of
from services._mesh.ids import uuid7
from services.audit.kek import Kek, KekMissing, KeyBroken
from services.audit.model.actors import ActorHash
from services.audit.model.batch import Submission
from services.audit.model.digests import Digest
from services.audit.model.sealing import BrokenKey, Sealed, SubjectKey, new_key, seal
from services.audit.serving import Serving, away
from services.audit.store import keys as store

# About 3 MB. A flush has at most 3,000 subjects, so that all of its keys fit.
MAX_CACHED = 10_000


class Sealer:
    """Seals what one sequencer appends. `database` is under the role that sees keys of all organizations, wrapped.

    `digest` is what tells a repeated event from another one with its id.
    """

    def __init__(
        self, database: Database, kek: Kek, actors: ActorHash, digest: Digest, serving: Serving, clock: Clock
    ) -> None:
        self._database, self._kek, self._actors, self.digest = database, kek, actors, digest
        self._serving, self._clock = serving, clock
        self._cache: OrderedDict[tuple[UUID, str], SubjectKey] = OrderedDict()
        self._known: tuple[int, UUID | None] = (-1, None)

    async def seal(self, submissions: Sequence[Submission], erasures: int | None = None) -> list[Sealed | BrokenKey]:
        """Each submission's payload, sealed under a key that was alive after so many erasures (as known last).

        What its subject's key doesn't open for isn't sealed. Raises Unavailable while keys can't be used.
        """
        self._serving.require()
        self._forget(self._known[0] if erasures is None else erasures)
        keys = await self._keys({(s.organization_id, s.payload.subject) for s in submissions})
        return [_sealed(keys[s.organization_id, s.payload.subject], s) for s in submissions]

    async def keys_of(self, subjects: set[tuple[UUID, str]]) -> dict[tuple[UUID, str], SubjectKey]:
        """The key of each subject of an organization, made where there is none. Raises Unavailable."""
        self._serving.require()
        found = await self._keys(subjects)
        whole = {subject: key for subject, key in found.items() if isinstance(key, SubjectKey)}
        if len(whole) < len(found):
            raise away()
        return whole

    def sealed_after(self, erasures: int) -> bool:
        """Whether what was sealed last is under keys that were alive after so many erasures."""
        return self._known[0] == erasures

    def _forget(self, erasures: int) -> None:
        """Drop the cache when anything was erased since, here or elsewhere."""
        known = (erasures, self._serving.generation)
        if known != self._known:
            self._cache.clear()
            self._known = known

    async def _keys(self, wanted: set[tuple[UUID, str]]) -> dict[tuple[UUID, str], SubjectKey | BrokenKey]:
        found: dict[tuple[UUID, str], SubjectKey | BrokenKey] = {}
        for each in wanted:
            if (key := self._cache.get(each)) is not None:
                self._cache.move_to_end(each)
                found[each] = key
        if missing := wanted - found.keys():
            try:
                found |= await self._looked_up(list(missing))
            except Exception as error:
                raise problem_of(error) or error from error
        return found

    async def _looked_up(self, wanted: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], SubjectKey | BrokenKey]:
        subjects = {(organization, self._actors(organization, subject)): subject for organization, subject in wanted}
        async with self._database.unscoped() as connection:
            rows = await store.find_alive(connection, subjects)
            if missing := [subject for subject in subjects if subject not in rows]:
                await store.insert_keys(connection, await self._made(missing), self._clock.wall_now())
                rows |= await store.find_alive(connection, missing)
        found = dict(zip(rows, await self._unwrapped(list(rows.values())), strict=True))
        opened = {(subject[0], subjects[subject]): key for subject, key in found.items()}
        self._remember({subject: key for subject, key in opened.items() if isinstance(key, SubjectKey)})
        return opened

    async def _unwrapped(self, rows: Sequence[store.KeyRow]) -> list[SubjectKey | BrokenKey]:
        """Each key. Where not all of them open it is looked which, so that a changed row spoils nobody else's."""
        try:
            materials = await self._kek.unwrap([row.wrapped for row in rows], [row.context for row in rows])
        except (KeyBroken, KekMissing):
            if len(rows) == 1:
                return [BrokenKey(rows[0].organization_id, rows[0].key_id)]
            middle = len(rows) // 2
            return [*await self._unwrapped(rows[:middle]), *await self._unwrapped(rows[middle:])]
        return [
            SubjectKey(row.organization_id, row.key_id, material) for row, material in zip(rows, materials, strict=True)
        ]

    async def _made(self, subjects: Sequence[store.Subject]) -> list[store.KeyRow]:
        rows = [store.KeyRow(organization, subject, uuid7(), b"") for organization, subject in subjects]
        wrapped = await self._kek.wrap([new_key() for _ in rows], [row.context for row in rows])
        return [
            store.KeyRow(row.organization_id, row.subject_hash, row.key_id, each)
            for row, each in zip(rows, wrapped, strict=True)
        ]

    def _remember(self, opened: dict[tuple[UUID, str], SubjectKey]) -> None:
        self._cache |= opened
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)


def _sealed(key: SubjectKey | BrokenKey, submission: Submission) -> Sealed | BrokenKey:
    return key if isinstance(key, BrokenKey) else seal(key, submission.event_id, submission.payload.raw)
