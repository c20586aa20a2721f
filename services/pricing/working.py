"""What pricing's worker does: fetch a bill. It may run again after any line.

Nothing that it writes is seen before the one transaction which makes the batches current; what was current until then
stays so when a bill is refused. The job of a source never ends: it is given back until the next day.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from services._mesh.aws_settings import AwsSettings
from services._mesh.claimed import ClaimedJob
from services._mesh.clock import monotonic
from services._mesh.credentials import CredentialDesk
from services._mesh.errors import PASSING, Conflict, NotFound, Problem, Reason, Unavailable
from services._mesh.ids import uuid7
from services._mesh.jobs import Job
from services._mesh.threads import BoundedThreads
from services._mesh.uow import UnitOfWork
from services.pricing.clients.exports import Export
from services.pricing.model.bill import PROVIDER_FETCHED, Batch, BillImportState, BillSource
from services.pricing.model.focus import BillLimits
from services.pricing.model.manifest import Delivery, is_mixed
from services.pricing.model.reading import BillReading, Coverage, FetchedFile, coverage_of
from services.pricing.model.refusal import UNFORESEEN, BillRefused
from services.pricing.store import bills, costs, leftovers
from services.pricing.store.costs import BatchKey
from services.pricing.usecases.bills import CREDENTIAL_PURPOSE

log = logging.getLogger(__name__)
EVERY = timedelta(days=1)
# A piece is 10,000 daily costs, or the rest of the bill; with hourly rows of few resources that is a lot of reading.
PIECE_SECONDS = 1800.0
# The broker's sessions last 15 minutes.
SESSION_SECONDS = 600.0
# These pass by themselves, or are somebody else's by now: the job is done again, and the import isn't refused.
_PASSING = (*PASSING, Conflict)


@dataclass(frozen=True)
class Tools:
    """What the worker works with. A day is complete `settle` after its end."""

    desk: CredentialDesk
    threads: BoundedThreads
    aws: AwsSettings
    settle: timedelta
    most_bytes: int


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """A batch whose rows are written, and that isn't current yet."""

    batch: Batch
    accounts: frozenset[str]


async def import_bill(tools: Tools, job: ClaimedJob) -> None:
    """Fetch what is new of a source's export, and make it current; or say why it can't be used."""
    source, bill_import_id = await _start(job)
    await _clean(job, source)
    try:
        staged = await _Fetch(tools, job, source, bill_import_id).run()
        ended_at = await _complete(job, source, bill_import_id, staged)
    except BillRefused as refused:
        if refused.rule == UNFORESEEN:  # Whoever owns the source can't mend it alone: a rule is missing.
            log.error("a bill has what no rule foresees", exc_info=refused)
        ended_at = await _refuse(job, bill_import_id, str(refused), refused.row, refused.column, refused.rule)
    except Problem as problem:
        if isinstance(problem, _PASSING):
            raise
        ended_at = await _refuse(job, bill_import_id, _told_problem(problem), 0, "", problem.reason_name)
    await _clean(job, source)
    async with job.begin() as work:
        await job.postpone(work, ended_at + EVERY)


def _told_problem(problem: Problem) -> str:
    """What stands in the way, for whoever set the source up."""
    if isinstance(problem, NotFound):
        way_out = "Disable this bill source, and add its bucket and prefix again under another connection."
        return f"{problem.message} The connection that reads this bill was disabled. {way_out}"
    return problem.message


async def _start(job: ClaimedJob) -> tuple[BillSource, UUID]:
    """The source, and its import: the one that is asked for or under way, or a new one because the day has come."""
    async with job.begin() as work:
        source = await bills.get_source(work.connection, job.subject_id)
        found = await bills.find_open_import(work.connection, source.bill_source_id)
        if found is None:
            found = await bills.insert_import(
                work.connection, job.organization_id, uuid7(), source.bill_source_id, work.now
            )
        await bills.mark_import(
            work.connection,
            found.bill_import_id,
            state=BillImportState.RUNNING.value,
            started_at=found.started_at or work.now,
        )
        metadata = {"bill_source_id": str(source.bill_source_id), "attempt": str(job.attempt)}
        work.emit("pricing.bill.run", f"billImports/{found.bill_import_id}", metadata)
    return source, found.bill_import_id


async def _clean(job: ClaimedJob, source: BillSource) -> None:
    """Delete what nobody sees any more, in pieces: a long transaction would block the renewal of the lease."""
    async with job.begin() as work:
        found = await leftovers.list_leftovers(work.connection, source.bill_source_id)
    for each in found:
        for table in leftovers.TABLES:
            after: Sequence[Any] | None = None
            while True:
                async with job.begin() as work:
                    after = await leftovers.delete_piece(work.connection, table, each, after)
                if after is None:
                    break


class _Fetch:
    """Fetches the deliveries of one import, and writes their rows in short transactions.

    A long one would hold the job's row, and so the renewal of its own lease.
    """

    def __init__(self, tools: Tools, job: ClaimedJob, source: BillSource, bill_import_id: UUID) -> None:
        self._tools, self._job, self._source, self._import_id = tools, job, source, bill_import_id
        self._opened: tuple[float, Export] | None = None

    async def run(self) -> list[StagedBatch]:
        """A batch for each billing period whose delivery is new. Raises BillRefused, Problem."""
        async with self._job.begin() as work:
            current = await bills.current_versions(work.connection, self._source.bill_source_id)
        staged = []
        for key in await (await self._export()).manifests():
            delivery = await (await self._export()).delivery(key)
            if current.get(delivery.manifest.billing_period) != delivery.version:
                staged.append(await self._stage(delivery))
        return staged

    async def _export(self) -> Export:
        """The export under a session that lasts for a while."""
        if self._opened is None or monotonic() - self._opened[0] > SESSION_SECONDS:
            credential = self._job.credential(CREDENTIAL_PURPOSE, self._source.account)
            opened = await self._tools.desk.open(credential.grant, credential.credential_id)
            self._opened = monotonic(), Export(self._tools.threads, self._tools.aws, opened, self._source)
        return self._opened[1]

    async def _stage(self, delivery: Delivery) -> StagedBatch:
        with tempfile.TemporaryDirectory(prefix="recoup-bill-") as folder:
            files, sha256 = await self._download(delivery, Path(folder))
            reading = BillReading(
                files,
                gzipped=delivery.gzipped,
                billing_period=delivery.manifest.billing_period,
                limits=BillLimits(),
            )
            key = BatchKey(self._job.organization_id, self._import_id, uuid7())
            await self._write(key, reading)
        coverage = coverage_of(delivery.manifest, reading.costs.facts.usage_days, self._tools.settle)
        fetched_at = await self._write_days(key, coverage)
        return self._staged(key.batch_id, delivery, reading, coverage, sha256, fetched_at)

    async def _download(self, delivery: Delivery, folder: Path) -> tuple[list[FetchedFile], str]:
        """The files of a delivery, and the SHA-256 of their bytes one after the other.

        Raises Unavailable where the export was delivered anew meanwhile: nothing of two deliveries is ever recorded.
        """
        digest, left, written_at = hashlib.sha256(), self._tools.most_bytes, list[datetime]()
        files = [FetchedFile(key, folder / str(number)) for number, key in enumerate(delivery.keys)]
        for file in files:
            export = await self._export()
            fetched = await export.download(file.name, file.path, digest.update, left)
            left -= fetched.size
            written_at.append(fetched.written_at)
        if is_mixed(delivery, await (await self._export()).delivery(delivery.key), written_at):
            message = "The export is being delivered anew just now."
            raise Unavailable(Reason.ERROR_REASON_DEPENDENCY_UNAVAILABLE, message, {"dependency": "bill"})
        return files, digest.hexdigest()

    async def _write(self, key: BatchKey, reading: BillReading) -> None:
        first = 0
        while piece := await self._tools.threads.run(PIECE_SECONDS, reading.next_piece):
            async with self._job.begin() as work:
                await costs.insert_costs(work.connection, key, first, piece)
            first += len(piece)

    async def _write_days(self, key: BatchKey, coverage: Coverage) -> datetime:
        """Write what is covered; returns when that was done."""
        async with self._job.begin() as work:
            await costs.insert_days(work.connection, key, coverage.days)
            return work.now

    def _staged(
        self,
        batch_id: UUID,
        delivery: Delivery,
        reading: BillReading,
        coverage: Coverage,
        sha256: str,
        fetched_at: datetime,
    ) -> StagedBatch:
        facts = reading.costs.facts
        batch = Batch(
            batch_id=batch_id,
            billing_period=delivery.manifest.billing_period,
            sha256=sha256,
            provenance=PROVIDER_FETCHED,
            object=f"s3://{self._source.bucket}/{delivery.key}",
            object_version=delivery.version,
            rows=facts.rows,
            currency=facts.currency,
            complete_through=coverage.complete_through,
            period_closed=delivery.manifest.is_closed,
            imported_at=fetched_at,
        )
        return StagedBatch(batch, frozenset(account.account for account in facts.accounts))


async def _complete(
    job: ClaimedJob, source: BillSource, bill_import_id: UUID, staged: Sequence[StagedBatch]
) -> datetime:
    """Make the batches current in place of those before them; returns when."""
    async with job.begin() as work:
        await bills.lock_batches(work.connection, job.organization_id)
        replaced = [await _make_current(work, source, bill_import_id, each) for each in staged]
        state = BillImportState.IMPORTED if staged else BillImportState.UNCHANGED
        await bills.mark_import(work.connection, bill_import_id, state=state.value, finished_at=work.now)
        metadata = {
            "bill_source_id": str(source.bill_source_id),
            "state": state.value,
            "batches": [_told(each.batch) for each in staged],
            "replaced": [str(batch_id) for batch_ids in replaced for batch_id in batch_ids],
        }
        work.emit("pricing.bill.complete", f"billImports/{bill_import_id}", metadata)
        return work.now


async def _make_current(
    work: UnitOfWork, source: BillSource, bill_import_id: UUID, staged: StagedBatch
) -> Sequence[UUID]:
    """Put a batch in the place of the one before it, and of what disabled sources bill of its accounts.

    Returns the batches of these. Raises BillRefused where another active source bills the same.
    """
    period = staged.batch.billing_period
    rival = await bills.find_rival(work.connection, source.bill_source_id, period, staged.accounts)
    if rival is not None:
        both = ", ".join(sorted(staged.accounts & set(rival.accounts))[:5])
        raise BillRefused(
            "account_twice",
            f"{period:%Y-%m} of {both} is billed by the bill source {rival.bill_source_id} already.",
            "Keep one bill source for each account, and disable the other: otherwise its cost would count twice.",
        )
    await bills.supersede_batch(work.connection, source.bill_source_id, period)
    await bills.insert_batch(
        work.connection, work.organization_id, source.bill_source_id, bill_import_id, staged.batch, staged.accounts
    )
    return await bills.replace_disabled(work.connection, period, staged.accounts)


def _told(batch: Batch) -> dict[str, str]:
    """A batch in an event."""
    return {
        "batch_id": str(batch.batch_id),
        "billing_period": f"{batch.billing_period:%Y-%m}",
        "sha256": batch.sha256,
        "rows": str(batch.rows),
        "object": batch.object,
        "object_version": batch.object_version,
    }


async def _refuse(job: ClaimedJob, bill_import_id: UUID, problem: str, row: int, column: str, rule: str) -> datetime:
    """Leave what was current as it is, and say why; returns when."""
    async with job.begin() as work:
        await bills.mark_import(
            work.connection,
            bill_import_id,
            state=BillImportState.FAILED.value,
            problem=problem[:1000],
            problem_row=row,
            problem_column=column,
            finished_at=work.now,
        )
        metadata = {"rule": rule, "row": str(row), "column": column, "problem": problem[:1000]}
        work.emit("pricing.bill.refuse", f"billImports/{bill_import_id}", metadata, "FAILED")
        return work.now


async def give_up(work: UnitOfWork, job: Job, error: str) -> None:
    """Leave nothing waiting for a job that is dead: its import failed, and says why and how it goes on."""
    problem = f"given up after several attempts ({error}); import the bill again, and it is fetched daily again"
    await bills.end_open_import(work.connection, job.subject_id, problem, work.now)
