"""The sequencer: the one writer of the log. Handlers queue; it flushes, and answers when a flush is durable.

There is one in force at a time: each takes a higher epoch at its start, and a flush under a lower one writes nothing.
It must not decide what may be appended; that is done before an event is queued.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.database import Database, problem_of, sqlstate_of
from services._mesh.errors import AlreadyExists, Conflict, Exhausted, Problem, Reason, WrongState, dependency_down
from services._mesh.failpoints import reach
from services.audit import store
from services.audit.model.actors import ActorHash
from services.audit.model.alarms import Alarm, AlarmKind, Note, broken_key, only_log
from services.audit.model.batch import Batch, Gap, Submission, organizations_of, split_known
from services.audit.model.leaf import parse_payload
from services.audit.model.merkle import Frontier
from services.audit.model.openings import PRODUCER, YEARLY
from services.audit.model.sealing import BrokenKey, Sealed
from services.audit.model.shards import origin_of, place_of
from services.audit.sealer import Sealer
from services.audit.standing import Standing
from services.audit.turning import Turning

log = logging.getLogger(__name__)

FLUSH_EVENTS = 2000
FLUSH_SECONDS = 0.005
# Of a flush, but for the append that goes beyond it, of at most the process's message_bytes.
FLUSH_BYTES = 8 * 1024 * 1024
MAX_QUEUED_EVENTS = 20_000
MAX_QUEUED_BYTES = 64 * 1024 * 1024
# What an event takes in memory besides its payload.
EVENT_BYTES = 2048
_AGAIN_SECONDS = 0.5
# Writes alarms within a transaction; returns what is to be called once it is committed.
WriteAlarms = Callable[[store.Connection, Sequence[Alarm], datetime], Awaitable[Callable[[], None]]]
# Which (producer, counter) of an organization fill no gap of the log.
UsedCounters = Callable[[UUID, Sequence[tuple[str, int]]], Awaitable[set[tuple[str, int]]]]
# A standby that isn't promoted yet.
_READ_ONLY = "25006"


@dataclass
class _Waiting:
    submissions: Sequence[Submission]
    answer: asyncio.Future[list[int]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return sum(EVENT_BYTES + len(submission.payload.raw) for submission in self.submissions)


# An append that is refused whole, and the events in it that the log has with another content.
_Conflict = tuple[_Waiting, Sequence[UUID]]
# An append that is refused whole, and a key that one of its payloads would be under.
_Unsealed = tuple[_Waiting, BrokenKey]


class Sequencer:
    """Appends to the log. `size` is what is durable; `grown` is set after each flush that added something."""

    def __init__(
        self, database: Database, clock: Clock, name: str, actors: ActorHash, sealer: Sealer, note: Note = only_log
    ) -> None:
        self._database, self._clock, self._name, self._actors, self._note = database, clock, name, actors, note
        self._sealer, self.digest = sealer, sealer.digest
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._queued, self._queued_bytes = 0, 0
        self._epoch: int | None = None
        self._taken_over = False
        self._shard, self._frontier = 0, Frontier()
        self._opened = store.OpenShard("FIRST", clock.now())
        # The last shard that has partitions, as far as is known, and the one of which it was said that it can't end.
        self._partition, self._cramped = -1, -1
        # Set by whoever composes the process; without it the log stays in its shard.
        self.turning: Turning | None = None
        # Whether the signer goes on with the log, likewise; without it nobody is asked.
        self.standing: Standing | None = None
        # Writes alarms within a flush, likewise; without it they are noted once the flush is durable.
        self.write_alarms: WriteAlarms | None = None
        # Tells a counter that comes late from one that comes again, likewise; without it neither is looked at.
        self.used_counters: UsedCounters | None = None
        self.grown = asyncio.Event()

    @property
    def head(self) -> tuple[int, bytes]:
        """The size and root of the durable tree of the newest shard, as far as this sequencer knows."""
        return self._frontier.size, self._frontier.root()

    @property
    def ready(self) -> bool:
        """Whether this sequencer has taken over since it began."""
        return self._taken_over

    async def take_over(self) -> None:
        """Become the sequencer in force."""
        if self.standing is not None:
            self.standing.doubt()
        async with self._database.unscoped() as connection:
            await store.open_first_shard(connection, origin_of(self._name, 0), self._clock.now())
            head = await store.take_over(connection)
            self._opened = await store.read_shard(connection, head.shard)
        self._epoch, self._shard, self._frontier, self._taken_over = head.epoch, head.shard, head.frontier, True
        self.grown.set()

    async def append(self, submissions: Sequence[Submission]) -> list[int]:
        """Append events, all or none; returns their places once they are durable.

        Raises Unavailable before the first take-over, Exhausted when too much is queued, AlreadyExists
        (EVENT_CONFLICT), Conflict (SEQUENCER_FENCED), WrongState (KEY_BROKEN), Unavailable (LOG_INCONSISTENT) while the
        signer refuses the log.
        """
        if not self._taken_over:
            raise dependency_down("log's database")
        waiting = _Waiting(submissions)
        if self._queued + len(submissions) > MAX_QUEUED_EVENTS:
            raise _full("events", MAX_QUEUED_EVENTS)
        if self._queued_bytes + waiting.bytes > MAX_QUEUED_BYTES:
            raise _full("bytes", MAX_QUEUED_BYTES)
        self._queued, self._queued_bytes = self._queued + len(submissions), self._queued_bytes + waiting.bytes
        self._queue.put_nowait(waiting)
        return await waiting.answer

    async def run(self) -> None:
        """Take over, then flush until cancelled. A failed flush is answered to those in it, and tried by them again."""
        await self._begin()
        while True:
            group = await self._collect()
            try:
                await self._flush(group)
            except asyncio.CancelledError:
                self._refuse(group, dependency_down("sequencer"))
                raise
            except Problem as problem:
                self._refuse(group, problem)
            except Exception as error:
                log.warning("a flush failed: %s", type(error).__name__, exc_info=error)
                self._epoch = None  # Whether it was committed isn't known: read the head again before the next.
                self._refuse(group, dependency_down("log's database"))
            finally:  # It takes its memory until then.
                self._queued -= sum(len(waiting.submissions) for waiting in group)
                self._queued_bytes -= sum(waiting.bytes for waiting in group)

    async def _begin(self) -> None:
        """Take over as soon as the database is there; an older sequencer is fenced then, not at the first append.

        Waits for a database that is away, and says so once for each cause; health says meanwhile that the take-over is
        missing. Raises what doesn't pass by itself (a missing right, table or password), which ends the process.
        """
        told = ""
        while not self._taken_over:
            try:
                await self.take_over()
            except Exception as error:
                if problem_of(error) is None and sqlstate_of(error) != _READ_ONLY:
                    raise
                cause = type(error.__cause__ or error).__name__
                if cause != told:
                    log.warning("taking over the log will be tried again: %s", cause)
                told = cause
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _collect(self) -> list[_Waiting]:
        """Wait for work, then for a moment more, so that one commit carries many."""
        group = [await self._queue.get()]
        count, size = len(group[0].submissions), group[0].bytes
        if count < FLUSH_EVENTS and size < FLUSH_BYTES:
            await asyncio.sleep(FLUSH_SECONDS)
        while count < FLUSH_EVENTS and size < FLUSH_BYTES and not self._queue.empty():
            waiting = self._queue.get_nowait()
            group.append(waiting)
            count, size = count + len(waiting.submissions), size + waiting.bytes
        return group

    async def _flush(self, group: Sequence[_Waiting]) -> None:
        if self._epoch is None:
            await self.take_over()
        if self.standing is not None:
            await self.standing.require()
        await self._turn()
        await self._append(group)

    async def _turn(self) -> None:
        """Close the shard at the year's turn, and open the next; a turn that was cut short is gone on with."""
        if self.turning is not None and self._is_over() and await self._has_room():
            await self._close()
        if self._shard and not self._frontier.size:
            if self.turning is None:
                raise RuntimeError("a shard is to be opened, and nobody is here to do it")
            event = await self.turning.opening(self._shard, self._opened.kind)
            payload = parse_payload(event.payload, event.event_id, event.organization_id, self.digest)
            submission = Submission(event.event_id, event.organization_id, PRODUCER, event.producer_counter, payload)
            waiting = _Waiting([submission])
            await self._append([waiting], opens=True)
            waiting.answer.result()  # Raises what it was refused with: nothing comes before the opening.

    def _is_over(self) -> bool:
        """Whether the shard's year is over. An empty one has no head that the next could commit to."""
        return bool(self._frontier.size) and self._clock.now().year > self._opened.opened_at.year

    async def _has_room(self) -> bool:
        """Whether the next shard has its partitions. Without, the log goes on in the one that it is in."""
        if self._partition <= self._shard:
            async with self._database.unscoped() as connection:
                self._partition = await store.read_last_partition(connection)
        if self._partition > self._shard:
            return True
        if self._cramped != self._shard:
            log.error(
                "shard %d stays open: there is no partition for the next one. Run deploy/add_shards.sql", self._shard
            )
        self._cramped = self._shard
        return False

    async def _close(self) -> None:
        """Close the shard under the locked head; what is appended from here on goes to the next."""
        opened = store.OpenShard(YEARLY, self._clock.now())
        async with self._database.unscoped() as connection:
            self._require_own(*await store.lock_head(connection))
            closes = self._shard, self._frontier.size
            await store.turn(connection, self._name, closes, self._shard + 1, opened)
        self._shard, self._frontier, self._opened = self._shard + 1, Frontier(), opened

    async def _append(self, group: Sequence[_Waiting], *, opens: bool = False) -> None:
        frontier = self._frontier.copy()
        everything = [submission for waiting in group for submission in waiting.submissions]
        sealed = await self._sealer.seal(everything)
        async with self._database.unscoped() as connection:
            held = await store.hold_head(connection, [s.event_id for s in everything], organizations_of(everything))
            self._require_own(held.epoch, held.place)
            known = held.known
            if not self._sealer.sealed_after(held.erasures):  # One of the keys may be among the erased.
                sealed = await self._sealer.seal(everything, held.erasures)
            # By the object: a group can hold two events with one id, of which one is refused.
            sealed_of = {id(submission): each for submission, each in zip(everything, sealed, strict=True)}
            writable, unsealed = _without_unsealed(group, known, sealed_of)
            sound, conflicts = self._without_conflicts(writable, known)
            fresh, _, _ = split_known([s for w in sound for s in w.submissions], known)
            places = {event_id: place for event_id, (_, place) in known.items()}
            batch = Batch(self._shard, frontier, held.chains, held.counters, self._clock.wall_now(), self._actors)
            for submission in fresh:
                places[submission.event_id] = place_of(
                    self._shard, batch.add(submission, _whole(sealed_of[id(submission)]), opens=opens)
                )
            alarms = [*_gaps(batch.gaps), *_conflicts(conflicts), *_broken(unsealed), *await self._reused(batch)]
            if fresh:
                await store.write_batch(connection, batch)
            raised = await self._alarmed(connection, alarms)
            reach("flush.written")
        reach("flush.committed")
        self._frontier = frontier
        raised()
        for waiting, event_ids in conflicts:  # Only now, that the alarm of it can't be lost any more.
            self._refuse([waiting], _conflict(event_ids))
        for waiting, key in unsealed:
            self._refuse([waiting], _key_broken(key))
        for waiting in sound:
            if not waiting.answer.done():
                waiting.answer.set_result([places[s.event_id] for s in waiting.submissions])
        if fresh:
            self.grown.set()

    def _require_own(self, epoch: int, place: int) -> None:
        """See that the locked head is where this sequencer left it. Raises Conflict where another took over."""
        if epoch != self._epoch:
            self._epoch = None
            raise _fenced(epoch)
        if place != place_of(self._shard, self._frontier.size):
            raise RuntimeError("the head isn't where this sequencer left it")

    async def _reused(self, batch: Batch) -> list[Alarm]:
        """Events under counters that are taken. They are appended: the log keeps what is claimed, and says so."""
        found = list(batch.reused)
        if self.used_counters is not None:
            for organization_id in {each.organization_id for each in batch.late}:
                late = [each for each in batch.late if each.organization_id == organization_id]
                used = await self.used_counters(organization_id, [(s.producer, s.producer_counter) for s in late])
                found += [each for each in late if (each.producer, each.producer_counter) in used]
        return [_reused(each) for each in found]

    async def _alarmed(self, connection: store.Connection, alarms: Sequence[Alarm]) -> Callable[[], None]:
        """Write alarms with the flush; returns what is to be called once it is durable."""
        if alarms and self.write_alarms is not None:
            return await self.write_alarms(connection, alarms, self._clock.now())

        def noted() -> None:
            for alarm in alarms:
                self._note(alarm)

        return noted

    def _without_conflicts(
        self, group: Sequence[_Waiting], known: Mapping[UUID, tuple[bytes, int]]
    ) -> tuple[list[_Waiting], list[_Conflict]]:
        """The appends, and apart those with an event that the log, or an append before it, has with another content."""
        seen, sound, found = dict(known), list[_Waiting](), list[_Conflict]()
        for waiting in group:
            fresh, _, conflicts = split_known(waiting.submissions, seen)
            if conflicts:
                found.append((waiting, conflicts))
                continue
            sound.append(waiting)
            seen |= {s.event_id: (s.payload.digest, -1) for s in fresh}
        return sound, found

    def _refuse(self, group: Sequence[_Waiting], problem: Problem) -> None:
        for waiting in group:
            if not waiting.answer.done():
                waiting.answer.set_exception(problem)


def _full(what: str, limit: int) -> Exhausted:
    return Exhausted(
        Reason.ERROR_REASON_QUOTA_EXCEEDED,
        f"Too many {what} wait to be appended. Try again in a moment.",
        {"limit": str(limit)},
    )


def _fenced(epoch: int) -> Conflict:
    return Conflict(
        Reason.ERROR_REASON_SEQUENCER_FENCED, "Another sequencer has taken over. Try again.", {"epoch": str(epoch)}
    )


def _conflict(event_ids: Sequence[UUID]) -> AlreadyExists:
    return AlreadyExists(
        Reason.ERROR_REASON_EVENT_CONFLICT,
        "An event with this id and another content is in the log.",
        {"event_id": str(event_ids[0])},
    )


def _conflicts(found: Sequence[_Conflict]) -> Iterator[Alarm]:
    for waiting, event_ids in found:
        for submission in waiting.submissions:
            if submission.event_id in event_ids:
                metadata = {"event_id": str(submission.event_id), "producer": submission.producer}
                yield Alarm(AlarmKind.EVENT_CONFLICT, submission.organization_id, metadata)


def _without_unsealed(
    group: Sequence[_Waiting], known: Mapping[UUID, object], sealed_of: Mapping[int, Sealed | BrokenKey]
) -> tuple[list[_Waiting], list[_Unsealed]]:
    """The appends, and apart those with an event that is new and couldn't be sealed."""
    sound, found = list[_Waiting](), list[_Unsealed]()
    for waiting in group:
        new = (sealed_of[id(each)] for each in waiting.submissions if each.event_id not in known)
        broken = next((each for each in new if isinstance(each, BrokenKey)), None)
        if broken is None:
            sound.append(waiting)
        else:
            found.append((waiting, broken))
    return sound, found


def _whole(sealed: Sealed | BrokenKey) -> Sealed:
    assert isinstance(sealed, Sealed)
    return sealed


def _key_broken(key: BrokenKey) -> WrongState:
    return WrongState(
        Reason.ERROR_REASON_STATE_WRONG,
        f"The key {key.key_id} of an event's subject doesn't open. An operator must put its row back.",
        {"state": "KEY_BROKEN", "allowed": "SEALED"},
    )


def _broken(found: Sequence[_Unsealed]) -> Iterator[Alarm]:
    for _, key in found:
        yield broken_key(key.organization_id, key.key_id)


def _reused(submission: Submission) -> Alarm:
    metadata = {
        "producer": submission.producer,
        "counter": str(submission.producer_counter),
        "event_id": str(submission.event_id),
    }
    return Alarm(AlarmKind.COUNTER_REUSED, submission.organization_id, metadata)


def _gaps(gaps: Sequence[Gap]) -> Iterator[Alarm]:
    for gap in gaps:
        metadata = {"producer": gap.producer, "after": str(gap.after), "before": str(gap.before)}
        yield Alarm(AlarmKind.COUNTER_GAP, gap.organization_id, metadata)
