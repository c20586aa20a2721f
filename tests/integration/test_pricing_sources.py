"""Bill sources that are switched off: what they hold, what they let go, and who takes over what they billed."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from services._mesh.context import entered
from services._mesh.errors import AlreadyExists, Conflict, NotFound, WrongState
from services._mesh.jobs import Job
from services.pricing import working
from services.pricing.model.bill import BillSource
from services.pricing.store import bills as bill_store
from services.pricing.store import costs
from services.pricing.usecases import bills
from tests.support.bills import ACCOUNT, CREDENTIAL, Active, Office, charge, csv
from tests.support.things import ACME, GLOBEX, Unrotated, context

pytestmark = pytest.mark.services("pricing")
FIRST, SECOND = date(2026, 2, 1), date(2026, 2, 2)
OTHER = "333333333333"


async def disable(office: Office, source: UUID, etag: str = "1", organization: UUID = ACME) -> BillSource:
    async with office.api.begin(organization, context(organization, "pricing.bill_source.disable")) as work:
        return await bills.disable_bill_source(work, source, etag)


async def billed(office: Office, account: str) -> list[tuple[date, Decimal]]:
    """What vol-1 of an account cost a day, as anybody sees it."""
    with entered(context()):
        rows, _ = await bills.list_daily_costs(office.api, account, "vol-1", (FIRST, date(2026, 3, 1)), None, 50)
    return [(row.day, row.effective_cost) for row in rows]


async def complete(office: Office, account: str) -> list[date]:
    async with office.api.read(ACME) as connection:
        found = await costs.complete_days(connection, costs.Account("aws", account), FIRST, date(2026, 3, 1))
    return sorted(found)


async def test_a_disabled_source_is_fetched_no_more_and_lets_go_of_its_place(office: Office) -> None:
    office.bucket.deliver(csv(charge(FIRST, "5")))
    source = await office.connect()
    await office.run(source)
    asked = await office.ask(source)
    with pytest.raises(AlreadyExists, match="is in use"):
        await office.connect()
    disabled = await disable(office, source)
    assert (disabled.state, disabled.etag) == ("DISABLED", "2")
    assert await office.fetch("SELECT count(*) FROM pricing.jobs WHERE status IN ('READY', 'LEASED')") == [0]
    ended = await office.newest(source)
    assert (ended.bill_import_id, ended.state) == (asked.bill_import_id, "FAILED")
    assert ended.problem == "The bill source was disabled."
    with pytest.raises(WrongState):
        await office.ask(source)
    assert (await office.fetch("SELECT action FROM pricing.outbox ORDER BY counter"))[-1] == (
        "pricing.bill_source.disable"
    )
    again = await office.connect()
    assert again != source
    with pytest.raises(AlreadyExists):
        await office.connect()


async def test_disabling_needs_the_newest_etag_and_an_active_source_of_one_s_own(office: Office) -> None:
    source = await office.connect()
    with pytest.raises(Conflict):
        await disable(office, source, "stale")
    with pytest.raises(NotFound):
        await disable(office, source, organization=GLOBEX)
    await disable(office, source)
    with pytest.raises(WrongState):
        await disable(office, source, "2")


async def test_a_fetch_that_is_under_way_commits_nothing_more(office: Office) -> None:
    office.bucket.deliver(csv(charge(FIRST, "5")))
    source = await office.connect()
    job = await office.claim(source)
    with entered(job.context()):
        found, import_id = await working._start(job)
        staged = await working._Fetch(office.tools, job, found, import_id).run()
        await disable(office, source)
        with pytest.raises(Conflict):
            await working._complete(job, found, import_id, staged)
    assert (await office.batches(), (await office.newest(source)).state) == ([], "FAILED")
    # What it had written, the next source deletes.
    await office.run(await office.connect())
    assert await office.total() == Decimal(5)


async def test_what_a_disabled_source_billed_counts_until_another_bills_it(office: Office) -> None:
    office.bucket.deliver(csv(charge(FIRST, "5")), closed=False, created_at="2026-02-02T12:00:00+00:00")
    source = await office.connect()
    await office.run(source)
    (before,) = await office.batches()
    await disable(office, source)
    assert (await billed(office, ACCOUNT), await office.batches()) == ([(FIRST, 5)], [before])
    # Under another connection the same export bills the same month again, which counts once.
    office.bucket.deliver(csv(charge(FIRST, "5"), charge(SECOND, "7")))
    again = await office.connect()
    assert await billed(office, ACCOUNT) == [(FIRST, 5)]
    assert (await office.run(again)).problem == ""
    assert await billed(office, ACCOUNT) == [(FIRST, 5), (SECOND, 7)]
    assert await complete(office, ACCOUNT) == [FIRST, SECOND]
    (after,) = await office.batches()
    assert after.batch_id != before.batch_id
    # The old record stays; its rows go.
    assert await office.fetch("SELECT count(*) FROM pricing.bill_batches") == [2]
    assert await office.total() == Decimal(12)
    (payload,) = await office.fetch(
        "SELECT convert_from(payload, 'UTF8') FROM pricing.outbox WHERE action = 'pricing.bill.complete'"
        " ORDER BY counter DESC LIMIT 1"
    )
    assert f'"replaced":["{before.batch_id}"]' in payload.replace(" ", "")


async def test_an_account_that_the_new_source_does_not_bill_keeps_its_days(office: Office) -> None:
    office.bucket.deliver(csv(charge(FIRST, "5"), charge(FIRST, "9", SubAccountId=OTHER)))
    source = await office.connect()
    await office.run(source)
    await disable(office, source)
    office.bucket.deliver(csv(charge(FIRST, "6")))
    again = await office.connect()
    assert (await office.run(again)).problem == ""
    assert (await billed(office, ACCOUNT), await billed(office, OTHER)) == ([(FIRST, 6)], [(FIRST, 9)])
    assert (await complete(office, ACCOUNT), await complete(office, OTHER)) == ([FIRST], [FIRST])
    async with office.api.read(ACME) as connection:
        through = await costs.find_complete_through(connection, ACCOUNT)
        days = await costs.complete_days(connection, costs.Account("aws", ACCOUNT), FIRST, FIRST)
    assert (through, len(days[FIRST])) == (FIRST, 1)
    # Another day, another delivery: the other account comes too, and nothing is left of the old source.
    office.bucket.deliver(csv(charge(FIRST, "6"), charge(FIRST, "10", SubAccountId=OTHER)))
    office.clock.ahead = timedelta(days=1, minutes=1)
    await office.run(again)
    assert (await billed(office, ACCOUNT), await billed(office, OTHER)) == ([(FIRST, 6)], [(FIRST, 10)])
    assert (len(await office.batches()), await office.total()) == (1, 16)


async def test_an_active_source_is_replaced_by_nobody(office: Office) -> None:
    office.bucket.deliver(csv(charge(FIRST, "5")))
    source = await office.connect()
    await office.run(source)
    async with office.worker.begin(ACME, context()) as work:
        assert await bill_store.replace_disabled(work.connection, FIRST, {ACCOUNT}) == []
    assert await billed(office, ACCOUNT) == [(FIRST, 5)]


async def test_nothing_is_granted_to_an_organization_that_is_not_in_use(office: Office) -> None:
    source = await office.connect()
    job = Job(uuid4(), ACME, bills.IMPORT_BILL, source, 1)
    for active in (True, False):
        policies = bills.Policies(office.api, Active(active), Unrotated())  # type: ignore[arg-type]
        if active:
            assert [scope.credential_id for scope in (await policies.import_bill(job)).credentials] == [CREDENTIAL]
        else:
            with pytest.raises(NotFound, match="organization"):
                await policies.import_bill(job)
