"""Checks that the log holds each event that a receipt names, in its order, saying what the receipt says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from recoup_verify.documents import CannotTell, Disproved, UnknownVersion, decode
from recoup_verify.event import Proven, proven
from recoup_verify.log import Head, Trust, parse_proof, verified_head
from recoup_verify.receipts.papers import Papers, digest, moment_of

PRODUCER = "actions"
# How far the clocks of two processes may be apart.
_SKEW = timedelta(minutes=1)
_TEXTS = "event_id organization_id action target result actor responsible_person role occurred_at"


class Expected(NamedTuple):
    """What an event must be. `said` are fields of its payload, `metadata` some of its metadata."""

    name: str
    event_id: str
    said: Mapping[str, str]
    metadata: Mapping[str, str]


def check_trail(events: Sequence[Mapping[str, str]], papers: Papers, statement: bytes, trust: Trust) -> list[Proven]:
    """The events that prove a receipt, in FORMAT.md's order. Raises Disproved, CannotTell."""
    expected = list(_expected(papers, statement))
    if len(events) != len(expected):
        raise Disproved(f"the bundle has {len(events)} events, but the receipt names {len(expected)}")
    head_of = cache(lambda note: verified_head(note, trust))
    found = []
    for event, wanted in zip(events, expected, strict=True):
        try:
            inclusion = parse_proof(event["proof"])
            leaf, payload, salt = event["leaf"].encode(), event["payload"].encode(), decode(event["salt"], "its salt")
            found.append(proven(leaf, payload, salt, inclusion, head_of(inclusion.note)))
            _check(found[-1], wanted, papers.receipt["organization_id"])
        except UnknownVersion:
            raise
        except (Disproved, CannotTell) as error:
            raise Disproved(f"the event of {wanted.name}: {error}") from error
    _check_chain(found)
    for head in {event.head.shard: event.head for event in found}.values():
        _check_quorum(head, trust)
    _check_moments(found, [wanted.name for wanted in expected], local=trust.key.is_local)
    _check_people([person(event) for event in found[: 1 + len(papers.receipt["approvals"])]])
    return found


def person(event: Proven) -> str:
    """Who answers for an event: a person's id, whatever the actor was."""
    return str(event.payload["responsible_person"])


def _expected(papers: Papers, statement: bytes) -> Iterator[Expected]:
    """The events in their order. No document can name that of the issue, so it is known by what it says."""
    receipt = papers.receipt

    def event(name: str, action: str, at: str, event_id: str, metadata: Mapping[str, str], **said: str) -> Expected:
        common = {"action": f"actions.{action}", "target": f"actions/{receipt['action_id']}", "result": "OK"}
        return Expected(name, event_id, {**common, "occurred_at": at, **said}, metadata)

    plan = {"plan_hash": receipt["plan_sha256"]}
    people = [("the request", "action.request", receipt["requested"])]
    people += [(f"approval {n}", "action.approve", each) for n, each in enumerate(receipt["approvals"], 1)]
    for name, action, done in people:
        yield event(name, action, done["at"], done["event_id"], plan, actor=done["actor"], role=done["role"])
    for step in papers.steps:
        name, done = step["name"], {**plan, "step": step["name"]}
        yield event(f"the intent of {name}", "step.intend", step["intended_at"], step["intent_event_id"], done)
        done = {**done, "result_id": step["result_id"]}
        yield event(f"the outcome of {name}", "step.confirm", step["confirmed_at"], step["outcome_event_id"], done)
    decision = {name: str(receipt[name]) for name in ("days", "decision", "measurement_sha256")}
    decided = receipt["decided"]
    yield event("the decision", "checkpoint.decide", decided["at"], decided["event_id"], decision)
    issued = {"receipt_sha256": papers.receipt_sha256, "statement_sha256": digest(statement)}
    target = f"receipts/{receipt['receipt_id']}"
    yield event("the issue", "receipt.issue", receipt["issued_at"], "", issued, target=target)


def _check(event: Proven, wanted: Expected, organization_id: str) -> None:
    leaf, payload = event.leaf, event.payload
    if any(not isinstance(payload.get(name), str) for name in _TEXTS.split()):
        raise Disproved("the payload lacks a text that events have")
    if leaf["producer"] != PRODUCER:
        raise Disproved(f"{leaf['producer']} wrote it, not {PRODUCER}")
    if leaf["organization_id"] != organization_id:
        raise Disproved("it is of another organization")
    if wanted.event_id not in ("", leaf["event_id"]):
        raise Disproved("it isn't the event that the receipt names")
    for said, expected in ((payload, wanted.said), (payload.get("metadata", {}), wanted.metadata)):
        for name, value in expected.items():
            if said.get(name) != value:
                raise Disproved(f"its {name} isn't what the receipt says")
    moment_of(payload["occurred_at"], "its time")


def _check_chain(events: Sequence[Proven]) -> None:
    """One head a shard, one order, and the organization's own chain where two events follow each other in it."""
    heads = {event.head.shard: event.head for event in events}
    if any(event.head != heads[event.head.shard] for event in events):
        raise Disproved("the proofs don't all lead to one checkpoint, so these events may never have stood in one log")
    for earlier, later in pairwise(events):
        before, after = earlier.leaf["org_seq"], later.leaf["org_seq"]
        places = [(event.head.shard, event.position) for event in (earlier, later)]
        if places[1] <= places[0] or after <= before:
            raise Disproved("the events aren't in the order in which the log recorded them")
        if after == before + 1 and later.leaf["prev_leaf"] != earlier.digest.hex():
            raise Disproved("the organization's chain of events is broken between two that follow each other")


def _check_quorum(head: Head, trust: Trust) -> None:
    """Raise Disproved unless as many of the key manifest's witnesses cosigned the head as it asks for."""
    count = sum(each.name in head.cosigned for each in trust.listed)
    if count < trust.quorum:
        raise Disproved(
            f"the checkpoint is cosigned by {count} witnesses, but the key manifest asks for {trust.quorum}"
        )


def _check_moments(events: Sequence[Proven], names: Sequence[str], *, local: bool) -> None:
    """What comes later in the log came later in time, and nothing came before it happened, but for the clocks' skew.

    On somebody's own machine the events' clock can be moved, and the log's can't: nothing follows from it there.
    """
    moments = [moment_of(event.payload["occurred_at"], "its time") for event in events]
    for number, (event, name, at) in enumerate(zip(events, names, moments, strict=True), 1):
        if at < max(moments[:number]) - _SKEW:
            raise Disproved(f"the event of {name}: it says that it happened before what it follows in the log")
        if not local and at > moment_of(event.leaf["appended_at"], "appended_at") + _SKEW:
            raise Disproved(f"the event of {name}: it says that it happened after the log recorded it")


def _check_people(people: Sequence[str]) -> None:
    """Who requested, and who approved, each a person and each another one."""
    requested, *approved = people
    if not all(people):
        raise Disproved("nobody answers for the request or an approval")
    if requested in approved:
        raise Disproved("whoever requested the action approved it too")
    if len({*approved}) != len(approved):
        raise Disproved("two approvals are of one person")
