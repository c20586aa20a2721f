"""Says in plain words, and as facts for programs, what was proved and what was not. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from recoup_verify.documents import read_file, shown
from recoup_verify.log import Trust
from recoup_verify.receipts import receipt as receipts
from recoup_verify.receipts.agreement import STEPS
from recoup_verify.receipts.papers import Papers
from recoup_verify.receipts.receipt import ProvedReceipt
from recoup_verify.receipts.statement import inputs
from recoup_verify.receipts.trail import person

_NOT_PROVED = (
    "that the rows are what the provider billed, and all of it: fetch each input by object and version, and compare"
    " its SHA-256",
    "that the sums behind the unit prices are those of the whole bill",
    "that the cloud really is as the log says",
    "that no later receipt supersedes this one",
)
_NOT_PROVED_OF_STEPS = "that these steps are all of such an action: its type is unknown to this verifier"
_NOT_PROVED_OF_UPLOADS = "anything of the inputs that are USER_UPLOADED: a person of the organization vouches for them"
_MEANING: Mapping[str, str] = {
    "VERIFIED": "the money stopped being spent",
    "PARTIAL": "less was saved than estimated, but more than nothing",
    "NOT_REALIZED": "no saving can be told from nothing",
    "NEGATIVE": "it costs more than before",
    "REGRESSED": "the resource, or its cost, came back",
    "INCONCLUSIVE": "the data doesn't allow a statement",
    "PENDING": "the bill isn't complete yet",
}


def told(files: Sequence[str], trust: Trust) -> tuple[list[str], dict[str, Any]]:
    """What is proved of a receipt, in words and as facts. Raises Disproved, CannotTell."""
    proved = receipts.check_receipt(read_file(files[0], receipts.MAX_BYTES), trust)
    return receipt_lines(proved), receipt_facts(proved)


def receipt_facts(proved: ProvedReceipt) -> dict[str, Any]:
    """What was proved of a receipt, and what wasn't."""
    papers, (request, *others, issue) = proved
    measurement, result = papers.measurement, papers.measurement["result"]
    approvals = zip(papers.receipt["approvals"], others, strict=False)
    return {
        "origin": issue.head.origin,
        "receipt": papers.receipt,
        "requested_by_person": person(request),
        "approvals": [{**said, "person": person(logged)} for said, logged in approvals],
        "baseline_window": papers.baseline_window,
        "observed_window": papers.observed_window,
        "estimate": measurement["estimate"],
        "confirmed_gone": measurement["confirmed_gone"],
        "leakage": [leak["resource"] for leak in measurement["leakage"]],
        "cv_rmse": result["cv_rmse"],
        "model": result["model"],
        "inputs": inputs(papers),
        "issue": {"index": issue.position, "size": issue.head.size},
        "cosigned": list(issue.head.cosigned),
        "not_proved": not_proved(proved),
    }


def not_proved(proved: ProvedReceipt) -> list[str]:
    """What nobody may read into a proved receipt."""
    papers, head = proved.papers, proved.trail[-1].head
    found = [
        *_NOT_PROVED,
        f"that the log's operator, who holds its key, shows everybody the same log: {head.countersigned}",
    ]
    if proved.trail[0].head.shard != head.shard:
        found.append("that the shards of the log continue each other: evidence bundles show it")
    if any(batch["provenance"] == "USER_UPLOADED" for batch in inputs(papers)):
        found.append(_NOT_PROVED_OF_UPLOADS)
    if papers.receipt["action_type"] not in STEPS:
        found.append(_NOT_PROVED_OF_STEPS)
    return found


def receipt_lines(proved: ProvedReceipt) -> list[str]:
    """What was proved of a receipt, in words."""
    return [shown(line) for line in _all_lines(proved)]


def _all_lines(proved: ProvedReceipt) -> Iterator[str]:
    papers, issue = proved.papers, proved.trail[-1]
    receipt = papers.receipt
    yield f"PROVED: receipt {receipt['receipt_id']} of organization {receipt['organization_id']}."
    yield f"  log        {issue.head.origin}; issued {receipt['issued_at']}, leaf {issue.position} of {issue.head.size}"
    yield f"  what       {receipt['action_type']} on {_resource(receipt['resource'])}, action {receipt['action_id']}"
    yield from _people(proved)
    for step in papers.steps:
        made = f", which gave {step['result_id']}" if step["result_id"] else ""
        yield f"  done       {step['name']}: intended {step['intended_at']}, confirmed {step['confirmed_at']}{made}"
    yield from _windows(papers)
    yield from _amounts(papers)
    for batch in inputs(papers):
        version = f" version {batch['object_version']}" if batch["object_version"] else ""
        yield f"  input      {batch['billing_period']} {batch['provenance']} {batch['object']}{version}"
        yield f"             SHA-256 {batch['sha256']}"
    for words in not_proved(proved):
        yield f"Not proved: {words}."


def _people(proved: ProvedReceipt) -> Iterator[str]:
    receipt, (request, *others) = proved.papers.receipt, proved.trail
    requested = receipt["requested"]
    who = f"{requested['actor']} as {requested['role']}, person {person(request)}"
    yield f"  requested  {requested['at']} by {who}"
    for approval, logged in zip(receipt["approvals"], others, strict=False):
        who = f"{approval['actor']} as {approval['role']}, another person: {person(logged)}"
        yield f"  approved   {approval['at']} by {who}"
    yield f"  plan       SHA-256 {receipt['plan_sha256']}, the one that was requested and approved"


def _windows(papers: Papers) -> Iterator[str]:
    days, measurement = papers.baseline["days"], papers.measurement
    executed = date.fromisoformat(papers.receipt["execution"]["executed_at"][:10])
    before = (executed - date.fromisoformat(days[-1])).days
    yield f"  baseline   {len(days)} days from {days[0]} to {days[-1]}, {before} days before the execution"
    gone = "; the resource was confirmed gone" if measurement["confirmed_gone"] else ""
    yield f"  observed   {measurement['days']} days from {measurement['from_day']} to {measurement['to_day']}{gone}"
    for leak in measurement["leakage"]:
        yield f"  netted     what {_resource(leak['resource'])} cost"


def _amounts(papers: Papers) -> Iterator[str]:
    receipt, result = papers.receipt, papers.measurement["result"]
    yield f"  decision   {receipt['decision']}: {_MEANING[receipt['decision']]}, by {receipt['method']}"
    currency = receipt["economic"]["currency"]
    if result["economic"]:
        yield f"  economic   {receipt['economic']['amount']} {currency} (EffectiveCost) in the {receipt['days']} days"
        yield f"             90 % interval {receipt['interval']['low']} to {receipt['interval']['high']} {currency}"
        yield f"  cash       {receipt['cash']['amount']} {currency} (BilledCost)"
    else:
        yield "  amounts    none: days of the bill are missing, or the currency changed"
    estimate = papers.measurement["estimate"]
    yield f"  estimate   {estimate['amount']} {estimate['currency']} a month, as approved"
    yield f"  model      {result['model']}, CV(RMSE) {result['cv_rmse'] or 'infinite'}"
    open_end = "provisional: a billing period of the window is open" if receipt["provisional"] else "final"
    supersedes = f"; supersedes {receipt['supersedes']}" if receipt["supersedes"] else ""
    yield f"  standing   {open_end}{supersedes}"


def _resource(resource: Mapping[str, str]) -> str:
    return " ".join(value for name, value in sorted(resource.items()) if name in ("id", "region", "type", "account"))
