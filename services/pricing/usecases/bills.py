"""What pricing decides about bill sources and their imports, one function a decision."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

from services._mesh.credentials import CredentialKeeper
from services._mesh.errors import Conflict, NotFound, Reason, WrongState, invalid_field
from services._mesh.grants import CredentialScope
from services._mesh.ids import uuid7
from services._mesh.jobs import Authority, Job, Planner
from services._mesh.uow import Store, UnitOfWork
from services.pricing.clients.peers import ConnectionFacts, Identity
from services.pricing.model.bill import Batch, BillImport, BillSource, BillSourceState, NewBillSource
from services.pricing.store import bills, costs

# One job a source, whose subject is the source: its worker gives it back until the next day, for ever.
IMPORT_BILL = "import_bill"
CREDENTIAL_PURPOSE = "bill"
MAX_SPAN_DAYS = 400


async def create_bill_source(
    work: UnitOfWork, planner: Planner, given: NewBillSource, connection: ConnectionFacts
) -> BillSource:
    """Create a bill source and plan its first import. Raises Invalid, WrongState, AlreadyExists."""
    _check(given, connection)
    made = BillSource(
        work.organization_id,
        uuid7(),
        given.connection_id,
        connection.credential_id,
        given.account,
        given.region,
        given.bucket,
        given.prefix,
        BillSourceState.ACTIVE,
        1,
        work.now,
    )
    await bills.insert_source(work.connection, made)
    await _plan_import(work, planner, made.bill_source_id)
    work.emit(
        "pricing.bill_source.create",
        f"billSources/{made.bill_source_id}",
        {
            "connection_id": str(made.connection_id),
            "account": made.account,
            "location": f"s3://{made.bucket}/{made.prefix}",
        },
    )
    return made


def _check(given: NewBillSource, connection: ConnectionFacts) -> None:
    if connection.is_disabled:
        raise _wrong_state("A connection that is DISABLED can't read bills.", "DISABLED", "PENDING, FAILED or ACTIVE")
    if given.account not in connection.accounts:
        raise invalid_field("account", "must be one of the connection's accounts: its scan role reads the bucket")
    # A star would let the session's policy match more than this export; S3 takes the other keys as they are, and no
    # export lies there.
    if "*" in given.prefix or not {"", ".", ".."}.isdisjoint(given.prefix.split("/")):
        raise invalid_field("prefix", "must be the export's own prefix, such as billing/focus-daily, without * and //")


async def import_bill(work: UnitOfWork, planner: Planner, bill_source_id: UUID) -> BillImport:
    """Fetch a bill source now, and every day from now on. Raises NotFound, WrongState, AlreadyExists while one runs."""
    source = await bills.get_source(work.connection, bill_source_id, lock=True)
    if source.state is not BillSourceState.ACTIVE:
        raise _wrong_state(f"A bill source that is {source.state} can't be fetched.", source.state, "ACTIVE")
    if await bills.find_open_import(work.connection, bill_source_id) is not None:
        raise bills.import_open()
    # The job that waits for tomorrow goes; the new one goes on daily from now. It also brings back a source whose job
    # had died.
    await work.cancel_jobs(IMPORT_BILL, bill_source_id)
    made = await _plan_import(work, planner, bill_source_id)
    work.emit("pricing.bill.import", f"billImports/{made.bill_import_id}", {"bill_source_id": str(bill_source_id)})
    return made


async def disable_bill_source(work: UnitOfWork, bill_source_id: UUID, etag: str) -> BillSource:
    """Switch a bill source off for good. Raises NotFound, Conflict (ETAG_MISMATCH), WrongState.

    What it has fetched stays current, or baselines would lose their days, until another source's import replaces it.
    """
    found = await bills.get_source(work.connection, bill_source_id, lock=True)
    if etag != found.etag:
        raise Conflict(Reason.ERROR_REASON_ETAG_MISMATCH, "Somebody changed it in between. Read it again, then repeat.")
    if found.state is not BillSourceState.ACTIVE:
        raise _wrong_state(f"A bill source that is {found.state} can't be disabled.", found.state, "ACTIVE")
    await work.cancel_jobs(IMPORT_BILL, bill_source_id)
    await bills.end_open_import(work.connection, bill_source_id, "The bill source was disabled.", work.now)
    metadata = {"connection_id": str(found.connection_id), "account": found.account}
    work.emit("pricing.bill_source.disable", f"billSources/{bill_source_id}", metadata)
    return await bills.mark_disabled(work.connection, bill_source_id)


async def _plan_import(work: UnitOfWork, planner: Planner, bill_source_id: UUID) -> BillImport:
    made = await bills.insert_import(work.connection, work.organization_id, uuid7(), bill_source_id, work.now)
    await work.enqueue(planner.plan(work.organization_id, IMPORT_BILL, bill_source_id, work.now))
    return made


def _wrong_state(message: str, state: str, allowed: str) -> WrongState:
    return WrongState(Reason.ERROR_REASON_STATE_WRONG, message, {"state": state, "allowed": allowed})


async def get_bill_source(reader: Store, bill_source_id: UUID) -> BillSource:
    """One bill source. Raises NotFound."""
    async with reader.read() as connection:
        return await bills.get_source(connection, bill_source_id)


async def list_bill_sources(reader: Store, after: UUID | None, limit: int) -> list[BillSource]:
    """Bill sources by id; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await bills.list_sources(connection, after, limit + 1)


async def get_bill_import(reader: Store, bill_import_id: UUID) -> tuple[BillImport, list[Batch]]:
    """An import and the batches that it made current. Raises NotFound."""
    async with reader.read() as connection:
        found = await bills.get_import(connection, bill_import_id)
        batches = await bills.list_batches_of(connection, [bill_import_id])
    return found, batches[bill_import_id]


async def list_bill_imports(
    reader: Store, before: UUID | None, limit: int, bill_source_id: UUID | None
) -> list[tuple[BillImport, list[Batch]]]:
    """Imports, newest first; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        found = await bills.list_imports(connection, before, limit + 1, bill_source_id)
        batches = await bills.list_batches_of(connection, [each.bill_import_id for each in found])
    return [(each, batches[each.bill_import_id]) for each in found]


async def list_daily_costs(
    reader: Store, account: str, resource_id: str, span: tuple[date, date], after: Any, limit: int
) -> tuple[Sequence[Any], date | None]:
    """What a resource cost, and the last day that the account's bill covers; one row more shows that there are more.

    Raises Invalid for a span that is too long or goes backwards.
    """
    first, last = span
    if not 0 <= (last - first).days < MAX_SPAN_DAYS:
        raise invalid_field("to_day", f"must lie from 0 to {MAX_SPAN_DAYS - 1} days after from_day")
    async with reader.read() as connection:
        rows = await costs.list_daily_costs(connection, account, resource_id, span, after, limit + 1)
        return rows, await costs.find_complete_through(connection, account)


class Policies:
    """What the worker of this service may do, decided anew at each claim and renewal."""

    def __init__(self, reader: Store, identity: Identity, keeper: CredentialKeeper) -> None:
        self._reader, self._identity, self._keeper = reader, identity, keeper

    async def import_bill(self, job: Job) -> Authority:
        """The scan role of the bucket's account may list the bucket and read the export, and nothing else."""
        if not await self._identity.is_active(job.organization_id):
            raise NotFound("organization")
        async with self._reader.read(job.organization_id) as connection:
            source = await bills.get_source(connection, job.subject_id)
        if source.state is not BillSourceState.ACTIVE:
            raise _wrong_state(f"A bill source that is {source.state} isn't fetched.", source.state, "ACTIVE")
        bucket = f"arn:aws:s3:::{source.bucket}"
        found = await self._keeper.in_use(job.organization_id, source.credential_id)
        scope = CredentialScope(
            credential_id=found.credential_id,
            refused_from=found.refused_from,
            purpose=CREDENTIAL_PURPOSE,
            account=source.account,
            statements=(
                {"actions": ["s3:ListBucket"], "resources": [bucket]},
                {"actions": ["s3:GetObject"], "resources": [f"{bucket}/{source.prefix}/*"]},
            ),
        )
        return Authority(credentials=(scope,), standing=True)
