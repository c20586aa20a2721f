"""The self-check: re-hashes the log from its rows, and names the first index that isn't what it should be.

It reads organization by organization under row-level security, in chunks within a bound on rows a second, over one
connection; then the trees from left to right. It changes nothing but its own progress, and repairs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.database import Database
from services.audit.beside import Beside
from services.audit.model.actors import ActorHash
from services.audit.model.check_result import CheckResult
from services.audit.model.digests import Digest
from services.audit.model.entry_check import ChainCheck, Content, EntryRow, Link, PayloadRow, judge
from services.audit.model.extents import extents_of
from services.audit.model.faults import Fault
from services.audit.model.merkle import Frontier, leaf_hash, peaks, root_of
from services.audit.model.note_check import Held, cosignature_faults, read_stored_note
from services.audit.model.progress import Extent, Phase, Progress, Scope
from services.audit.model.shards import place_of, split
from services.audit.model.signed_check import behind, outside, signed_last
from services.audit.model.tree_check import TreeCheck, beyond, windows
from services.audit.pace import Pace
from services.audit.store import checking as store
from services.audit.store.tree import read_nodes

# What the signer holds: the log's keys, and what it signed last of a shard; raises Problem where it can't be asked.
HeldOutside = Callable[[int], Awaitable[Held]]
# Payloads in the clear, in the same order; sealed ones are opened by their events' ids. Raises Problem while keys
# can't be used.
OpenPayloads = Callable[[UUID, Sequence[tuple[PayloadRow, UUID]]], Awaitable[Sequence[Content]]]
Report = Callable[[Fault], None]

_ORGANIZATIONS = 500
_KEEP_EVERY_ROWS = 20_000
# What an organization costs beside its entries, and one that is merely looked at: round trips, as rows.
_ORGANIZATION_ROWS, _UNMOVED_ROWS = 20, 10


@dataclass(frozen=True)
class Checker:
    """What a check needs. `recent_seconds` says how old the checkpoint is after which the recent part begins."""

    database: Database
    clock: Clock
    name: str
    actor_hash: ActorHash
    digest: Digest
    open_payloads: OpenPayloads
    held: HeldOutside
    pace: Pace
    chunk: int = 500
    recent_seconds: float = 7200.0

    async def check(self, scope: Scope, *, keep: bool = True, report: Report | None = None) -> CheckResult:
        """Check the log. With `keep`, go on where an interrupted check stopped, and keep the result.

        `report` is told each time that the first bad place changes. Raises Problem, or what the database raises.
        """
        progress = await self._resumed(scope) if keep else None
        progress = progress or await self._begun(scope)
        # The shard after the last, too: the signer may know of one that the database lost.
        numbers = [each.shard for each in progress.extents]
        held = {shard: await self.held(shard) for shard in (*numbers, numbers[-1] + 1)}
        run = _Run(self, progress, held, keep, report)
        await run.entries()
        await run.trees()
        result = CheckResult.of(run.progress, self.clock.wall_now())
        if keep:
            async with self.database.unscoped() as connection:
                await store.keep_result(connection, scope, result.dump(), self.clock.now())
        return result

    async def last_result(self, scope: Scope) -> CheckResult | None:
        """How the last check that was kept ended."""
        async with self.database.unscoped() as connection:
            row = await store.find_state(connection, scope)
        return CheckResult.load(row.result) if row is not None and row.result else None

    async def last_finished(self, scope: Scope) -> datetime | None:
        """When that was, by the injected clock."""
        async with self.database.unscoped() as connection:
            row = await store.find_state(connection, scope)
        return row.finished_at if row is not None else None

    async def _resumed(self, scope: Scope) -> Progress | None:
        async with self.database.unscoped() as connection:
            row = await store.find_state(connection, scope)
        return Progress.load(row.progress) if row is not None and row.progress else None

    async def _begun(self, scope: Scope) -> Progress:
        now = self.clock.wall_now()
        before = await self.last_result(scope)
        async with self.database.unscoped() as connection:
            shards = await store.read_shards(connection)
            start = 0
            if scope is Scope.RECENT:
                start = await store.find_size_signed_before(connection, now - timedelta(seconds=self.recent_seconds))
            largest = {each.shard: await store.find_largest_size(connection, each.shard) for each in shards}
        extents, faults = extents_of(self.name, shards, largest, start)
        epoch = shards[0].epoch if shards else 0
        attached = max((place_of(each.shard + 1, 0) for each in shards if each.detached), default=0)
        progress = Progress(scope, now, extents, epoch, attached)
        progress.faults.add(faults)
        if shards and epoch < max(before.epoch if before else 1, 1):
            progress.faults.add(
                [Fault(progress.end, "head.epoch", "it is lower than it was: an old sequencer is unfenced")]
            )
        return progress


class _Run:
    """One check under way."""

    def __init__(
        self, checker: Checker, progress: Progress, held: Mapping[int, Held], keep: bool, report: Report | None
    ) -> None:
        self._checker, self.progress, self._held, self._keep, self._report = checker, progress, held, keep, report
        self._beside = Beside(checker.database, checker.open_payloads, progress.attached_from)
        self._unkept = 0
        self._told: Fault | None = None
        self._add(())

    async def entries(self) -> None:
        """Every organization's entries, and whether together they are the whole log."""
        while self.progress.phase is Phase.ENTRIES:
            async with self._checker.database.unscoped() as connection:
                found = await store.list_organizations(connection, self.progress.organization, _ORGANIZATIONS)
            for organization_id in found:
                await self._organization(organization_id)
            if not found:
                if self.progress.covered != self.progress.expected:
                    self._add(await self._uncovered())
                self.progress.phase = Phase.TREES
                await self._spend(1, force=True)

    async def _organization(self, organization_id: UUID) -> None:
        progress = self.progress
        walk = await self._walk(organization_id)
        if walk is None:  # It didn't move since the part that is checked begins: the full check looks at the rest.
            progress.organizations += 1
            progress.organization, progress.current = organization_id, None
            await self._spend(_UNMOVED_ROWS)
            return
        after = walk.last.place if progress.current == organization_id else progress.start - 1
        more = True
        while more and not walk.complete():
            rows, payloads, after, more = await self._entry_chunk(organization_id, walk, after)
            contents = await self._contents(organization_id, rows, payloads)
            self._add(await asyncio.to_thread(judge, walk, rows, payloads, contents))
            progress.correct(walk.leaf_hashes)
            progress.leaves += len(rows)
            progress.covered += sum(progress.start <= row.place < progress.end for row in rows)
            progress.current = organization_id
            progress.link = Link(walk.last.seq, walk.last.leaf_hash, after)
            await self._spend(len(rows) * 3 + len(payloads))
        self._add(walk.close())
        self._add(await self._producers(organization_id, walk))
        if progress.scope is Scope.FULL:
            last = walk.last.place if walk.last.place >= 0 else progress.end
            self._add(await self._beside.organization(organization_id, last))
        progress.erased += walk.erased
        progress.organizations += 1
        progress.organization, progress.current = organization_id, None
        await self._spend(_ORGANIZATION_ROWS)

    async def _contents(
        self, organization_id: UUID, rows: Sequence[EntryRow], payloads: Sequence[PayloadRow]
    ) -> dict[int, Content]:
        ids = {row.place: row.event_id for row in rows}
        wanted = [(payload, ids[payload.place]) for payload in payloads if payload.place in ids]
        contents = await self._checker.open_payloads(organization_id, wanted)
        return {payload.place: content for (payload, _), content in zip(wanted, contents, strict=True)}

    async def _walk(self, organization_id: UUID) -> ChainCheck | None:
        """Where the walk over an organization's entries begins; None where nothing of it is recent."""
        progress, link = self.progress, Link()
        async with self._checker.database.scoped(organization_id, read_only=True) as connection:
            chain = await store.read_chain(connection, organization_id)
            if progress.current == organization_id:
                link = progress.link
            elif progress.start:
                before = await store.read_entry_before(connection, progress.start)
                link = Link(before[0], leaf_hash(before[1]), before[2]) if before else link
                if (
                    before
                    and chain == (link.seq, link.leaf_hash)
                    and not await store.has_any_from(connection, progress.start)
                ):
                    return None
        walk = ChainCheck(link, self._checker.actor_hash, self._checker.digest, chain, progress.end)
        if progress.attached_from and link == Link():
            walk.adopt()
        return walk

    async def _entry_chunk(
        self, organization_id: UUID, walk: ChainCheck, after: int
    ) -> tuple[list[EntryRow], list[PayloadRow], int, bool]:
        chunk = self._checker.chunk
        async with self._checker.database.scoped(organization_id, read_only=True) as connection:
            rows = await store.read_entries(connection, after, chunk)
            last = rows[-1].place if rows else after
            more = len(rows) == chunk
            # Nothing comes later before the end: a payload there has no entry.
            through = last if more else max(last, self.progress.end - 1)
            payloads = await store.read_payloads(connection, after, through, 2 * chunk)
        return rows, payloads, last, more

    async def _producers(self, organization_id: UUID, walk: ChainCheck) -> list[Fault]:
        async with self._checker.database.scoped(organization_id, read_only=True) as connection:
            found = await store.read_producers(connection, organization_id)
        # What is missing lies before the end, and is named by its own index.
        end = self.progress.end
        place = walk.last.place if walk.last.place >= 0 else end
        faults = [
            Fault(
                end if counter > highest else place,
                "producers.counter",
                f"{producer} has {counter}, its entries {highest}",
            )
            if highest is not None
            else Fault(place, "producers.producer", f"no entry is of {producer}")
            for producer, counter, highest in found
            if counter != highest and (highest is not None or not self.progress.attached_from)
        ]
        missing = sorted(set(walk.counters) - {producer for producer, _, _ in found})
        return faults + [Fault(place, "producers", f"the row of {producer} is missing") for producer in missing]

    async def _uncovered(self) -> list[Fault]:
        """Where no organization has an entry: found with a bit for each leaf, only when the numbers don't agree."""
        missing = {each.shard: bytearray(each.size - each.first) for each in self.progress.attached}
        firsts = {each.shard: place_of(each.shard, each.first) for each in self.progress.attached}
        last: UUID | None = None
        while True:
            async with self._checker.database.unscoped() as connection:
                found = await store.list_organizations(connection, last, _ORGANIZATIONS)
            if not found:
                break
            for organization_id in found:
                async for places in self._places(organization_id):
                    for shard, index in ((split(place)[0], place) for place in places):
                        if 0 <= index - firsts.get(shard, index + 1) < len(missing.get(shard, b"")):
                            missing[shard][index - firsts[shard]] = 1
            last = found[-1]
        bare = [firsts[shard] + seen.index(0) for shard, seen in missing.items() if 0 in seen]
        return [Fault(place, "entries", "no organization has an entry here") for place in bare]

    async def _places(self, organization_id: UUID) -> AsyncIterator[list[int]]:
        after = self.progress.start - 1
        while True:
            async with self._checker.database.scoped(organization_id, read_only=True) as connection:
                places = await store.read_places(connection, after, self.progress.end, 20 * self._checker.chunk)
            if not places:
                return
            yield places
            after = places[-1]
            await self._spend(len(places))

    async def trees(self) -> None:
        """Every shard's nodes, and every checkpoint; then what stands beyond the log."""
        if self.progress.phase is not Phase.TREES:
            return
        for extent in self.progress.extents:
            if extent.shard >= self.progress.shard:
                await self._tree(extent)
                self.progress.shard, self.progress.size, self.progress.sound = extent.shard + 1, 0, 0
        async with self._checker.database.unscoped() as connection:
            self._add(beyond(await store.read_beyond(connection)))
            elsewhere = await store.read_checkpoints_outside(connection)
            shards = await store.read_shards(connection)
        self._add(behind(self._held, shards))
        found = (outside(self._held, self.progress.extents, head, row) for head, row in elsewhere)
        self._add(fault for fault in found if fault is not None)
        if self.progress.scope is Scope.FULL:
            self._add(await self._beside.archive(self._root_at))
        self.progress.phase = Phase.DONE

    async def _tree(self, extent: Extent) -> None:
        progress, chunk = self.progress, self._checker.chunk * 2
        low = max(progress.size, extent.first)
        async with self._checker.database.unscoped() as connection:
            stored = await read_nodes(connection, extent.shard, peaks(low))
        if missing := [node for node in peaks(low) if node not in stored]:
            place = place_of(extent.shard, missing[0][1] << missing[0][0])
            self._add(
                [Fault(place, "nodes", f"the node of height {missing[0][0]} over the leaves from here is missing")]
            )
            return
        tree = TreeCheck(
            place_of(extent.shard, 0),
            extent.origin,
            Frontier.at(low, stored),
            lambda note: read_stored_note(note, self._held[extent.shard].keys, extent.shard),
            max(progress.sound, extent.first),
        )
        closed = extent is not progress.extents[-1]
        common = await self._beside.common(extent) if closed and low < extent.size else extent.size
        while low < extent.size:
            high = min(low + chunk, extent.size)
            async with self._checker.database.unscoped() as connection:
                nodes = await store.read_windows(connection, extent.shard, windows(low, high))
                checkpoints = await store.read_checkpoints(connection, extent.shard, low, high)
                first, end = place_of(extent.shard, low), place_of(extent.shard, high)
                known = await store.read_known_places(connection, first, end)
                cosigned = await store.read_cosignatures(connection, extent.shard, low, high)
            self._add(
                cosignature_faults(place_of(extent.shard, 0), {row.size: row.note for row in checkpoints}, cosigned)
            )
            held = self._held[extent.shard]
            # What a recovery gave up, as the root signed, isn't what was signed before.
            checkpoints = [row for row in checkpoints if row.size <= common]
            checkpoints += signed_last(held, extent, low, min(high, common), checkpoints, progress.started_at)
            unknown = sorted(set(range(first, end)) - known)[:10]
            self._add(Fault(place, "dedup", "its event isn't among those known") for place in unknown)
            self._add(await asyncio.to_thread(tree.check, high, nodes, progress.leaf_hashes, checkpoints))
            low = progress.size = high
            progress.sound = tree.sound
            progress.checkpoints += len(checkpoints)
            await self._spend(len(nodes) + len(known) + len(checkpoints) + len(cosigned))
        if progress.scope is Scope.FULL and closed:
            self._add(await self._beside.opening(extent, tree.frontier.root(), tree.sound))

    async def _root_at(self, shard: int, size: int) -> bytes:
        """The root over the nodes that are stored; empty where some are missing."""
        async with self._checker.database.unscoped() as connection:
            hashes = await read_nodes(connection, shard, peaks(size))
        return root_of([hashes[node] for node in peaks(size)]) if len(hashes) == len(peaks(size)) else b""

    def _add(self, faults: Iterable[Fault]) -> None:
        self.progress.faults.add(faults)
        first = self.progress.faults.first
        if first is not None and first != self._told:
            self._told = first
            if self._report is not None:
                self._report(first)

    async def _spend(self, rows: int, *, force: bool = False) -> None:
        self.progress.rows += rows
        self._unkept += rows
        if self._keep and (force or self._unkept >= _KEEP_EVERY_ROWS):
            self._unkept = 0
            async with self._checker.database.unscoped() as connection:
                await store.keep_state(connection, self.progress.scope, self.progress.dump())
        await self._checker.pace.spend(rows)
