"""Says what the in-toto statement about a receipt must be: nothing of it is left to choose."""

from __future__ import annotations

from typing import Any

from recoup_verify.documents import Disproved, canonical, shape, shaped
from recoup_verify.savings.papers import Papers

_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://recoup.invalid/receipt/v1"
_COPIED = ("organization_id", "action_id", "action_type", "plan_sha256", "decision")
_AMOUNTS = ("economic", "cash", "provisional", "method")
_DIGEST = shape(texts="sha256")
_IN_TOTO = shape(texts="_type predicateType", lists="subject", objects="predicate")
_SUBJECT = shape(texts="name", objects="digest")
_BATCH = ("batch_id", "billing_period", "sha256", "provenance", "object", "object_version")


def signed_digest(statement: Any) -> str:
    """The digest of the receipt that a statement is about. Raises CannotTell, Disproved."""
    found = shaped(statement, "the statement", _IN_TOTO)
    if len(found["subject"]) != 1:
        raise Disproved("the statement must have one subject")
    subject = shaped(found["subject"][0], "the statement's subject", _SUBJECT)
    return str(shaped(subject["digest"], "the subject's digest", _DIGEST)["sha256"])


def expected_statement(papers: Papers) -> bytes:
    """The one statement that these documents allow, in its canonical form."""
    receipt = papers.receipt
    predicate = {
        **{name: receipt[name] for name in (*_COPIED, *_AMOUNTS)},
        "approvals": [{name: each[name] for name in ("actor", "role", "at")} for each in receipt["approvals"]],
        "baseline_window": {"from_day": papers.baseline["days"][0], "to_day": papers.baseline["days"][-1]},
        "observed_window": {name: papers.measurement[name] for name in ("from_day", "to_day")},
        "inputs": inputs(papers),
        "event_ids": papers.event_ids,
    }
    subject = {"name": f"receipts/{receipt['receipt_id']}", "digest": {"sha256": papers.receipt_sha256}}
    return canonical({"_type": _STATEMENT, "subject": [subject], "predicateType": _PREDICATE, "predicate": predicate})


def inputs(papers: Papers) -> list[dict[str, Any]]:
    """The batches of baseline and measurement, each id once, by period and id. Raises Disproved."""
    found: dict[str, dict[str, Any]] = {}
    for batch in (*papers.baseline["batches"], *papers.measurement["batches"]):
        said = {name: batch[name] for name in _BATCH}
        if found.setdefault(batch["batch_id"], said) != said:
            raise Disproved(f"baseline and measurement differ on the batch {batch['batch_id']}")
    return sorted(found.values(), key=lambda batch: (batch["billing_period"], batch["batch_id"]))
