"""Between pricing's messages and its model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from recoup.mesh.v1 import resource_pb2
from recoup.pricing.v1 import bill_service_pb2
from recoup.pricing.v1 import pricing_pb2 as pb
from services._mesh.errors import invalid_field
from services._mesh.times import moment, stamp
from services.pricing.model.arithmetic import plain
from services.pricing.model.baseline import Baseline, read_baseline
from services.pricing.model.bill import Batch, BillImport, BillSource, NewBillSource
from services.pricing.model.catalogue import Price, PriceKey
from services.pricing.model.dialects import FIRST_DAY, LAST_DAY, is_plausible
from services.pricing.model.measurement import Measurement, Question
from services.pricing.model.rows import CostRow, ResourceKey


def price_key(message: pb.PriceKey) -> PriceKey:
    """A unit to price."""
    return PriceKey(message.provider, message.region, message.sku)


def price(found: Price, version: str) -> pb.Price:
    """A price with its source, date and catalogue version."""
    return pb.Price(
        provider=found.key.provider,
        region=found.key.region,
        sku=found.key.sku,
        unit=found.unit,
        unit_price=resource_pb2.Money(amount=f"{found.unit_price:f}", currency=found.currency),
        source=found.source,
        source_date=found.source_date.isoformat(),
        price_version=version,
    )


def position(found: Price) -> str:
    """Where a list goes on after this price."""
    return "\n".join(found.key)


def after(text: str) -> PriceKey | None:
    """The price that a position names; None at the start."""
    return PriceKey(*text.split("\n")) if text else None


def new_bill_source(request: bill_service_pb2.CreateBillSourceRequest) -> NewBillSource:
    """What a person gives to have a bill fetched."""
    return NewBillSource(UUID(request.connection_id), request.account, request.region, request.bucket, request.prefix)


def bill_source(found: BillSource) -> pb.BillSource:
    """A bill source as it is read."""
    return pb.BillSource(
        bill_source_id=str(found.bill_source_id),
        organization_id=str(found.organization_id),
        connection_id=str(found.connection_id),
        account=found.account,
        region=found.region,
        bucket=found.bucket,
        prefix=found.prefix,
        state=pb.BillSourceState.Value(f"BILL_SOURCE_STATE_{found.state.value}"),
        etag=found.etag,
        created_at=stamp(found.created_at),
    )


def bill_import(found: BillImport, batches: Sequence[Batch]) -> pb.BillImport:
    """An import with the batches that it made current."""
    return pb.BillImport(
        bill_import_id=str(found.bill_import_id),
        organization_id=str(found.organization_id),
        bill_source_id=str(found.bill_source_id),
        state=pb.BillImportState.Value(f"BILL_IMPORT_STATE_{found.state.value}"),
        batches=map(batch, batches),
        problem=found.problem,
        row=found.problem_row,
        column=found.problem_column,
        created_at=stamp(found.created_at),
        finished_at=stamp(found.finished_at),
    )


def batch(found: Batch) -> pb.BillBatch:
    """A batch as it is read."""
    return pb.BillBatch(
        batch_id=str(found.batch_id),
        billing_period=f"{found.billing_period:%Y-%m}",
        sha256=found.sha256,
        provenance=found.provenance,
        object=found.object,
        object_version=found.object_version,
        rows=found.rows,
        currency=found.currency,
        complete_through=_day(found.complete_through),
        period_closed=found.period_closed,
        imported_at=stamp(found.imported_at),
    )


def _day(day: date | None) -> str:
    return day.isoformat() if day else ""


def span(request: bill_service_pb2.ListDailyCostsRequest) -> tuple[date, date]:
    """The days that are asked for. Raises Invalid."""
    return day("from_day", request.from_day), day("to_day", request.to_day)


def day(field: str, text: str) -> date:
    """A day of a request that a bill can have. Raises Invalid: the proto's pattern lets a 31st of February through."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        raise invalid_field(field, "must be a day that there is, such as 2026-02-28") from None
    if not is_plausible(found):  # Counting days back or on from the calendar's first or last would run over its end.
        raise invalid_field(field, f"must be a day from {FIRST_DAY} to {LAST_DAY}")
    return found


def daily_cost(row: Any) -> pb.DailyCost:
    """What a resource cost on a day, as the store finds it."""
    return pb.DailyCost(
        day=row.day.isoformat(),
        sku_id=row.sku_id,
        quantity=plain(row.quantity),
        unit=row.unit,
        effective_cost=plain(row.effective_cost),
        billed_cost=plain(row.billed_cost),
        list_cost=plain(row.list_cost),
        contracted_cost="" if row.contracted_cost is None else plain(row.contracted_cost),
        currency=row.currency,
        batch_id=str(row.batch_id),
    )


def daily_position(place: Sequence[Any]) -> str:
    """Where a list of daily costs goes on after this place."""
    first, *texts, batch_id = place
    return json.dumps([first.isoformat(), *texts, str(batch_id)])


def after_daily(text: str) -> tuple[Any, ...] | None:
    """The place that a position names; None at the start."""
    if not text:
        return None
    first, *texts, batch_id = json.loads(text)
    return date.fromisoformat(first), *texts, UUID(batch_id)


def resource_key(message: resource_pb2.ResourceKey) -> ResourceKey:
    """What names a resource."""
    return ResourceKey(*(getattr(message, name) for name in ResourceKey.__slots__))


def resource(key: ResourceKey) -> resource_pb2.ResourceKey:
    """The same on the wire."""
    return resource_pb2.ResourceKey(**key.document())


def baseline(
    found: Baseline,
    rows: Sequence[tuple[CostRow, frozenset[UUID]]],
    batches: Sequence[Batch],
    document: bytes,
    digest: str,
) -> pb.Baseline:
    """A frozen baseline: its document, and what is in it. A row names its batch where it comes from one only."""
    return pb.Baseline(
        resource=resource(found.resource),
        from_day=found.days[0].isoformat(),
        to_day=found.days[-1].isoformat(),
        complete_days=len(found.days),
        rows=[_baseline_row(row, found.currency, batch_ids) for row, batch_ids in rows],
        batches=map(batch, batches),
        digest=digest,
        document=document,
    )


def _baseline_row(row: CostRow, currency: str, batch_ids: frozenset[UUID]) -> pb.DailyCost:
    texts = row.document()
    for name in ("sku_price_id", "pricing_category"):
        del texts[name]
    return pb.DailyCost(**texts, currency=currency, batch_id=str(*batch_ids) if len(batch_ids) == 1 else "")


def question(request: bill_service_pb2.MeasureSavingsRequest, sha256: str) -> Question:
    """What is asked to be measured. Raises Invalid."""
    try:
        frozen = read_baseline(request.baseline_document)
    except ValueError as error:
        raise invalid_field("baseline_document", f"must be as GetBaseline gave it: {error}") from None
    return Question(
        plan_hash=request.plan_hash,
        baseline=frozen,
        baseline_sha256=sha256,
        from_day=day("from_day", request.from_day),
        days=request.days,
        estimate=Decimal(request.estimate.amount),
        estimate_currency=request.estimate.currency,
        expected_gone=request.expected_gone,
        confirmed_gone=request.confirmed_gone,
        confirmed_at=moment(request.confirmed_at) if request.HasField("confirmed_at") else None,
    )


def measurement(found: Measurement) -> pb.Measurement:
    """A measured saving; without amounts where the decision allows none."""
    amounts = found.amounts
    named = dict(
        zip(
            ("economic", "cash", "list", "interval_low", "interval_high"),
            (resource_pb2.Money(amount=plain(each), currency=found.currency) for each in amounts or ()),
            strict=False,
        )
    )
    return pb.Measurement(
        decision=pb.Decision.Value(f"DECISION_{found.decision.value}"),
        provisional=found.provisional,
        explanation=found.explanation,
        document=found.document,
        digest=found.digest,
        batches=map(batch, found.batches),
        **named,
    )
