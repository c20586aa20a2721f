"""Says what the in-toto statement about a receipt must be: nothing of it is left to choose."""

from __future__ import annotations

from typing import Any

from recoup_verify.documents import Disproved, canonical, shape, shaped
from recoup_verify.receipts.papers import Papers

_STATEMENT, _PREDICATE = "https://in-toto.io/Statement/v1", "https://recoup.invalid/receipt/v1"
_SUBJECT = shape(texts="name", digest=shape(texts="sha256"))
_IN_TOTO = shape(texts="_type predicateType", objects="predicate", subject=[_SUBJECT])
_COPIED = "organization_id action_id action_type plan_sha256 decision economic cash provisional method"
_BATCH = "batch_id billing_period sha256 provenance object object_version"


def signed_digest(statement: Any) -> str:
    """The digest of the receipt that a statement is about. Raises CannotTell, Disproved."""
    subjects = shaped(statement, "the statement", _IN_TOTO)["subject"]
    if len(subjects) != 1:
        raise Disproved("the statement must have one subject")
    return str(subjects[0]["digest"]["sha256"])


def expected_statement(papers: Papers) -> bytes:
    """The one statement that these documents allow, in its canonical form."""
    receipt = papers.receipt
    predicate = {
        **{name: receipt[name] for name in _COPIED.split()},
        "approvals": [{name: each[name] for name in ("actor", "role", "at")} for each in receipt["approvals"]],
        "baseline_window": papers.baseline_window,
        "observed_window": papers.observed_window,
        "inputs": inputs(papers),
        "event_ids": papers.event_ids,
    }
    subject = {"name": f"receipts/{receipt['receipt_id']}", "digest": {"sha256": papers.receipt_sha256}}
    return canonical({"_type": _STATEMENT, "subject": [subject], "predicateType": _PREDICATE, "predicate": predicate})


def inputs(papers: Papers) -> list[dict[str, Any]]:
    """The batches of baseline and measurement, each id once, by period and id. Raises Disproved."""
    found: dict[str, dict[str, Any]] = {}
    for batch in (*papers.baseline["batches"], *papers.measurement["batches"]):
        said = {name: batch[name] for name in _BATCH.split()}
        if found.setdefault(batch["batch_id"], said) != said:
            raise Disproved(f"baseline and measurement differ on the batch {batch['batch_id']}")
    return sorted(found.values(), key=lambda batch: (batch["billing_period"], batch["batch_id"]))
