"""Bills from a bucket into a real PostgreSQL: what is current, what is superseded, what is refused and why."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import os
from collections.abc import Callable
from csv import reader
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, Inexact
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from services._mesh.aws import client
from services._mesh.aws_settings import AwsSettings
from services._mesh.context import entered
from services._mesh.errors import AlreadyExists, Invalid, NotFound, Unavailable, WrongState
from services._mesh.grants import read_own_grant
from services._mesh.jobs import Job
from services.pricing import working
from services.pricing.clients import exports
from services.pricing.clients.exports import Downloaded, Export
from services.pricing.clients.peers import ConnectionFacts
from services.pricing.model import reading
from services.pricing.model.bill import NewBillSource
from services.pricing.model.daily import CostKey, CostKind, DailyCost
from services.pricing.model.refusal import BillRefused
from services.pricing.store import bills as bill_store
from services.pricing.store import costs, leftovers
from services.pricing.usecases import bills
from tests.support.bills import ACCOUNT, CREDENTIAL, PREFIX, REGION, Office, charge, csv
from tests.support.things import ACME, GLOBEX, context

pytestmark = pytest.mark.services("pricing")
SHARED = Path(os.environ.get("RECOUP_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


async def test_a_bill_is_imported_to_the_last_digit(office: Office) -> None:
    first, second = date(2026, 2, 1), date(2026, 2, 2)
    files = [
        csv(charge(first, "0.1"), charge(first, "0.2"), charge(second, "0.00000000000000000000000000000000000001")),
        csv(charge(second, "12345678901234567890.5", "vol-2"), charge(second, "1", "NULL")),
    ]
    version = office.bucket.deliver(*files)
    source = await office.connect()
    found = await office.run(source)
    assert (found.state, found.problem) == ("IMPORTED", "")
    (batch,) = await office.batches()
    packed = b"".join(gzip.compress(file, mtime=0) for file in files)
    assert batch.sha256 == hashlib.sha256(packed).hexdigest()
    assert (batch.object_version, batch.rows, batch.currency) == (version, 5, "USD")
    assert batch.object == f"s3://{office.bucket.name}/{PREFIX}/metadata/billing_period=2026-02/focus-Manifest.json"
    assert (batch.complete_through, batch.period_closed) == (second, True)
    assert await office.total() == Decimal("12345678901234567890.80000000000000000000000000000000000001")
    assert await office.fetch("SELECT day FROM pricing.bill_days ORDER BY 1") == [first, second]
    events = await office.fetch("SELECT action FROM pricing.outbox ORDER BY counter")
    assert events == ["pricing.bill_source.create", "pricing.bill.run", "pricing.bill.complete"]
    (payload,) = await office.fetch("SELECT payload FROM pricing.outbox WHERE action = 'pricing.bill.complete'")
    (told,) = json.loads(payload)["metadata"]["batches"]
    assert (told["sha256"], told["rows"], told["object_version"]) == (batch.sha256, "5", version)


async def test_a_bill_is_fetched_every_day_and_taken_when_it_is_new(office: Office) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1))))
    source = await office.connect()
    await office.run(source)
    with pytest.raises(WrongState):
        await office.claim(source)  # Not due before tomorrow.
    office.clock.ahead = timedelta(days=1, minutes=1)
    assert (await office.run(source)).state == "UNCHANGED"
    office.bucket.deliver(csv(charge(date(2026, 2, 1)), charge(date(2026, 2, 2))))
    office.clock.ahead = timedelta(days=2, minutes=2)
    assert (await office.run(source)).state == "IMPORTED"
    assert await office.fetch("SELECT count(*) FROM pricing.jobs") == [1]


async def test_a_source_is_fetched_for_years_without_anybody_asking(office: Office) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1))))
    source = await office.connect()
    for days in (0, 350, 700, 1050):
        office.clock.ahead = timedelta(days=days, minutes=days)
        assert (await office.run(source)).problem == ""
    assert await office.fetch("SELECT count(*) FROM pricing.jobs") == [1]


async def test_a_new_delivery_replaces_the_rows_and_keeps_the_record(office: Office) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1), "5"), charge(date(2026, 2, 2), "7")), closed=False)
    source = await office.connect()
    await office.run(source)
    (before,) = await office.batches()
    # A late row, and a row that is no longer billed.
    office.bucket.deliver(csv(charge(date(2026, 2, 1), "5"), charge(date(2026, 2, 1), "0.25")))
    await office.ask(source)
    await office.run(source)
    (after,) = await office.batches()
    assert await office.total() == Decimal("5.25")
    records = await office.fetch("SELECT batch_id FROM pricing.bill_batches ORDER BY is_current")
    assert records == [before.batch_id, after.batch_id]
    assert await office.fetch("SELECT DISTINCT batch_id FROM pricing.bill_days") == [after.batch_id]


_COUNTING = """
CREATE TABLE public.deleted (txid xid8, rows bigint);
CREATE FUNCTION public.count_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $body$
BEGIN INSERT INTO public.deleted SELECT pg_current_xact_id(), count(*) FROM gone; RETURN NULL; END $body$;
CREATE TRIGGER counted AFTER DELETE ON pricing.daily_costs REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION public.count_deleted();
CREATE TRIGGER counted AFTER DELETE ON pricing.bill_days REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION public.count_deleted();
"""


async def test_rows_are_deleted_in_bounded_transactions(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large bill in one transaction would outlast the statement's timeout, the lease, or both: for ever."""
    monkeypatch.setattr(leftovers, "PIECE_ROWS", 3)
    days = [date(2026, 2, 1) + timedelta(days=number) for number in range(8)]
    office.bucket.deliver(csv(*(charge(day, resource=name) for day in days for name in ("vol-1", "vol-2"))))
    source = await office.connect()
    await office.run(source)
    superuser = await office.database.superuser()
    await superuser.execute(_COUNTING)
    await superuser.close()
    # One that is refused in its last row has written pieces before, and one that is broken off as well.
    monkeypatch.setattr(reading, "PIECE_ROWS", 4)
    refused = charge(days[0]) | {"BillingCurrency": "EUR"}
    office.bucket.deliver(csv(*(charge(day) for day in days), refused))
    await office.ask(source)
    assert (await office.run(source)).state == "FAILED"
    assert await office.fetch("SELECT count(*) FROM pricing.daily_costs") == [16]
    (of_refused,) = await office.fetch("SELECT sum(rows)::int FROM public.deleted")
    assert of_refused >= 4
    office.bucket.deliver(csv(charge(days[0], "9")))
    await office.ask(source)
    assert (await office.run(source)).state == "IMPORTED"
    assert await office.total() == Decimal(9)
    assert await office.fetch("SELECT day FROM pricing.bill_days") == [days[0]]
    # The first bill had 16 rows and 8 days.
    assert await office.fetch("SELECT sum(rows)::int FROM public.deleted") == [of_refused + 16 + 8]
    assert max(await office.fetch("SELECT sum(rows)::int FROM public.deleted GROUP BY txid")) == 3


async def test_the_next_fetch_is_a_day_after_the_end_of_this_one(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes to delete what was superseded: the day after must not be left out."""
    cleaned = working._clean

    async def slowly(*arguments: Any) -> None:
        await cleaned(*arguments)
        office.clock.ahead += timedelta(hours=12)

    office.bucket.deliver(csv(charge(date(2026, 2, 1))))
    source = await office.connect()
    monkeypatch.setattr(working, "_clean", slowly)
    found = await office.run(source)
    assert await office.fetch("SELECT due_at FROM pricing.jobs") == [found.finished_at + working.EVERY]


async def test_what_a_crash_left_of_a_superseded_bill_is_deleted_by_the_next_fetch(office: Office) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1), "5")))
    source = await office.connect()
    await office.run(source)
    office.bucket.deliver(csv(charge(date(2026, 2, 1), "9")))
    await office.ask(source)
    job = await office.claim(source)
    with entered(job.context()):
        found, import_id = await working._start(job)
        await working._complete(job, found, import_id, await working._Fetch(office.tools, job, found, import_id).run())
    # Nobody sees both, and the dead worker's lease runs out.
    rows, _ = await listed(office)
    assert ([row.effective_cost for row in rows], await office.total()) == ([9], Decimal(14))
    office.clock.wall_ahead = timedelta(seconds=61)
    assert (await office.run(source)).state == "UNCHANGED"
    assert await office.total() == Decimal(9)
    assert await office.fetch("SELECT count(*) FROM pricing.bill_days") == [1]


class Redelivering(Export):
    """An export that the provider writes over while it is read: `between` is done before or after the first file."""

    between: Callable[[], object] = staticmethod(lambda: None)
    early = False

    async def download(self, key: str, path: Path, took: Callable[[bytes], object], most_bytes: int) -> Downloaded:
        if path.name == "0" and self.early:
            Redelivering.between()
        found = await super().download(key, path, took, most_bytes)
        if path.name == "0" and not self.early:
            Redelivering.between()
        return found


@pytest.mark.parametrize(
    ("early", "with_manifest"), [(True, True), (False, True), (False, False)], ids=["early", "whole", "half"]
)
async def test_a_mixture_of_two_deliveries_is_never_recorded(
    office: Office, monkeypatch: pytest.MonkeyPatch, early: bool, with_manifest: bool
) -> None:
    """An export that overwrites its keys may do so between two of them; its manifest may come a while later."""
    day, office.bucket.overwriting = date(2026, 2, 1), True
    office.bucket.deliver(csv(charge(day, "5")), csv(charge(day, "7")))
    after = csv(charge(day, "50")), csv(charge(day, "70"))

    def redeliver() -> None:
        later = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=2)  # S3 tells whole seconds.
        monkeypatch.setattr("moto.s3.models.utcnow", lambda: later)
        office.bucket.deliver(*after, with_manifest=with_manifest)

    monkeypatch.setattr(working, "Export", Redelivering)
    monkeypatch.setattr(Redelivering, "early", early)
    monkeypatch.setattr(Redelivering, "between", staticmethod(redeliver))
    source = await office.connect()
    with pytest.raises(Unavailable):
        await office.run(source)
    assert (await office.batches(), await office.total()) == ([], None)
    # It is fetched again, now that nothing moves any more.
    monkeypatch.undo()
    office.bucket.deliver(*after)
    office.clock.wall_ahead = timedelta(seconds=61)
    assert (await office.run(source)).state == "IMPORTED"
    assert await office.total() == Decimal(120)


REFUSED = {
    "number": ("row 2, column EffectiveCost", 2, "EffectiveCost", {"EffectiveCost": "1,5"}),
    "currency": ("a batch has one currency", 2, "BillingCurrency", {"BillingCurrency": "EUR"}),
    "charge period": ("is no time of a bill", 2, "ChargePeriodStart", {"ChargePeriodStart": "9999-12-31 00:00:00"}),
    "billing period": ("is no time of a bill", 2, "BillingPeriodStart", {"BillingPeriodStart": "9999-12-01 00:00:00"}),
    "period": ("a row of 2026-03", 2, "BillingPeriodStart", charge(date(2026, 3, 1))),
}


@pytest.mark.parametrize(("says", "row", "column", "changes"), REFUSED.values(), ids=list(REFUSED))
async def test_a_refused_bill_says_where_and_leaves_what_was_current(
    office: Office, says: str, row: int, column: str, changes: dict[str, str]
) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1), "5")))
    source = await office.connect()
    await office.run(source)
    (before,) = await office.batches()
    bad = csv(charge(date(2026, 2, 1)), charge(date(2026, 2, 2)) | changes)
    office.bucket.deliver(csv(charge(date(2026, 2, 1), "9")), bad.replace(b"1,5", b'"1,5"'))
    await office.ask(source)
    found = await office.run(source)
    assert (found.state, found.problem_row, found.problem_column) == ("FAILED", row, column)
    assert says in found.problem
    assert "/1.csv.gz" in found.problem
    assert await office.batches() == [before]
    (payload,) = await office.fetch("SELECT payload FROM pricing.outbox WHERE action = 'pricing.bill.refuse'")
    assert json.loads(payload)["result"] == "FAILED"
    # It is tried again tomorrow, and what the refused one had written is gone then.
    office.bucket.deliver(csv(charge(date(2026, 2, 1), "9")))
    office.clock.ahead = timedelta(days=1, minutes=1)
    assert (await office.run(source)).state == "IMPORTED"
    assert await office.total() == Decimal(9)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dataFiles": ["s3://elsewhere/billing/focus/x.csv"]}, "lies outside of"),
        ({"dataFiles": ["s3://{bucket}/billing/focus-2/x.csv"]}, "lies outside of"),
        ({"dataFiles": ["s3://{bucket}/billing/focus/../x.csv"]}, "lies outside of"),
        ({"dataFiles": []}, "dataFiles must name"),
        ({"billingPeriod": {"start": "2026-01-01", "end": "2026-02-01"}}, "isn't the month of its folder"),
        ({"billingPeriodStatus": "MAYBE"}, "neither OPEN nor CLOSED"),
        ({"createdAt": "2026-03-05T00:00:00"}, "must have a time zone"),
        ({"createdAt": "0001-01-01T00:00:00Z"}, "createdAt has 0001-01-01"),
        ({"createdAt": "0001-01-01T00:00:00+23:59"}, "createdAt has 0001-01-01"),
        ({"createdAt": "9999-12-31T23:59:59-23:59"}, "createdAt has 9999-12-31"),
        ({"createdAt": "2026-03-05T00:00:00\ud800"}, "createdAt must be"),
        ({"billingPeriod": {"start": "9999-12-01", "end": "9999-12-31"}}, "billingPeriod.start has 9999-12-01"),
        ({"billingPeriod": {"start": "0000-01-01", "end": "0000-02-01"}}, "billingPeriod.start must have"),
        ({"dataFiles": ["s3://{bucket}/billing/focus/\ud800.csv"]}, "characters that no key has"),
        ({"dataFiles": ["s3://{bucket}/billing/focus/\0.csv"]}, "characters that no key has"),
        ({"format": "PARQUET"}, "isn't CSV"),
        ({"executionId": 7}, "executionId must be a text"),
    ],
)
async def test_a_manifest_is_read_strictly(office: Office, changes: dict[str, Any], says: str) -> None:
    if "dataFiles" in changes:
        changes = {"dataFiles": [file.replace("{bucket}", office.bucket.name) for file in changes["dataFiles"]]}
    office.bucket.deliver(csv(charge(date(2026, 2, 1))), **changes)
    found = await office.run(await office.connect())
    assert (found.state, await office.total()) == ("FAILED", None)
    assert says in found.problem


@pytest.mark.parametrize("month", ["9999-12", "0000-01", "0001-01", "1999-12"])
async def test_a_folder_of_an_absurd_month_is_refused_and_read_again_tomorrow(office: Office, month: str) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1))))
    key = f"{PREFIX}/metadata/billing_period={month}/focus-Manifest.json"
    document = {"billingPeriod": {"start": f"{month}-01", "end": f"{month}-31"}}
    office.bucket.client.put_object(Bucket=office.bucket.name, Key=key, Body=json.dumps(document).encode())
    source = await office.connect()
    found = await office.run(source)
    assert (found.state, f"the folder of {key}" in found.problem) == ("FAILED", True)
    office.bucket.client.delete_object(Bucket=office.bucket.name, Key=key)
    office.clock.ahead = timedelta(days=1, minutes=1)
    assert (await office.run(source)).state == "IMPORTED"


def _breaks(error: Exception) -> Callable[..., Any]:
    def breaking(*arguments: Any, **named: Any) -> Any:
        raise error

    return breaking


@pytest.mark.parametrize(
    "error",
    [ValueError("no\0month"), OverflowError("too far"), "\ud800".encode, Inexact()],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("place", [(reading, "read_bill"), (exports, "read_manifest")], ids=["bill", "manifest"])
async def test_what_is_not_foreseen_in_a_bill_is_a_refusal_and_ends_no_job(
    office: Office, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str], error: Any
) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1))))
    source = await office.connect()
    broken = _breaks(error) if isinstance(error, Exception) else lambda *_, **__: error()
    monkeypatch.setattr(*place, broken)
    found = await office.run(source)
    assert (found.state, "that we didn't foresee (" in found.problem) == ("FAILED", True)
    assert f"{PREFIX}/" in found.problem
    monkeypatch.undo()
    office.clock.ahead = timedelta(days=1, minutes=1)
    assert (await office.run(source)).state == "IMPORTED"


async def test_a_mistake_of_ours_elsewhere_is_no_refusal(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1))))
    source = await office.connect()
    monkeypatch.setattr(costs, "insert_costs", _breaks(ValueError("a mistake")))
    with pytest.raises(ValueError, match="a mistake"):
        await office.run(source)


async def test_what_a_bill_quotes_can_always_be_written(office: Office) -> None:
    """PostgreSQL takes no NUL and no lone surrogate; the job would fail each time that it says what it refuses."""
    office.bucket.deliver(csv(charge(date(2026, 2, 1))), billingPeriodStatus="\0\ud800")
    assert (await office.run(await office.connect())).state == "FAILED"
    assert str(BillRefused("manifest", "a\0b\ud800c", "Go on.")) == "a\\x00b\\ud800c Go on."


async def test_a_bill_without_rows_takes_no_month_s_place(office: Office) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1), "5")))
    source = await office.connect()
    await office.run(source)
    before = await office.batches()
    office.bucket.deliver(csv(), csv())
    await office.ask(source)
    found = await office.run(source)
    assert (found.state, "the bill has no rows" in found.problem) == ("FAILED", True)
    assert (await office.batches(), await office.total()) == (before, Decimal(5))
    # One of several files may well be empty.
    office.bucket.deliver(csv(), csv(charge(date(2026, 2, 1), "9")))
    await office.ask(source)
    assert (await office.run(source)).state == "IMPORTED"


async def test_a_file_that_the_manifest_names_and_nobody_finds_is_no_matter_of_permissions(office: Office) -> None:
    missing = f"{PREFIX}/data/gone.csv.gz"
    office.bucket.deliver(csv(charge(date(2026, 2, 1))), dataFiles=[f"s3://{office.bucket.name}/{missing}"])
    found = await office.run(await office.connect())
    assert found.state == "FAILED"
    assert f"the manifest names {missing}, which isn't there. Have the export delivered again." in found.problem
    assert "scan role" not in found.problem


async def test_a_delivery_that_is_larger_than_we_fetch_is_refused(office: Office) -> None:
    office.bucket.deliver(csv(*(charge(date(2026, 2, 1), f"0.{n}", f"vol-{hash(str(n))}") for n in range(3000))))
    office.tools = replace(office.tools, most_bytes=1000)
    found = await office.run(await office.connect())
    assert (found.state, "larger than we fetch" in found.problem) == ("FAILED", True)


async def test_a_bucket_that_refuses_us_is_said_and_one_that_is_away_is_waited_for(office: Office) -> None:
    source = await office.connect()
    there = office.bucket.name
    superuser = await office.database.superuser()
    await superuser.execute("SET session_replication_role = replica; UPDATE pricing.bill_sources SET bucket = 'gone'")
    found = await office.run(source)
    assert (found.state, "s3:ListBucket on s3://gone" in found.problem) == ("FAILED", True)
    await superuser.execute("UPDATE pricing.bill_sources SET bucket = $1", there)
    await superuser.close()
    office.tools = replace(office.tools, aws=AwsSettings("http://127.0.0.1:9"))
    office.clock.ahead = timedelta(days=1, minutes=1)
    with pytest.raises(Unavailable):
        await office.run(source)
    assert (await office.newest(source)).state == "RUNNING"


async def test_a_connection_that_was_disabled_is_told_and_tried_again_tomorrow(office: Office) -> None:
    class Closed:
        async def open(self, grant: str, credential_id: str) -> None:
            raise NotFound("credential")

    source = await office.connect()
    office.tools = replace(office.tools, desk=Closed())
    found = await office.run(source)
    assert (found.state, "connection that reads this bill was disabled" in found.problem) == ("FAILED", True)
    assert await office.fetch("SELECT status FROM pricing.jobs") == ["READY"]


async def test_what_a_crashed_attempt_wrote_is_seen_by_nobody_and_deleted(office: Office) -> None:
    day = date(2026, 2, 1)
    office.bucket.deliver(csv(charge(day, "5")))
    source = await office.connect()
    job = await office.claim(source)
    with entered(job.context()):
        _, import_id = await working._start(job)
        key = CostKey(day, "aws", ACCOUNT, REGION, "vol-1", day, CostKind.USAGE, "SKU", "SKU.1", "Standard", "Hours")
        left = DailyCost(key, *[Decimal(1000)] * 4, None, 1)
        async with job.begin() as work:
            await costs.insert_costs(work.connection, costs.BatchKey(ACME, import_id, uuid4()), 0, [left])
        rows, through = await listed(office)
        assert (rows, through) == ([], None)
        # The same job goes on: another attempt at the same import.
        await working.import_bill(office.tools, job)
    assert (await office.newest(source)).bill_import_id == import_id
    assert await office.total() == Decimal(5)


async def listed(office: Office, organization: UUID = ACME) -> tuple[list[Any], date | None]:
    with entered(context(organization)):
        rows, through = await bills.list_daily_costs(
            office.api, ACCOUNT, "vol-1", (date(2026, 1, 1), date(2026, 12, 31)), None, 50
        )
    return list(rows), through


async def test_nobody_sees_another_organization_s_bill(office: Office) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1), "5")))
    source = await office.connect()
    await office.run(source)
    assert len((await listed(office))[0]) == 1
    assert await listed(office, GLOBEX) == ([], None)
    with entered(context(GLOBEX)), pytest.raises(NotFound):
        await bills.get_bill_source(office.api, source)
    # The same bucket and prefix may be another organization's, which learns nothing of ours.
    await office.connect(organization=GLOBEX)


async def test_costs_are_listed_page_by_page_without_a_gap(office: Office) -> None:
    days = [date(2026, 2, 1) + timedelta(days=number) for number in range(9)]
    office.bucket.deliver(
        csv(*(charge(day, str(n + 1), PricingUnit=unit) for n, day in enumerate(days) for unit in ("GB", "Hours")))
    )
    await office.run(await office.connect())
    after, seen = None, []
    with entered(context()):
        while True:
            rows, _ = await bills.list_daily_costs(office.api, ACCOUNT, "vol-1", (days[1], days[7]), after, 4)
            seen += [(row.day, row.unit) for row in rows[:4]]
            if len(rows) <= 4:
                break
            after = costs.place_of(rows[3])
    assert seen == [(day, unit) for day in days[1:8] for unit in ("GB", "Hours")]


async def test_one_import_of_a_source_at_a_time(office: Office) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1))))
    source = await office.connect()
    with pytest.raises(AlreadyExists):
        await office.ask(source)
    await office.run(source)
    asked = await office.ask(source)
    assert (await office.run(source)).bill_import_id == asked.bill_import_id
    live = await office.fetch("SELECT count(*) FROM pricing.jobs WHERE status IN ('READY', 'LEASED')")
    assert live == [1]


async def test_asking_while_the_daily_fetch_begins_is_no_deadlock(office: Office) -> None:
    """The worker holds its job and writes an import of the source; whoever asks holds the source and wants the job."""
    office.bucket.deliver(csv(charge(date(2026, 2, 1))))
    source = await office.connect()
    await office.run(source)
    office.clock.ahead = timedelta(days=1, minutes=1)
    job = await office.claim(source)
    async with job.begin() as work:
        asked = asyncio.create_task(office.ask(source))
        while not await office.fetch("SELECT pid FROM pg_locks WHERE NOT granted"):  # It has the source by now.
            await asyncio.sleep(0.02)
        made = await bill_store.insert_import(work.connection, ACME, uuid4(), source, work.now)
        work.emit("pricing.bill.run", f"billImports/{made.bill_import_id}")
    with pytest.raises(AlreadyExists):
        await asked
    with entered(job.context()):  # The job is the worker's still: what was asked for was refused whole.
        await working.import_bill(office.tools, job)
    assert (await office.newest(source)).state == "UNCHANGED"


async def test_a_job_that_died_says_so_and_asking_again_revives_the_daily_fetch(office: Office) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1))))
    source = await office.connect()
    job = await office.claim(source)
    with entered(job.context()):
        await working._start(job)
        assert await job.fail("ValueError", final=True, on_dead=working.give_up)
    found = await office.newest(source)
    assert (found.state, "import the bill again" in found.problem) == ("FAILED", True)
    await office.ask(source)
    assert (await office.run(source)).state == "IMPORTED"
    office.clock.ahead = timedelta(days=1, minutes=1)
    assert (await office.run(source)).state == "UNCHANGED"


async def test_a_death_that_the_api_finds_out_about_is_said_too(office: Office) -> None:
    source = await office.connect()
    async with office.api.begin(ACME, context()) as work:
        await working.give_up(work, Job(uuid4(), ACME, bills.IMPORT_BILL, source, 5), "LEASE_EXPIRED")
        work.emit("pricing.job.die", "jobs/1")
    assert (await office.newest(source)).state == "FAILED"


async def test_an_account_is_billed_by_one_source_only(office: Office) -> None:
    office.bucket.deliver(csv(charge(date(2026, 2, 1), "5")))
    first = await office.connect()
    await office.run(first)
    for entry in office.bucket.client.list_objects_v2(Bucket=office.bucket.name)["Contents"]:
        body = office.bucket.client.get_object(Bucket=office.bucket.name, Key=entry["Key"])["Body"].read()
        moved = entry["Key"].replace(PREFIX, "other/focus")
        body = body.replace(b"/billing/focus/", b"/other/focus/") if moved.endswith(".json") else body
        office.bucket.client.put_object(Bucket=office.bucket.name, Key=moved, Body=body)
    second = await office.connect("other/focus")
    found = await office.run(second)
    assert (found.state, str(first) in found.problem) == ("FAILED", True)
    rows, _ = await listed(office)
    assert [row.effective_cost for row in rows] == [5]


async def test_a_late_charge_of_an_earlier_month_doesn_t_complete_that_month_s_day(office: Office) -> None:
    late = charge(date(2026, 2, 3)) | {
        "ChargePeriodStart": "2026-01-31 00:00:00", "ChargePeriodEnd": "2026-02-01 00:00:00",
    }  # fmt: skip
    office.bucket.deliver(csv(charge(date(2026, 2, 3)), late))
    await office.run(await office.connect())
    assert await office.fetch("SELECT day FROM pricing.bill_days") == [date(2026, 2, 3)]
    rows, _ = await listed(office)
    assert [row.day for row in rows] == [date(2026, 1, 31), date(2026, 2, 3)]


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"account": "1" * 12}, "account"), ({"prefix": "a/*"}, "prefix"), ({"prefix": "a//b"}, "prefix"),
     ({"prefix": "a/"}, "prefix"), ({"prefix": "../a"}, "prefix")],
)  # fmt: skip
async def test_a_source_that_reaches_too_far_is_refused(office: Office, changes: dict[str, str], field: str) -> None:
    wanted = {"account": ACCOUNT, "region": REGION, "bucket": office.bucket.name, "prefix": PREFIX} | changes
    facts = ConnectionFacts(CREDENTIAL, frozenset({ACCOUNT}), False)
    with pytest.raises(Invalid) as caught:
        async with office.api.begin(ACME, context()) as work:
            await bills.create_bill_source(work, office.planner, NewBillSource(UUID(int=1), **wanted), facts)
    assert caught.value.field_violations[0].field == field


async def test_a_source_is_there_once_and_needs_a_connection_in_use(office: Office) -> None:
    await office.connect()
    with pytest.raises(AlreadyExists):
        await office.connect()
    given = NewBillSource(UUID(int=1), ACCOUNT, REGION, office.bucket.name, "another")
    with pytest.raises(WrongState):
        async with office.api.begin(ACME, context()) as work:
            facts = ConnectionFacts(CREDENTIAL, frozenset({ACCOUNT}), True)
            await bills.create_bill_source(work, office.planner, given, facts)


async def test_the_grant_reads_this_export_and_nothing_else(office: Office) -> None:
    job = await office.claim(await office.connect())
    (credential,) = job.credentials
    scope = read_own_grant(credential.grant).credential
    assert scope is not None
    assert (scope.purpose, scope.account, scope.credential_id) == ("bill", ACCOUNT, CREDENTIAL)
    bucket = f"arn:aws:s3:::{office.bucket.name}"
    assert [(tuple(s["actions"]), tuple(s["resources"])) for s in scope.statements] == [
        (("s3:ListBucket",), (bucket,)),
        (("s3:GetObject",), (f"{bucket}/{PREFIX}/*",)),
    ]


async def test_a_bucket_that_became_somebody_else_s_is_never_read(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 compares the owner, if it is told whom we expect: in each call (the emulated proxy does so too)."""
    expected: list[str] = []

    def watched(*arguments: Any) -> Any:
        s3 = client(*arguments)
        s3.meta.events.register("before-send.s3", lambda request, **_: expected.append(_owner(request.headers)))
        return s3

    monkeypatch.setattr(exports, "client", watched)
    office.bucket.deliver(csv(charge(date(2026, 2, 1))), csv(charge(date(2026, 2, 2))))
    assert (await office.run(await office.connect())).state == "IMPORTED"
    # The list, the manifest before and after, and two files.
    assert expected == [ACCOUNT] * 5


def _owner(headers: Any) -> str:
    owner = headers.get("x-amz-expected-bucket-owner", b"")
    return owner.decode() if isinstance(owner, bytes) else str(owner)


async def test_a_batch_s_record_can_t_be_changed_by_the_worker(office: Office) -> None:
    worker = await office.database.login("pricing_worker")
    with pytest.raises(Exception, match="permission denied"):
        await worker.execute("UPDATE pricing.bill_batches SET sha256 = 'x'")
    await worker.close()


async def test_the_published_sample_imports(office: Office) -> None:
    if not SHARED.is_dir():
        pytest.skip(f"no shared data at {SHARED}")
    head, *lines = (SHARED / "focus_sample_1.0.csv").read_bytes().splitlines(keepends=True)
    for month in (b"2024-09-01", b"2024-10-01"):
        office.bucket.period = date.fromisoformat(month.decode())
        office.bucket.deliver(head + b"".join(line for line in lines if _period(head, line) == month))
    found = await office.run(await office.connect())
    assert (found.state, found.problem) == ("IMPORTED", "")
    batches = await office.batches()
    assert sum(batch.rows for batch in batches) == 1000
    assert {(f"{batch.billing_period:%Y-%m}", batch.currency) for batch in batches} == {
        ("2024-09", "USD"),
        ("2024-10", "USD"),
    }
    assert await office.fetch("SELECT sum(rows)::int FROM pricing.daily_costs") == [1000 - 2 - 1 - 74]


def _period(head: bytes, line: bytes) -> bytes:
    names, values = (next(reader([text.decode()])) for text in (head, line))
    return dict(zip(names, values, strict=True))["BillingPeriodStart"][:10].encode()
