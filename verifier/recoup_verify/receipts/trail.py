"""Checks that the log holds each event that a receipt names, in its order, saying what the receipt says of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from recoup_verify.documents import CannotTell, Disproved, UnknownVersion, read_canonical
from recoup_verify.event import check_commitment, read_leaf
from recoup_verify.log import Head, Inclusion, Trust, check_quorum, parse_proof, verified_head
from recoup_verify.savings.bundle import Bundle, LoggedEvent
from recoup_verify.savings.papers import Papers, digest, moment_of
from recoup_verify.tree import check_inclusion, leaf_hash

PRODUCER = "actions"
# How far the clocks of two processes may be apart.
_SKEW = timedelta(minutes=1)
_TEXTS = ("event_id", "organization_id", "action", "target", "result", "actor", "responsible_person", "role")


class Expected(NamedTuple):
    """What an event must be. `said` are fields of its payload, `metadata` some of its metadata."""

    name: str
    event_id: str
    action: str
    target: str
    at: str
    said: Mapping[str, str] = {}
    metadata: Mapping[str, str] = {}


class Logged(NamedTuple):
    """An event that the log holds."""

    leaf: Mapping[str, Any]
    leaf_hash: bytes
    payload: Mapping[str, Any]
    position: int
    head: Head

    @property
    def at(self) -> datetime:
        """When it happened, as it says itself."""
        return moment_of(self.payload["occurred_at"], "its time")

    @property
    def person(self) -> str:
        """Who answers for it: a person's id, whatever the actor was."""
        return str(self.payload["responsible_person"])


class Trail(NamedTuple):
    """The events of a receipt, checked."""

    request: Logged
    approvals: Sequence[Logged]
    issue: Logged


def check_trail(bundle: Bundle, papers: Papers, statement: bytes, trust: Trust) -> Trail:
    """The events that prove a receipt. Raises Disproved, CannotTell."""
    expected = [*_expected(papers), _issue(bundle, papers, statement)]
    if len(bundle.events) != len(expected):
        raise Disproved(f"the bundle has {len(bundle.events)} events, but the receipt names {len(expected)}")
    head_of = cache(lambda note: verified_head(note, trust))
    found = []
    for event, wanted in zip(bundle.events, expected, strict=True):
        with _naming(wanted.name):
            inclusion = parse_proof(event.proof)
            found.append(_logged(event, inclusion, head_of(inclusion.note)))
            _check(found[-1], wanted, papers.receipt["organization_id"])
    _check_chain(found)
    for head in {event.head.shard: event.head for event in found}.values():
        check_quorum(head, trust)
    _check_moments(found, [wanted.name for wanted in expected], local=trust.key.is_local)
    approvals = found[1 : 1 + len(papers.receipt["approvals"])]
    _check_people(found[0], approvals)
    return Trail(found[0], approvals, found[-1])


def _expected(papers: Papers) -> Iterator[Expected]:
    """The events before the issue, in order."""
    receipt, target = papers.receipt, f"actions/{papers.receipt['action_id']}"
    plan = {"plan_hash": receipt["plan_sha256"]}
    requested, decided = receipt["requested"], receipt["decided"]
    yield _by_somebody("the request", "actions.action.request", target, requested, plan)
    for number, approval in enumerate(receipt["approvals"], 1):
        yield _by_somebody(f"approval {number}", "actions.action.approve", target, approval, plan)
    for step in papers.steps:
        name, done = step["name"], {**plan, "step": step["name"]}
        intent, outcome = (
            (step["intent_event_id"], step["intended_at"]),
            (step["outcome_event_id"], step["confirmed_at"]),
        )
        yield Expected(f"the intent of {name}", intent[0], "actions.step.intend", target, intent[1], metadata=done)
        result = {**done, "result_id": step["result_id"]}
        yield Expected(
            f"the outcome of {name}", outcome[0], "actions.step.confirm", target, outcome[1], metadata=result
        )
    metadata = {"days": str(receipt["days"]), "decision": receipt["decision"]}
    metadata["measurement_sha256"] = receipt["measurement_sha256"]
    event_id, at = decided["event_id"], decided["at"]
    yield Expected("the decision", event_id, "actions.checkpoint.decide", target, at, metadata=metadata)


def _by_somebody(name: str, action: str, target: str, done: Mapping[str, Any], metadata: Mapping[str, str]) -> Expected:
    said = {"actor": done["actor"], "role": done["role"]}
    return Expected(name, done["event_id"], action, target, done["at"], said, metadata)


def _issue(bundle: Bundle, papers: Papers, statement: bytes) -> Expected:
    """The issue: no document can name its event, so it is known by what it says."""
    metadata = {"receipt_sha256": papers.receipt_sha256, "statement_sha256": digest(statement)}
    target = f"receipts/{papers.receipt['receipt_id']}"
    return Expected("the issue", "", "actions.receipt.issue", target, papers.receipt["issued_at"], metadata=metadata)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say which event it is that something is wrong with."""
    try:
        yield
    except UnknownVersion:
        raise
    except (Disproved, CannotTell) as error:
        raise Disproved(f"the event of {name}: {error}") from error


def _logged(event: LoggedEvent, inclusion: Inclusion, head: Head) -> Logged:
    """Bytes are read as documents only after they're proved."""
    check_inclusion(event.leaf, inclusion.position, inclusion.hashes, head.size, head.root)
    leaf = read_leaf(event.leaf)
    check_commitment(event.payload, event.salt, leaf)
    payload = read_canonical(event.payload, "the payload")
    if not isinstance(payload, dict) or not isinstance(payload.get("metadata"), dict):
        raise Disproved("the payload isn't an event's")
    if any(not isinstance(payload.get(name), str) for name in (*_TEXTS, "occurred_at")):
        raise Disproved("the payload lacks a text that events have")
    return Logged(leaf, leaf_hash(event.leaf), payload, inclusion.position, head)


def _check(event: Logged, wanted: Expected, organization_id: str) -> None:
    leaf, payload = event.leaf, event.payload
    if leaf["producer"] != PRODUCER:
        raise Disproved(f"{leaf['producer']} wrote it, not {PRODUCER}")
    if leaf["organization_id"] != organization_id or payload["organization_id"] != organization_id:
        raise Disproved("it is of another organization")
    if payload["event_id"] != leaf["event_id"] or wanted.event_id not in ("", leaf["event_id"]):
        raise Disproved("it isn't the event that the receipt names")
    said = {"action": wanted.action, "target": wanted.target, "result": "OK", "occurred_at": wanted.at, **wanted.said}
    for name, value in said.items():
        if payload[name] != value:
            raise Disproved(f"its {name} isn't what the receipt says")
    for name, value in wanted.metadata.items():
        if payload["metadata"].get(name) != value:
            raise Disproved(f"its {name} isn't what the receipt says")
    moment_of(wanted.at, "its time")


def _check_chain(events: Sequence[Logged]) -> None:
    """One head a shard, one order, and the organization's own chain where two events follow each other in it."""
    heads = {event.head.shard: event.head for event in events}
    if any(event.head != heads[event.head.shard] for event in events):
        raise Disproved("the proofs don't all lead to one checkpoint, so these events may never have stood in one log")
    for earlier, later in itertools.pairwise(events):
        before, after = earlier.leaf["org_seq"], later.leaf["org_seq"]
        if type(before) is not int or type(after) is not int:
            raise Disproved("the log's leaves don't number the organization's events")
        places = [(event.head.shard, event.position) for event in (earlier, later)]
        if places[1] <= places[0] or after <= before:
            raise Disproved("the events aren't in the order in which the log recorded them")
        if after == before + 1 and later.leaf["prev_leaf"] != earlier.leaf_hash.hex():
            raise Disproved("the organization's chain of events is broken between two that follow each other")


def _check_moments(events: Sequence[Logged], names: Sequence[str], *, local: bool) -> None:
    """What comes later in the log came later in time, and nothing came before it happened, but for the clocks' skew.

    On somebody's own machine the events' clock can be moved, and the log's can't: nothing follows from it there.
    """
    latest = events[0].at
    for event, name in zip(events, names, strict=True):
        if event.at < latest - _SKEW:
            raise Disproved(f"the event of {name}: it says that it happened before what it follows in the log")
        if not local and event.at > moment_of(event.leaf["appended_at"], "appended_at") + _SKEW:
            raise Disproved(f"the event of {name}: it says that it happened after the log recorded it")
        latest = max(latest, event.at)


def _check_people(request: Logged, approvals: Sequence[Logged]) -> None:
    if not request.person or not all(approval.person for approval in approvals):
        raise Disproved("nobody answers for the request or an approval")
    if any(approval.person == request.person for approval in approvals):
        raise Disproved("whoever requested the action approved it too")
    if len({approval.person for approval in approvals}) != len(approvals):
        raise Disproved("two approvals are of one person")
