"""Receipts: the document, the statement that is signed over it, the bundle that proves both. Pure.

Owns the producer's side of verifier/FORMAT.md. The verifier has its own; nothing is shared but that page.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
import rfc8785

from services.actions.model.action import Action, Approval, Checkpoint, Step

RECEIPT_FORMAT = 1
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://recoup.invalid/receipt/v1"
_BATCH = ("batch_id", "billing_period", "sha256", "provenance", "object", "object_version")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a receipt rests on: an executed action with all that led to it, and one decided checkpoint."""

    action: Action
    approvals: Sequence[Approval]
    steps: Sequence[Step]
    checkpoint: Checkpoint
    baseline: bytes
    measurement: bytes

    @property
    def event_ids(self) -> list[UUID]:
        """The events that the receipt names, in the order of FORMAT.md; that of its own issue comes after them."""
        assert self.checkpoint.decide_event_id is not None
        outcomes = [event for step in self.steps for event in (step.intent_event_id, step.outcome_event_id) if event]
        approved = [approval.event_id for approval in self.approvals]
        return [self.action.request_event_id, *approved, *outcomes, self.checkpoint.decide_event_id]


@dataclass(frozen=True, slots=True)
class Proof:
    """One event as the log proves it: leaf and payload are documents, `hashes` lead from leaf to checkpoint.

    `checkpoint` is that of the event's shard, where it isn't the one of all.
    """

    leaf: bytes
    payload: bytes
    salt: bytes
    index: int
    hashes: Sequence[bytes]
    checkpoint: str = ""


def moment(at: datetime | None) -> str:
    """RFC 3339 in UTC with microseconds, as receipts and events spell moments."""
    assert at is not None
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def receipt_document(evidence: Evidence, receipt_id: UUID, issued_at: datetime, supersedes: UUID | None) -> bytes:
    """The receipt: RFC 8785 JSON."""
    action, checkpoint = evidence.action, evidence.checkpoint
    measurement = orjson.loads(evidence.measurement)
    result = measurement["result"]
    last = evidence.steps[-1]
    return rfc8785.dumps(
        {
            "v": RECEIPT_FORMAT,
            "receipt_id": str(receipt_id),
            "organization_id": str(action.organization_id),
            "action_id": str(action.action_id),
            "action_type": action.kind.action_type,
            "resource": action.plan.resource.document(),
            "days": checkpoint.days,
            "issued_at": moment(issued_at),
            "supersedes": str(supersedes or ""),
            "plan_sha256": action.plan.plan_hash,
            "baseline_sha256": digest(evidence.baseline),
            "measurement_sha256": digest(evidence.measurement),
            "requested": {
                "actor": action.requested_by,
                "role": action.requester_role,
                "at": moment(action.requested_at),
                "event_id": str(action.request_event_id),
            },
            "approvals": [
                {"actor": a.decided_by, "role": a.role, "at": moment(a.decided_at), "event_id": str(a.event_id)}
                for a in evidence.approvals
            ],
            "execution": {"executed_at": moment(last.confirmed_at), "steps": [_step(step) for step in evidence.steps]},
            "decided": {"at": moment(checkpoint.decided_at), "event_id": str(checkpoint.decide_event_id)},
            "decision": result["decision"],
            "economic": {"amount": result["economic"], "currency": measurement["currency"]},
            "cash": {"amount": result["cash"], "currency": measurement["currency"]},
            "interval": {"low": result["interval_low"], "high": result["interval_high"]},
            "provisional": measurement["provisional"],
            "method": measurement["method"],
        }
    )


def _step(step: Step) -> dict[str, str]:
    return {
        "name": step.name,
        "result_id": step.result_id,
        "intended_at": moment(step.intended_at),
        "confirmed_at": moment(step.confirmed_at),
        "intent_event_id": str(step.intent_event_id),
        "outcome_event_id": str(step.outcome_event_id),
    }


def statement(receipt: bytes, baseline: bytes, measurement: bytes, event_ids: Sequence[UUID]) -> bytes:
    """The in-toto statement over a receipt: it follows from the documents, nothing of it is chosen."""
    said, before, after = orjson.loads(receipt), orjson.loads(baseline), orjson.loads(measurement)
    return rfc8785.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": f"receipts/{said['receipt_id']}", "digest": {"sha256": digest(receipt)}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                **{name: said[name] for name in ("organization_id", "action_id", "action_type", "plan_sha256")},
                "approvals": [{name: a[name] for name in ("actor", "role", "at")} for a in said["approvals"]],
                "baseline_window": {"from_day": before["days"][0], "to_day": before["days"][-1]},
                "observed_window": {"from_day": after["from_day"], "to_day": after["to_day"]},
                **{name: said[name] for name in ("decision", "economic", "cash", "provisional", "method")},
                "inputs": _inputs(before["batches"], after["batches"]),
                "event_ids": [str(event_id) for event_id in event_ids],
            },
        }
    )


def _inputs(*batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each batch once, by period and id."""
    known = {batch["batch_id"]: {name: batch[name] for name in _BATCH} for several in batches for batch in several}
    return sorted(known.values(), key=lambda batch: (batch["billing_period"], batch["batch_id"]))


def pre_authentication(payload: bytes) -> bytes:
    """What DSSE v1 signs."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def envelope(payload: bytes, key_id: str, signature: bytes) -> bytes:
    """The DSSE envelope: RFC 8785 JSON."""
    return rfc8785.dumps(
        {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"keyid": key_id, "sig": base64.b64encode(signature).decode()}],
        }
    )


def tlog_proof(proof: Proof, checkpoint: str) -> str:
    """A C2SP tlog-proof: the index, the hashes, and the signed checkpoint that they lead to."""
    hashes = "".join(f"{base64.b64encode(each).decode()}\n" for each in proof.hashes)
    return f"c2sp.org/tlog-proof@v1\nindex {proof.index}\n{hashes}\n{checkpoint}"


def bundle(
    evidence_documents: Mapping[str, bytes], signed: bytes, proofs: Sequence[Proof], checkpoint: str, manifest: str
) -> str:
    """The file that recoup-verify checks. `evidence_documents`: receipt, plan, baseline and measurement."""
    document = {
        "type": "recoup-receipt-bundle",
        "v": 1,
        "envelope": orjson.loads(signed),
        **{name: content.decode() for name, content in evidence_documents.items()},
        "events": [
            {
                "leaf": proof.leaf.decode(),
                "payload": proof.payload.decode(),
                "salt": base64.b64encode(proof.salt).decode(),
                "proof": tlog_proof(proof, proof.checkpoint or checkpoint),
            }
            for proof in proofs
        ],
        "key_manifest": manifest,
    }
    return rfc8785.dumps(document).decode()


def digest(document: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(document).hexdigest()
