"""Signing receipts, showing them with their proof, and the ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import Denied, Reason, Unavailable, WrongState
from services._mesh.ids import uuid7
from services._mesh.keys import read_private_key
from services._mesh.uow import Store, UnitOfWork
from services.actions.clients.peers import Identity, Log
from services.actions.model.action import Checkpoint
from services.actions.model.ledger import Ledger, summarize
from services.actions.model.receipt import (
    RECEIPT_FORMAT,
    Evidence,
    Proof,
    bundle,
    digest,
    envelope,
    pre_authentication,
    receipt_document,
    statement,
)
from services.actions.model.states import StepState
from services.actions.store import actions, checkpoints


class ReceiptKey:
    """The Ed25519 key that receipts are signed with; the log's key manifest names its public half."""

    def __init__(self, path: Path) -> None:
        self._key = read_private_key(path)
        self.key_id = hashlib.sha256(self._key.public_key().public_bytes_raw()).hexdigest()

    def sign(self, payload: bytes) -> bytes:
        """The DSSE envelope over a payload."""
        return envelope(payload, self.key_id, self._key.sign(pre_authentication(payload)))


async def find_issued(reader: Store, action_id: UUID, days: int) -> Any | None:
    """The receipt of the checkpoint's current decision, if it was issued already. The grant must be for it."""
    async with reader.read() as connection:
        checkpoint = await _granted(connection, action_id, days)
        return await checkpoints.find_receipt(connection, action_id, days, checkpoint.revision)


async def issue_receipt(work: UnitOfWork, key: ReceiptKey, action_id: UUID, days: int) -> Any:
    """Sign the receipt of a checkpoint's current decision. Raises Denied, WrongState (RECEIPT_NOT_READY)."""
    checkpoint = await _granted(work.connection, action_id, days, lock=True)
    if not checkpoint.decision:
        raise WrongState(
            Reason.ERROR_REASON_RECEIPT_NOT_READY,
            "The checkpoint isn't decided yet.",
            {"due_at": checkpoint.due_at.isoformat() if checkpoint.due_at else ""},
        )
    evidence = await _evidence(work.connection, checkpoint)
    receipt_id = uuid7()
    document = receipt_document(evidence, receipt_id, work.now, checkpoint.receipt_id)
    payload = statement(document, evidence.baseline, evidence.measurement, evidence.event_ids)
    issued = work.emit(
        "actions.receipt.issue",
        f"receipts/{receipt_id}",
        {
            "action_id": str(action_id),
            "days": str(days),
            "decision": checkpoint.decision,
            "receipt_sha256": digest(document),
            "statement_sha256": digest(payload),
        },
    )
    await checkpoints.insert_receipt(
        work.connection,
        organization_id=work.organization_id,
        receipt_id=receipt_id,
        action_id=action_id,
        days=days,
        revision=checkpoint.revision,
        decision=checkpoint.decision,
        economic=checkpoint.economic,
        cash=checkpoint.cash,
        currency=checkpoint.currency,
        provisional=checkpoint.provisional,
        format=RECEIPT_FORMAT,
        digest=digest(document),
        document=document,
        measurement=evidence.measurement,
        envelope=key.sign(payload),
        event_ids=[*evidence.event_ids, issued],
        issued_at=work.now,
        supersedes=checkpoint.receipt_id,
    )
    await checkpoints.mark_checkpoint(work.connection, checkpoint.checkpoint_id, receipt_id=receipt_id)
    return await checkpoints.find_receipt(work.connection, action_id, days, checkpoint.revision)


async def _granted(connection: Any, action_id: UUID, days: int, *, lock: bool = False) -> Checkpoint:
    """The checkpoint, which the caller's grant must be for. Raises Denied (GRANT_INVALID)."""
    checkpoint = await checkpoints.find_checkpoint(connection, action_id, days, lock=lock)
    grant = current().grant
    if grant is None or checkpoint is None or grant.subject != str(checkpoint.checkpoint_id):
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant is for another checkpoint.")
    return checkpoint


async def _evidence(connection: Any, checkpoint: Checkpoint) -> Evidence:
    action_id = checkpoint.action_id
    approvals = await actions.list_approvals(connection, [action_id])
    steps = await actions.list_steps(connection, [action_id])
    return Evidence(
        await actions.get_action(connection, action_id),
        [approval for approval in approvals if approval.counts],
        [step for step in steps if step.state is StepState.CONFIRMED],
        checkpoint,
        await actions.get_baseline(connection, action_id),
        await checkpoints.get_measurement(connection, checkpoint.checkpoint_id),
    )


@dataclass(frozen=True, slots=True)
class Proven:
    """A receipt's row, and the bundle that proves it; until enough witnesses have cosigned, none, but how many did."""

    row: Any
    bundle: str = ""
    cosigned: int = 0
    quorum: int = 0

    @property
    def is_final(self) -> bool:
        """Whether the receipt can be proved to others."""
        return bool(self.bundle)


async def get_receipt(reader: Store, log: Log, receipt_id: UUID) -> Proven:
    """A receipt, and once it is final everything that proves it offline: the same bytes from then on, whatever becomes
    of the log's old shards. Raises NotFound, or what the log raises.
    """
    async with reader.read() as connection:
        row = await checkpoints.get_receipt(connection, receipt_id)
        kept = await checkpoints.find_final(connection, receipt_id)
    if kept is not None:
        return Proven(row, kept)
    try:
        made = bundle_of(row, *await log.prove(row.event_ids))
    except Unavailable as problem:
        if problem.reason != Reason.ERROR_REASON_CHECKPOINT_PENDING:
            raise
        # It was issued, and nothing can change that; what is missing is others' word for it.
        counts = (int(problem.metadata.get(name) or 0) for name in ("cosigned", "quorum"))
        return Proven(row, "", *counts)
    async with reader.begin() as work:
        await checkpoints.insert_final(work.connection, work.organization_id, receipt_id, made)
        # Of two that read it at once, one was the first.
        return Proven(row, await checkpoints.find_final(work.connection, receipt_id) or made)


async def forget_finals(writer: Store, organization_id: UUID, event_ids: Sequence[UUID]) -> None:
    """The log erased these events: what they said is kept in no receipt, which can't be proved any more."""
    async with writer.begin(organization_id) as work:
        await checkpoints.delete_finals(work.connection, event_ids)


def bundle_of(row: Any, proofs: Sequence[Proof], checkpoint: str, manifest: str) -> str:
    """The bundle of a receipt's row: its documents, and its events as the log proves them."""
    documents = {
        "receipt": bytes(row.document),
        "plan": bytes(row.plan),
        "baseline": bytes(row.baseline),
        "measurement": bytes(row.measurement),
    }
    return bundle(documents, bytes(row.envelope), proofs, checkpoint, manifest)


async def list_receipts(reader: Store, before: UUID | None, limit: int, action_id: UUID | None) -> Sequence[Any]:
    """Receipts, newest first; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await checkpoints.list_receipts(connection, before, limit + 1, action_id)


async def get_ledger(reader: Store, identity: Identity) -> Ledger:
    """What was verified, is pending, came back or stayed open. Raises Problem."""
    currency = await identity.reporting_currency(current().organization())
    async with reader.read() as connection:
        lines, others = await checkpoints.read_ledger(connection, currency)
        open_actions, executed = await checkpoints.count_actions(connection)
    return Ledger(summarize(lines), currency, open_actions, executed, others)
