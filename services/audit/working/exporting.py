"""Makes a bundle of evidence under its grant, and deletes it when its time is over. It may run again after any line.

An attempt begins anew with what an earlier one left removed, up to a head of its own; what counts is the file that is
put in its place at the end, and the last seal. Files are written in threads, a page at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from services._mesh.claimed import ClaimedJob
from services._mesh.errors import PASSING, Conflict, NotFound, Problem, Reason, Unavailable, WrongState
from services._mesh.jobs import Job
from services._mesh.threads import BoundedThreads
from services._mesh.uow import UnitOfWork
from services.audit.clients_evidence import Peers
from services.audit.evidence_files import EvidenceFolder
from services.audit.model.evidence.documents import Contents, Counts, encode
from services.audit.model.evidence.export import (
    EXPORT_EVIDENCE,
    MAX_RECEIPTS,
    OPEN_STATES,
    EvidenceState,
    Export,
)
from services.audit.model.evidence.gathered import Beginning, ReceiptLine, Seal, ShardHead
from services.audit.store import exports
from services.audit.working.writing import BundleBroken, BundleTooLarge, BundleWriter

log = logging.getLogger(__name__)
# Reading and hashing a bundle of millions of events takes minutes on a slow disk.
WRITE_SECONDS, PACK_SECONDS = 120.0, 1800.0
RANGES = 2000
# How often the seal's event is looked for, and how long at most.
_AGAIN_SECONDS, _MOST_LOOKS = 1.0, 300
# Progress is told at every tenth page: it is a transaction.
_TOLD = 10
_PASSING = (*PASSING, Conflict)


@dataclass(frozen=True)
class Tools:
    """What the worker works with."""

    peers: Peers
    folder: EvidenceFolder
    threads: BoundedThreads


async def export_evidence(tools: Tools, job: ClaimedJob) -> None:
    """Make the bundle of an export, or say why it can't be made."""
    export, now = await _start(job)
    if export.state not in OPEN_STATES:
        async with job.begin() as work:
            await job.finish(work)
        return
    try:
        size, sha256 = await _Making(tools, job, export, now).run()
    except BundleTooLarge as large:
        await _fail(job, export, str(large))
    except BundleBroken as broken:
        log.error("security: the log's answers for an export can't be true: %s", broken)
        await _fail(job, export, f"The log's own answers don't fit together: {broken}. Nothing was sealed.")
    except Problem as problem:
        if isinstance(problem, _PASSING):
            raise
        await _fail(job, export, problem.message)
    else:
        await _complete(job, export, size, sha256)
    await tools.threads.run(WRITE_SECONDS, tools.folder.discard, export.export_id)


async def _start(job: ClaimedJob) -> tuple[Export, datetime]:
    async with job.begin() as work:
        export = await exports.get_export(work.connection, job.subject_id, lock=True)
        if export.state in OPEN_STATES:
            await exports.mark_export(work.connection, export.export_id, state=EvidenceState.RUNNING.value)
            work.emit("audit.evidence.run", export.target, {"attempt": str(job.attempt)})
    return export, work.now


async def _complete(job: ClaimedJob, export: Export, size: int, sha256: str) -> None:
    async with job.begin() as work:
        await exports.mark_export(
            work.connection,
            export.export_id,
            state=EvidenceState.READY.value,
            finished_at=work.now,
            size_bytes=size,
            sha256=sha256,
        )
        work.emit("audit.evidence.complete", export.target, {"sha256": sha256, "size_bytes": str(size)})
        await job.finish(work)


async def _fail(job: ClaimedJob, export: Export, problem: str) -> None:
    async with job.begin() as work:
        await _mark_failed(work, export, problem)
        await job.finish(work)


async def _mark_failed(work: UnitOfWork, export: Export, problem: str) -> None:
    await exports.mark_export(
        work.connection,
        export.export_id,
        state=EvidenceState.FAILED.value,
        finished_at=work.now,
        problem=problem[:1000],
    )
    work.emit("audit.evidence.fail", export.target, {"problem": problem[:1000]}, "FAILED")


async def give_up(work: UnitOfWork, job: Job, error: str) -> None:
    """An export whose job died isn't waited for any more."""
    if job.kind != EXPORT_EVIDENCE:
        return
    export = await exports.get_export(work.connection, job.subject_id, lock=True)
    if export.state in OPEN_STATES:
        await _mark_failed(work, export, "It was given up after several failures. Start another export.")


async def expire_evidence(tools: Tools, job: ClaimedJob) -> None:
    """Delete a bundle whose time is over."""
    await tools.threads.run(WRITE_SECONDS, tools.folder.delete, job.organization_id, job.subject_id)
    async with job.begin() as work:
        export = await exports.get_export(work.connection, job.subject_id, lock=True)
        if export.state is EvidenceState.READY:
            await exports.mark_export(work.connection, export.export_id, state=EvidenceState.EXPIRED.value)
            work.emit("audit.evidence.expire", export.target)
        await job.finish(work)


class _Making:
    """One attempt at one bundle."""

    def __init__(self, tools: Tools, job: ClaimedJob, export: Export, now: datetime) -> None:
        self._tools, self._job, self._export, self._now = tools, job, export, now
        self._log, self._threads = tools.peers.log, tools.threads

    def _grant(self) -> str:
        return self._job.grant

    async def run(self) -> tuple[int, str]:
        """Make it, and put it in its place; its size and SHA-256. Raises BundleBroken, Problem."""
        beginning = await self._log.begin(self._grant, self._export)
        folder = await self._threads.run(WRITE_SECONDS, self._tools.folder.workspace, self._export.export_id)
        writer = await self._threads.run(WRITE_SECONDS, lambda: BundleWriter(folder / "files", self._export, beginning))
        try:
            return await self._written(writer, beginning, folder / "bundle.zip")
        finally:
            await self._threads.run(WRITE_SECONDS, writer.files.abandon)

    async def _written(self, writer: BundleWriter, beginning: Beginning, made: Path) -> tuple[int, str]:
        await self._events(writer, beginning)
        for head in beginning.shards:
            await self._proofs(writer, head)
        await self._threads.run(PACK_SECONDS, writer.write_shards)
        await self._threads.run(WRITE_SECONDS, writer.write_head)
        await self._receipts(writer, beginning)
        await self._lists(writer, beginning)
        contents = self._contents(writer, beginning)
        await self._threads.run(WRITE_SECONDS, writer.finish, contents, self._export.requested_by)
        await self._seal(writer, beginning)
        await self._tell("packing", 0, 0)
        size, sha256 = await self._threads.run(PACK_SECONDS, writer.files.pack, made)
        await self._threads.run(
            WRITE_SECONDS, self._tools.folder.publish, made, self._export.organization_id, self._export.export_id
        )
        return size, sha256

    async def _events(self, writer: BundleWriter, beginning: Beginning) -> None:
        pages = 0
        while writer.seq < beginning.chain_seq:
            leaves = await self._log.events(self._grant, self._export, writer.seq, beginning.chain_seq)
            await self._threads.run(WRITE_SECONDS, writer.add_events, leaves)
            if pages % _TOLD == 0:
                await self._tell("events", writer.seq, beginning.chain_seq)
            pages += 1

    async def _proofs(self, writer: BundleWriter, head: ShardHead) -> None:
        """Write the hashes between the organization's leaves, some thousand at a time."""
        wanted, done = writer.ranges(head.shard, head.size), 0
        tree = await self._threads.run(WRITE_SECONDS, writer.files.open, f"log/{head.shard}/tree.txt")
        while piece := await self._threads.run(WRITE_SECONDS, lambda: list(islice(wanted, RANGES))):
            hashes = await self._log.hashes(self._grant, self._export, head.shard, piece)
            lines = "".join(f"{encode(each)}\n" for each in hashes)
            await self._threads.run(WRITE_SECONDS, tree.write, lines.encode())
            if done % (RANGES * _TOLD) == 0:
                await self._tell("proofs", done, 0)
            done += len(piece)
        await self._threads.run(WRITE_SECONDS, tree.close)

    async def _receipts(self, writer: BundleWriter, beginning: Beginning) -> None:
        async for line in self._tools.peers.actions.receipts(self._grant, self._export):
            if not self._covers(line):
                continue
            if writer.receipt_count >= MAX_RECEIPTS:
                raise BundleTooLarge(
                    f"More than {MAX_RECEIPTS:,} receipts were issued in the period. Take a shorter one."
                )
            try:
                proofs, checkpoint, manifest = await self._log.prove(self._grant, self._export, line.event_ids)
            except (NotFound, WrongState, Unavailable) as problem:
                writer.note_receipt({**line.summary, "absent": _why_absent(problem)})
                continue
            # One that was issued since is of the next bundle: its events lie behind this one's chain.
            if max(int(orjson.loads(each.leaf)["org_seq"]) for each in proofs) > beginning.chain_seq:
                continue
            receipt_id = line.summary["receipt_id"]
            bundle = await self._tools.peers.actions.bundle(
                self._grant, self._export, receipt_id, proofs, checkpoint, manifest
            )
            await self._threads.run(WRITE_SECONDS, writer.add_receipt, receipt_id, bundle, line.summary)
            if writer.receipt_count % _TOLD == 1:
                await self._tell("receipts", writer.receipt_count, 0)

    def _covers(self, line: ReceiptLine) -> bool:
        said = line.summary
        about: dict[str, Any] = {"metadata": {"action_id": said["action_id"]}}
        targets = (f"receipts/{said['receipt_id']}", f"actions/{said['action_id']}")
        return any(self._export.scope.covers({**about, "target": target}) for target in targets)

    async def _lists(self, writer: BundleWriter, beginning: Beginning) -> None:
        """Scans and connections are the organization's: a bundle about some actions has none of them."""
        await self._tell("lists", 0, 0)
        whole = not (self._export.scope.actions or self._export.scope.targets)
        if whole:
            async for some in _several(self._tools.peers.scanner.scans(self._grant, self._export)):
                await self._threads.run(WRITE_SECONDS, writer.add_scans, some)
            async for some in _several(self._tools.peers.scanner.connections(self._grant, self._export)):
                await self._threads.run(WRITE_SECONDS, writer.add_connections, some, self._now)
        await self._threads.run(WRITE_SECONDS, writer.add_signing_keys, beginning.key_manifest)

    def _contents(self, writer: BundleWriter, beginning: Beginning) -> Contents:
        totals = writer.totals
        return Contents(
            bundle_id=self._export.export_id,
            organization_id=self._export.organization_id,
            scope=self._export.scope,
            begins_at=self._export.begins_at,
            ends_at=self._export.ends_at,
            created_at=self._now,
            log=beginning.log,
            heads=beginning.heads,
            chain_seq=totals.chain_seq,
            chain_leaf=totals.chain_leaf,
            counts=Counts(
                events=totals.chain_seq, disclosed=totals.disclosed, erased=totals.erased, receipts=totals.receipts
            ),
            digests={},
        )

    async def _seal(self, writer: BundleWriter, beginning: Beginning) -> None:
        await self._tell("seal", 0, 0)
        # An attempt's own: what an earlier one had sealed isn't what lies here now.
        request_id = f"{self._job.job_id}.{self._job.fence}"
        manifest = await self._log.seal(
            self._grant, self._export, request_id, writer.files.digests, beginning.heads, writer.totals
        )
        sealed = await self._sealed(beginning)
        await self._threads.run(WRITE_SECONDS, writer.write_seal, manifest, sealed)

    async def _sealed(self, beginning: Beginning) -> Seal:
        """Wait until the seal's event is in the log, under a signed head."""
        for _ in range(_MOST_LOOKS):
            try:
                return await self._log.read_seal(self._grant, self._export, beginning.heads[-1])
            except Unavailable as problem:
                if problem.reason != Reason.ERROR_REASON_CHECKPOINT_PENDING:
                    raise
            await asyncio.sleep(_AGAIN_SECONDS)
        return await self._log.read_seal(self._grant, self._export, beginning.heads[-1])

    async def _tell(self, phase: str, done: int, total: int) -> None:
        async with self._job.begin() as work:
            await exports.mark_progress(
                work.connection, self._export.organization_id, self._export.export_id, phase, done, total
            )


def _why_absent(problem: Problem) -> str:
    """Why a receipt isn't enclosed. Raises what isn't a reason for that."""
    if problem.reason == Reason.ERROR_REASON_PAYLOAD_ERASED:
        return "an event of it was erased, so that it can't be proved anew"
    if problem.reason == Reason.ERROR_REASON_CHECKPOINT_PENDING and problem.metadata.get("quorum"):
        return "it isn't final: too few witnesses have cosigned yet"
    if isinstance(problem, NotFound):
        return "an event of it isn't provable in the log: its shard was detached or given up, or it is on its way"
    raise problem


async def _several(found: AsyncIterator[Any], size: int = 50) -> AsyncIterator[Sequence[Any]]:
    """The same, some at a time."""
    some: list[Any] = []
    async for each in found:
        some.append(each)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some
