"""Has witnesses cosign the newest signed checkpoint of each shard, each at its own pace, and keeps what they said.

A witness that is slow or away holds up neither the signer nor the others; when it is back, the newest checkpoint is
what it gets. One that has seen another tree is the alarm WITNESS_DISAGREES. It must not decide what a receipt needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from services._mesh.clock import monotonic
from services._mesh.database import Database
from services._mesh.errors import Problem
from services._mesh.metrics import Metrics
from services._mesh.uow import PLATFORM
from services.audit import store
from services.audit.checkpointer import Checkpointer
from services.audit.model.alarms import Alarm, AlarmKind, Note, only_log
from services.audit.model.cosigning import find_cosignature
from services.audit.model.events import Checkpoint
from services.audit.model.manifest import find_policy
from services.audit.model.merkle import consistency_ranges, hash_ranges, peaks, root_of
from services.audit.model.notes import NoteInvalid
from services.audit.model.shards import place_of
from services.audit.model.witnessing import CONFLICT, Submission
from services.audit.witness_client import Known, NotContinued, WitnessClient, WitnessFailed

log = logging.getLogger(__name__)

_AGAIN_SECONDS, _AT_MOST_SECONDS = 0.5, 15.0
_MEASURE_SECONDS = 1.0
# So often in a row a witness may know another size than the time before: others may bring it checkpoints, too.
_TRIES = 4
Manifest = Callable[[], Awaitable[str]]


class Cosigners:
    """The witnesses of the log, as the audit process asks them."""

    def __init__(
        self,
        database: Database,
        checkpointer: Checkpointer,
        clients: Sequence[WitnessClient],
        metrics: Metrics,
        manifest: Manifest,
        note: Note = only_log,
    ) -> None:
        self._database, self._checkpointer, self._manifest, self.note = database, checkpointer, manifest, note
        self._followers = [_Follower(client, self, metrics) for client in clients]
        self._cosigned = asyncio.Condition()
        self._ages = _Ages(metrics)

    async def run(self) -> None:
        """Follow the log until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for follower in self._followers:
                tasks.create_task(follower.run())
            tasks.create_task(self._measure())

    async def wait(self) -> None:
        """Wait for the next cosignature, whosever."""
        async with self._cosigned:
            await self._cosigned.wait()

    async def close(self) -> None:
        """Close the connections."""
        for follower in self._followers:
            await follower.client.close()

    async def find_next(self, client: WitnessClient, first: int) -> tuple[Checkpoint | None, int]:
        """The newest checkpoint of the oldest shard from `first` on that a witness hasn't cosigned, and that shard.

        Without one it is the shard that is appended to: those before have been cosigned at their end.
        """
        async with self._database.unscoped() as connection:
            shard, size = await store.read_head(connection)
            last = shard if size else max(first, shard - 1)
            for each in range(first, last + 1):
                found = await store.find_checkpoint(connection, each)
                if found and not await store.has_cosignature(connection, found, client.key.text()):
                    return found, each
        return None, last

    async def proof(self, checkpoint: Checkpoint, known: int) -> list[bytes]:
        """The proof that a checkpoint continues a smaller one of its shard."""
        if not 0 < known < checkpoint.size:
            return []
        ranges = consistency_ranges(known, checkpoint.size)
        async with self._database.unscoped() as connection:
            return hash_ranges(ranges, await store.read_ranges(connection, checkpoint.shard, ranges))

    async def reach(self, shard: int) -> tuple[int, int]:
        """How large a shard of the log is, and the size of its newest checkpoint."""
        async with self._database.unscoped() as connection:
            newest = await store.find_checkpoint(connection, shard)
            current, size = await store.read_head(connection)
            if shard != current:
                size = await store.read_closed_size(connection, shard)
        return size, newest.size if newest else 0

    async def was_given_up(self, shard: int) -> bool:
        """Whether a recovery, which the offline root authorised, stated that the end of a shard is lost."""
        async with self._database.unscoped() as connection:
            return await store.was_given_up(connection, shard)

    async def root(self, shard: int, size: int) -> str:
        """The root that a shard of the log had at a size, in hexadecimal; empty where it has no such size."""
        async with self._database.unscoped() as connection:
            hashes = await store.read_nodes(connection, shard, peaks(size))
        whole = size > 0 and len(hashes) == len(peaks(size))
        return root_of([hashes[node] for node in peaks(size)]).hex() if whole else ""

    async def keep(self, client: WitnessClient, checkpoint: Checkpoint, lines: str) -> None:
        """Check and store what a witness answered. Raises NoteInvalid."""
        cosignature = find_cosignature(checkpoint.note, lines, client.key)
        async with self._database.unscoped() as connection:
            await store.insert_cosignature(connection, checkpoint, cosignature)
        self._ages.cosigned(client.key.text(), place_of(checkpoint.shard, checkpoint.size))
        async with self._cosigned:
            self._cosigned.notify_all()

    async def signed_after(self, place: int) -> None:
        """Wait for a checkpoint larger than the one at `place`."""
        await self._checkpointer.wait_for(place)

    async def _measure(self) -> None:
        witnesses, quorum = list[str](), 0
        while True:
            with contextlib.suppress(Problem):  # While the signer is away, what it said last holds.
                keys, quorum = find_policy(await self._manifest())
                witnesses = [key.text() for key in keys]
            self._ages.tell(self._checkpointer.signed_place, witnesses, quorum)
            await asyncio.sleep(_MEASURE_SECONDS)


class _Follower:
    """One witness, and how far it is known to be."""

    def __init__(self, client: WitnessClient, cosigners: Cosigners, metrics: Metrics) -> None:
        self.client, self._cosigners = client, cosigners
        name = client.key.name
        self._failures = metrics.counter("recoup_log_witness_failures", "Checkpoints not cosigned.", witness=name)
        text = "1 while the witness has seen another tree of this log than ours."
        self._disagrees = metrics.gauge("recoup_log_witness_disagrees", text, witness=name)
        self._known: dict[int, int] = {}
        self._shard, self._place = 0, 0

    async def run(self) -> None:
        """Bring it the newest checkpoints until cancelled."""
        pause = _AGAIN_SECONDS
        while True:
            try:
                await self._once()
                pause = _AGAIN_SECONDS
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._failures.add()
                why = error if isinstance(error, (WitnessFailed, NoteInvalid)) else type(error).__name__
                log.warning("the witness %s hasn't cosigned: %s", self.client.key.name, why)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _AT_MOST_SECONDS)

    async def _once(self) -> None:
        checkpoint, self._shard = await self._cosigners.find_next(self.client, self._shard)
        if checkpoint is None:
            await self._cosigners.signed_after(self._place)
            return
        self._place = place_of(checkpoint.shard, checkpoint.size)
        lines = await self._cosign(checkpoint)
        if lines is None:
            return
        await self._cosigners.keep(self.client, checkpoint, lines)
        self._known[checkpoint.shard] = checkpoint.size
        self._disagrees.set(0)

    async def _cosign(self, checkpoint: Checkpoint) -> str | None:
        """What it answers to a checkpoint; None where it knows a newer one, and the next that we have is to be brought.

        Raises WitnessFailed.
        """
        shard = checkpoint.shard
        for _ in range(_TRIES):
            known = min(self._known.get(shard, 0), checkpoint.size)
            proof = await self._cosigners.proof(checkpoint, known)
            answer = await self.client.submit(Submission(known, proof, checkpoint.note))
            if isinstance(answer, str):
                return answer
            if isinstance(answer, NotContinued):
                if known == 0 or (answer.status == CONFLICT and known < checkpoint.size):
                    raise WitnessFailed(answer.why)  # C2SP has no such answer: it says nothing about trees.
                raise await self._disagreed(checkpoint, known, answer.why)
            if answer.size == known == checkpoint.size:
                raise await self._disagreed(checkpoint, known, "it cosigned another tree of this size")
            if answer.size < known:
                log.warning("the witness %s went back from size %d to %d", self.client.key.name, known, answer.size)
            self._known[shard] = answer.size
            if answer.size > checkpoint.size and await self._is_ahead(checkpoint, answer):
                return None
        raise WitnessFailed("it knows another size each time")

    async def _is_ahead(self, checkpoint: Checkpoint, answer: Known) -> bool:
        """Whether there is a checkpoint that may continue what it knows, or a next shard. Raises WitnessFailed."""
        # Its size was told before ours is read: nothing is signed, let alone cosigned, that isn't durable here.
        size, newest = await self._cosigners.reach(checkpoint.shard)
        if newest < answer.size and await self._cosigners.was_given_up(checkpoint.shard):
            name, shard = self.client.key.name, checkpoint.shard
            log.warning("the witness %s knows more of shard %d than was recovered: on to the next", name, shard)
            self._shard = shard + 1
            return True
        if size < answer.size:
            raise await self._disagreed(checkpoint, answer.size, f"it cosigned more leaves than the log has ({size})")
        if newest < answer.size:
            raise WitnessFailed(f"it cosigned size {answer.size}, and the newest checkpoint has {newest}")
        return True

    async def _disagreed(self, checkpoint: Checkpoint, known: int, why: str) -> WitnessFailed:
        """Raise the alarm: what it cosigned last isn't continued by this log."""
        shard, key = checkpoint.shard, self.client.key
        self._disagrees.set(1)
        metadata = {
            "witness": key.name,
            "shard": str(shard),
            "size": str(checkpoint.size),
            "witness_size": str(known),
            "root_at_witness_size": await self._cosigners.root(shard, known),
            "answer": why,
        }
        once = f"{key.text()} {shard} {known}"
        self._cosigners.note(Alarm(AlarmKind.WITNESS_DISAGREES, PLATFORM, metadata, once))
        return WitnessFailed(f"it has seen another tree: shard {shard}, size {known}: {why}")


class _Ages:
    """Since when the newest checkpoints, signed and cosigned, are the newest."""

    def __init__(self, metrics: Metrics) -> None:
        self._signed = metrics.gauge("recoup_log_checkpoint_age_seconds", "Since the log's newest head was signed.")
        text = "For how long the newest signed head hasn't had as many cosignatures as receipts need."
        self._cosigned = metrics.gauge("recoup_log_cosigned_age_seconds", text)
        self._place, self._enough = 0, 0
        self._cosigned_places = dict[str, int]()
        self._signed_at = self._waiting_since = monotonic()

    def cosigned(self, witness: str, place: int) -> None:
        """A witness cosigned a checkpoint."""
        self._cosigned_places[witness] = max(place, self._cosigned_places.get(witness, 0))

    def tell(self, place: int, witnesses: Sequence[str], quorum: int) -> None:
        """Set the gauges, given the place of the newest checkpoint, and the witnesses that count."""
        now = monotonic()
        if place > self._place:
            self._place, self._signed_at = place, now
        places = sorted((self._cosigned_places.get(each, 0) for each in witnesses), reverse=True)
        enough = places[quorum - 1] if 0 < quorum <= len(places) else place
        # A log that grows all the time is always a little ahead of its witnesses: what counts is that they follow.
        if enough >= place or enough > self._enough:
            self._enough, self._waiting_since = max(enough, self._enough), now
        self._signed.set(now - self._signed_at)
        self._cosigned.set(now - self._waiting_since)
