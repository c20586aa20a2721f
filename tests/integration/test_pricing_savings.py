"""Baselines and savings from imported bills: which rows count, what is refused, and that one bill is seen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from recoup.mesh.v1 import resource_pb2
from recoup.pricing.v1 import bill_service_pb2 as pb
from recoup.pricing.v1 import pricing_pb2
from services._mesh.context import entered
from services._mesh.errors import Denied, Exhausted, Invalid, Unavailable, WrongState
from services._mesh.grants import Grant
from services._mesh.pages import PageTokens
from services.pricing.model.rows import ResourceKey
from services.pricing.rpc import BillRpc
from services.pricing.store import bills as bill_store
from services.pricing.usecases import savings
from services.pricing.usecases.savings import FrozenBaseline
from tests.support.bills import ACCOUNT, REGION, Office, charge, csv
from tests.support.things import ACME, GLOBEX, context

pytestmark = pytest.mark.services("pricing")
VOLUME = ResourceKey("aws", "aws", ACCOUNT, REGION, "ec2.volume", "vol-1")
SNAPSHOT = replace(VOLUME, type="ec2.snapshot", id="snap-1")
DAY = timedelta(days=1)
# The action is on the first of March: its baseline is all of February, its window the days after.
FEBRUARY = [date(2026, 2, 1) + DAY * n for n in range(28)]
MARCH = [date(2026, 3, 1) + DAY * n for n in range(31)]
ACTED = MARCH[0]
PLAN = "0" * 64


def february() -> list[dict[str, str]]:
    """A volume of 2.00 a day, beside others of its account."""
    return [hours(day, "2") for day in FEBRUARY] + [hours(day, "5", "vol-2") for day in FEBRUARY]


def march(days: int = 31) -> list[dict[str, str]]:
    """The volume is gone; the others stay."""
    return [hours(day, "5", "vol-2") for day in MARCH[:days]]


def hours(day: date, amount: str, resource: str = "vol-1") -> dict[str, str]:
    """So many hours at 1.00 each."""
    return charge(day, amount, resource, PricingQuantity=amount)


async def import_bills(office: Office, first: list[dict[str, str]], second: list[dict[str, str]], **how: bool) -> UUID:
    """Have February and March billed."""
    office.bucket.period = FEBRUARY[0]
    office.bucket.deliver(csv(*first), created_at="2026-04-05T00:00:00+00:00")
    office.bucket.period = MARCH[0]
    office.bucket.deliver(csv(*second), created_at="2026-04-05T00:00:00+00:00", **how)
    source = await office.connect()
    found = await office.run(source)
    assert found.problem == ""
    return source


async def baseline(office: Office, resource: ResourceKey = VOLUME, through: date = FEBRUARY[-1]) -> FrozenBaseline:
    with entered(context()):
        return await savings.get_baseline(office.api, resource, through)


def request(document: bytes, **changes: object) -> pb.MeasureSavingsRequest:
    """What actions-worker asks at a checkpoint."""
    asked = pb.MeasureSavingsRequest(
        organization_id=str(ACME),
        baseline_document=document,
        from_day=(ACTED + DAY).isoformat(),
        days=7,
        plan_hash=PLAN,
        confirmed_gone=True,
        expected_gone=True,
    )
    asked.estimate.amount, asked.estimate.currency = "60.00", "USD"
    asked.confirmed_at.FromDatetime(datetime(2026, 3, 9, 1, 2, 3, tzinfo=UTC))
    for name, value in changes.items():
        setattr(asked, name, value)
    return asked


def grant(plan: str) -> Grant:
    return Grant(
        issuer="actions", audience=("pricing",), presenter="x", organization_id=ACME, kind="checkpoint", subject="c",
        job_id=UUID(int=7), fence=1, number=1, issued_at=0, expires_at=1, plan=plan,
    )  # fmt: skip


async def ask(office: Office, asked: pb.MeasureSavingsRequest, plan: str = PLAN) -> pb.MeasureSavingsResponse:
    """Ask as a worker under a grant for acme and a plan."""
    office.clock.ahead = datetime(2026, 3, 12, tzinfo=UTC) - datetime.now(UTC)
    rpc = BillRpc(office.api, office.planner, None, PageTokens(b"k" * 32), office.tools.threads, office.clock)  # type: ignore[arg-type]
    with entered(context(peer="actions-worker", grant=grant(plan))):
        return await rpc.MeasureSavings(asked, None)


async def measured(office: Office, **changes: object) -> pricing_pb2.Measurement:
    """A measurement against the baseline of February."""
    frozen = await baseline(office)
    return (await ask(office, request(frozen.document, **changes))).measurement


async def test_a_baseline_has_the_resource_s_usage_and_nothing_else(office: Office) -> None:
    noise = [
        charge(FEBRUARY[3], "100", ChargeCategory="Tax"),
        charge(FEBRUARY[3], "-100", ChargeCategory="Credit"),
        charge(FEBRUARY[3], "100", ChargeCategory="Purchase"),
        charge(FEBRUARY[3], "-100", ChargeCategory="Adjustment"),
        charge(FEBRUARY[3], "-1", ChargeClass="Correction"),
        charge(FEBRUARY[3], "7", SubAccountId="333333333333"),
        # Two charges of one line are one row; another region's too.
        charge(FEBRUARY[4], "0.5", RegionId="us-west-2"),
    ]
    await import_bills(office, february() + noise, march())
    found = await baseline(office)
    assert found.baseline.days == tuple(FEBRUARY)
    amounts = {row.day: row.effective_cost for row in found.baseline.rows}
    assert amounts == {day: Decimal("2.5") if day == FEBRUARY[4] else Decimal(2) for day in FEBRUARY}
    content = json.loads(found.document)
    assert content["resource"] == VOLUME.document()
    assert [batch["billing_period"] for batch in content["batches"]] == ["2026-02"]


async def test_a_baseline_needs_enough_days_of_the_resource(office: Office) -> None:
    young = [charge(day, "2") for day in FEBRUARY[14:]] + [charge(day, "5", "vol-2") for day in FEBRUARY]
    await import_bills(office, young, march())
    with pytest.raises(WrongState) as caught:
        await baseline(office)
    assert caught.value.reason_name == "BASELINE_INSUFFICIENT"
    assert caught.value.metadata == {"days": "13", "required_days": "14"}
    with pytest.raises(WrongState):
        await baseline(office, replace(VOLUME, id="vol-unknown"))


async def test_a_resource_with_charges_of_several_days_has_no_baseline(office: Office) -> None:
    spanning = charge(FEBRUARY[0], "30", ChargePeriodEnd="2026-02-11 00:00:00")
    await import_bills(office, [*february(), spanning], march())
    with pytest.raises(WrongState, match="span several days"):
        await baseline(office)


async def test_a_charge_of_several_days_in_the_window_is_told(office: Office) -> None:
    spanning = charge(MARCH[0], "30", "snap-1", ChargePeriodEnd="2026-04-01 00:00:00")
    await import_bills(office, february(), [*march(), spanning])
    asked = request((await baseline(office)).document)
    assert (await ask(office, asked)).measurement.decision == decision("VERIFIED")
    asked.leakage.add(**SNAPSHOT.document())
    found = (await ask(office, asked)).measurement
    assert found.decision == decision("INCONCLUSIVE")
    assert json.loads(found.document)["spanning"] is True


def decision(name: str) -> int:
    return int(pricing_pb2.Decision.Value(f"DECISION_{name}"))


async def test_a_deleted_resource_s_saving_is_measured_from_the_bill(office: Office) -> None:
    await import_bills(office, february(), march())
    found = await measured(office)
    assert (found.decision, found.economic.amount, found.economic.currency) == (decision("VERIFIED"), "14", "USD")
    content = json.loads(found.document)
    # What the account's other volume pays for the same line in the window is the price.
    (price,) = content["prices"]
    assert (price["source"], price["quantity"], price["effective_cost"]) == ("REPORTING", "35", "35")
    assert content["complete_days"] == [day.isoformat() for day in MARCH[1:8]]
    assert [batch["billing_period"] for batch in content["batches"]] == ["2026-03"]
    assert (content["confirmed_at"], content["estimate"]) == (
        "2026-03-09T01:02:03Z",
        {"amount": "60", "currency": "USD"},
    )
    assert found.digest == hashlib.sha256(found.document).hexdigest()
    assert not found.provisional


async def test_what_is_left_behind_is_netted_from_the_bill(office: Office) -> None:
    left = [charge(day, "0.5", "snap-1", SkuId="S", SkuPriceId="S.1") for day in MARCH]
    await import_bills(office, february(), march() + left)
    asked = request((await baseline(office)).document)
    asked.leakage.add(**SNAPSHOT.document())
    found = (await ask(office, asked)).measurement
    content = json.loads(found.document)
    assert (content["leakage"][0]["resource"], len(content["leakage"][0]["rows"])) == (SNAPSHOT.document(), 7)
    assert [day["leakage"] for day in content["result"]["daily"]] == ["0.5"] * 7


async def test_a_bill_that_isn_t_complete_is_pending_and_the_late_rows_decide(office: Office) -> None:
    office.bucket.period = FEBRUARY[0]
    office.bucket.deliver(csv(*february()))
    office.bucket.period = MARCH[0]
    # Rendered on the ninth: its eighth has not settled.
    office.bucket.deliver(csv(*march(8)), closed=False, created_at="2026-03-09T12:00:00+00:00")
    source = await office.connect()
    await office.run(source)
    frozen = await baseline(office)
    found = (await ask(office, request(frozen.document))).measurement
    assert (found.decision, found.HasField("economic"), found.provisional) == (decision("PENDING"), False, True)
    office.clock.ahead = timedelta()
    late = charge(MARCH[7], "0.5")
    office.bucket.deliver(csv(*march(10), late), closed=False, created_at="2026-03-11T00:00:00+00:00")
    await office.ask(source)
    await office.run(source)
    found = (await ask(office, request(frozen.document))).measurement
    assert (found.decision, found.provisional) == (decision("REGRESSED"), True)
    assert json.loads(found.document)["result"]["daily"][-1]["actual"] == "0.5"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"baseline_document": b"{}"}, "baseline_document"),
        ({"from_day": "2026-02-28"}, "from_day"),
        ({"from_day": "2026-02-31"}, "from_day"),
        ({"from_day": "0000-00-00"}, "from_day"),
        ({"from_day": "9999-12-31"}, "from_day"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(
    office: Office, changes: dict[str, object], field: str
) -> None:
    await import_bills(office, february(), march())
    with pytest.raises(Invalid) as caught:
        await measured(office, **changes)
    assert caught.value.field_violations[0].field == field


@pytest.mark.parametrize("day", ["0000-00-00", "0001-01-05", "1999-12-31", "2200-01-01", "9999-12-31"])
async def test_a_day_that_no_bill_has_is_refused_with_its_field(office: Office, day: str) -> None:
    rpc = BillRpc(office.api, office.planner, None, PageTokens(b"k" * 32), office.tools.threads, office.clock)  # type: ignore[arg-type]
    resource = resource_pb2.ResourceKey(**VOLUME.document())
    asked = pb.GetBaselineRequest(organization_id=str(ACME), resource=resource, through_day=day)
    with entered(context()), pytest.raises(Invalid) as caught:
        await rpc.GetBaseline(asked, None)
    refused = [("through_day", caught.value)]
    for field, days in (("from_day", (day, "2026-03-01")), ("to_day", ("2026-03-01", day))):
        with entered(context()), pytest.raises(Invalid) as caught:
            await rpc.ListDailyCosts(daily_costs(*days), None)
        refused.append((field, caught.value))
    for field, error in refused:
        assert (error.field_violations[0].field, error.reason_name) == (field, "FIELD_INVALID")


def daily_costs(from_day: str, to_day: str) -> pb.ListDailyCostsRequest:
    return pb.ListDailyCostsRequest(
        organization_id=str(ACME), account=VOLUME.account, resource_id=VOLUME.id, from_day=from_day, to_day=to_day
    )


async def test_days_from_the_last_to_the_first_are_refused_and_one_day_is_listed(office: Office) -> None:
    rpc = BillRpc(office.api, office.planner, None, PageTokens(b"k" * 32), office.tools.threads, office.clock)  # type: ignore[arg-type]
    with entered(context()), pytest.raises(Invalid) as caught:
        await rpc.ListDailyCosts(daily_costs("2026-03-02", "2026-03-01"), None)
    assert caught.value.field_violations[0].field == "to_day"
    with entered(context()):
        for day in ("2000-01-01", "2026-03-01", "2199-12-31"):
            assert not (await rpc.ListDailyCosts(daily_costs(day, day), None)).daily_costs


async def test_an_estimate_of_another_currency_and_a_leak_twice_are_refused(office: Office) -> None:
    await import_bills(office, february(), march())
    asked = request((await baseline(office)).document)
    asked.estimate.currency = "EUR"
    with pytest.raises(Invalid, match="must be the baseline's: USD"):
        await ask(office, asked)
    asked.estimate.currency = "USD"
    asked.leakage.add(**VOLUME.document())
    with pytest.raises(Invalid, match="leakage"):
        await ask(office, asked)


@pytest.mark.parametrize(("asked_for", "plan"), [(GLOBEX, PLAN), (ACME, "1" * 64), (ACME, "")])
async def test_a_grant_for_something_else_measures_nothing(office: Office, asked_for: UUID, plan: str) -> None:
    """Another organization's, another plan's, or one that names no plan."""
    await import_bills(office, february(), march())
    asked = request((await baseline(office)).document, organization_id=str(asked_for))
    with pytest.raises(Denied) as caught:
        await ask(office, asked, plan)
    assert caught.value.reason_name == "GRANT_INVALID"


async def test_a_bill_that_is_replaced_while_it_is_read_is_read_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    await import_bills(office, february(), march())
    answers = iter([frozenset(), frozenset({UUID(int=1)}), frozenset({UUID(int=2)}), frozenset({UUID(int=2)})])

    async def current_ids(connection: object) -> frozenset[UUID]:
        return next(answers)

    monkeypatch.setattr(bill_store, "current_ids", current_ids)
    assert (await baseline(office)).baseline.days == tuple(FEBRUARY)
    endless = iter(frozenset({UUID(int=number)}) for number in range(100))
    monkeypatch.setattr(bill_store, "current_ids", lambda connection: _soon(next(endless)))
    with pytest.raises(Unavailable):
        await baseline(office)


async def _soon(found: frozenset[UUID]) -> frozenset[UUID]:
    return found


async def test_a_resource_with_too_many_lines_is_refused(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    await import_bills(office, february(), march())
    monkeypatch.setattr(savings, "MAX_ROWS", 27)
    with pytest.raises(Exhausted):
        await baseline(office)


async def test_two_pieces_of_one_key_are_one_row(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.pricing.model.reading.PIECE_ROWS", 3)
    # The same keys again at the end of the file: they come in pieces of their own.
    await import_bills(office, february() + [charge(day, "1") for day in FEBRUARY], march())
    found = await baseline(office)
    assert len(found.rows) == 28
    assert {row.effective_cost for row in found.baseline.rows} == {3}
