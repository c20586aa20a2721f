"""Between the messages of actions and their model."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from recoup.actions.v1 import actions_pb2 as pb
from recoup.actions.v1 import actions_service_pb2
from recoup.mesh.v1 import resource_pb2
from recoup.pricing.v1 import pricing_pb2
from services._mesh.times import stamp
from services.actions.model import kinds
from services.actions.model.action import Action, Approval, Checkpoint, Step, Whole
from services.actions.model.ledger import Ledger, Summary
from services.actions.model.receipt import Proof

_PLACES = Decimal("0.01")


def action(found: Whole, *, with_document: bool) -> pb.Action:
    """An action as it is read; lists leave the plan's document out."""
    made = found.action
    return pb.Action(
        action_id=str(made.action_id),
        organization_id=str(made.organization_id),
        finding_id=str(made.finding_id),
        action_type=made.kind.action_type,
        resource=resource_pb2.ResourceKey(**made.plan.resource.document()),
        state=pb.ActionState.Value(f"ACTION_STATE_{made.state.value}"),
        plan=_plan(made, with_document=with_document),
        requested_by=made.requested_by,
        requested_at=stamp(made.requested_at),
        approvals=[_approval(each) for each in found.approvals],
        steps=[_step(each) for each in found.steps],
        checkpoints=[_checkpoint(each) for each in found.checkpoints],
        approve_before=stamp(made.approve_before),
        quarantined_until=stamp(made.quarantined_until if made.state.value == "QUARANTINED" else None),
        executed_at=stamp(made.executed_at),
        problem=made.problem,
        etag=made.etag,
    )


def _plan(made: Action, *, with_document: bool) -> pb.Plan:
    plan, kind = made.plan, made.kind
    return pb.Plan(
        plan_hash=plan.plan_hash,
        document=plan.document if with_document else b"",
        summary=kinds.describe(kind, plan.resource, plan.preconditions),
        rollback=kind.rollback,
        irreversible=kind.irreversible,
        estimate=resource_pb2.Money(amount=made.estimate.amount, currency=made.estimate.currency),
        price_version=made.estimate.price_version,
        preconditions=dict(plan.preconditions),
    )


def _approval(made: Approval) -> pb.Approval:
    return pb.Approval(
        actor=made.decided_by,
        role=made.role,
        decision=made.decision,
        plan_hash=made.plan_hash,
        comment=made.comment,
        decided_at=stamp(made.decided_at),
        voided_at=stamp(made.voided_at),
    )


def _step(made: Step) -> pb.Step:
    return pb.Step(
        name=made.name,
        state=pb.StepState.Value(f"STEP_STATE_{made.state.value}"),
        result_id=made.result_id,
        intended_at=stamp(made.intended_at),
        confirmed_at=stamp(made.confirmed_at),
        error_code=made.error_code,
    )


def _checkpoint(made: Checkpoint) -> pb.Checkpoint:
    return pb.Checkpoint(
        days=made.days,
        state=pb.CHECKPOINT_STATE_DECIDED if made.decision else pb.CHECKPOINT_STATE_WAITING,
        from_day=_day(made.from_day),
        to_day=_day(made.to_day),
        due_at=stamp(made.due_at),
        decision=_decision(made.decision),
        economic=_money(made.economic, made.currency),
        cash=_money(made.cash, made.currency),
        provisional=made.provisional,
        receipt_id=str(made.receipt_id or ""),
        explanation=made.explanation,
    )


def receipt(row: Any) -> pb.Receipt:
    """A receipt's row, without its bundle."""
    return pb.Receipt(
        receipt_id=str(row.receipt_id),
        organization_id=str(row.organization_id),
        action_id=str(row.action_id),
        days=row.days,
        decision=_decision(row.decision),
        economic=_money(row.economic, row.currency),
        cash=_money(row.cash, row.currency),
        provisional=row.provisional,
        digest=row.digest,
        issued_at=stamp(row.issued_at),
        supersedes=str(row.supersedes or ""),
        superseded_by=str(row.superseded_by or ""),
    )


def evidence_receipt(row: Any) -> actions_service_pb2.EvidenceReceipt:
    """A receipt's row with its events."""
    return actions_service_pb2.EvidenceReceipt(receipt=receipt(row), event_ids=[str(each) for each in row.event_ids])


def proof(message: actions_service_pb2.EvidenceProof) -> Proof:
    """An event as the log proves it."""
    return Proof(message.leaf, message.payload, message.salt, message.index, tuple(message.hashes), message.checkpoint)


def ledger(found: Ledger) -> actions_service_pb2.GetLedgerResponse:
    """The ledger; totals are rounded here, once, half-even."""
    return actions_service_pb2.GetLedgerResponse(
        lines=[_line(summary, found.currency) for summary in found.summaries],
        open_actions=found.open_actions,
        executed_actions=found.executed_actions,
        other_currency_checkpoints=found.others,
    )


def _line(summary: Summary, currency: str) -> actions_service_pb2.GetLedgerResponse.Line:
    counts = summary.counts

    def total(amount: Decimal) -> resource_pb2.Money:
        return resource_pb2.Money(amount=f"{amount.quantize(_PLACES):f}", currency=currency)

    return actions_service_pb2.GetLedgerResponse.Line(
        days=summary.days,
        verified=counts["VERIFIED"],
        partial=counts["PARTIAL"],
        waiting=counts["WAITING"],
        regressed=counts["REGRESSED"],
        inconclusive=counts["INCONCLUSIVE"],
        not_realized=counts["NOT_REALIZED"] + counts["NEGATIVE"],
        economic=total(summary.economic),
        cash=total(summary.cash),
        estimated=total(summary.estimated),
    )


def action_filter(request: actions_service_pb2.ListActionsRequest) -> dict[str, Any]:
    """What a list is narrowed to, column by column."""
    narrowed: dict[str, Any] = {}
    if request.state:
        narrowed["state"] = pb.ActionState.Name(request.state).removeprefix("ACTION_STATE_")
    if request.finding_id:
        narrowed["finding_id"] = request.finding_id
    return narrowed


def _money(amount: Decimal | None, currency: str) -> resource_pb2.Money | None:
    return None if amount is None else resource_pb2.Money(amount=f"{amount:f}", currency=currency)


def _decision(name: str) -> pricing_pb2.Decision.ValueType:
    return pricing_pb2.Decision.Value(f"DECISION_{name or 'UNSPECIFIED'}")


def _day(day: date | None) -> str:
    return "" if day is None else day.isoformat()
