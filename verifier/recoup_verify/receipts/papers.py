"""Reads the four documents of a bundle, each only after its digest is the one that was signed.

Owns their shapes; whether they agree with each other is checked in `agreement`, with the log in `trail`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, NamedTuple

from recoup_verify.documents import CannotTell, Disproved, UnknownVersion, read_canonical, shape, shaped
from recoup_verify.savings.documents import BASELINE, MEASUREMENT, METHOD

_MAX_TEXT = 4_096
_MOMENT = re.compile(r"2[0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{6})?Z")
_ID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MONEY, _DONE = shape(texts="amount currency"), shape(texts="actor role at event_id")
_STEP = shape(texts="name result_id intended_at confirmed_at intent_event_id outcome_event_id")
_RECEIPT = shape(
    numbers="v days",
    texts="receipt_id organization_id action_id action_type issued_at supersedes plan_sha256 baseline_sha256 "
    "measurement_sha256 decision method",
    flags="provisional",
    objects="resource",
    requested=_DONE,
    approvals=[_DONE],
    execution=shape(texts="executed_at", steps=[_STEP]),
    decided=shape(texts="at event_id"),
    economic=_MONEY,
    cash=_MONEY,
    interval=shape(texts="low high"),
)
# The plan's other fields are covered by its hash, and nobody's to judge here.
_PLAN = shape(numbers="v", texts="organization_id action_id action_type", objects="resource measurement")
_PLANNED = shape(texts="method baseline_sha256", flags="removes_resource", lists="windows_days", objects="estimate")


class Papers(NamedTuple):
    """The documents of a receipt, each in its shape and with the digest that was signed."""

    receipt_sha256: str
    receipt: Mapping[str, Any]
    plan: Mapping[str, Any]
    baseline: Mapping[str, Any]
    measurement: Mapping[str, Any]

    @property
    def steps(self) -> list[Mapping[str, Any]]:
        """The steps that the receipt says were done, in order."""
        steps: list[Mapping[str, Any]] = self.receipt["execution"]["steps"]
        return steps

    @property
    def event_ids(self) -> list[str]:
        """The events that the receipt names, in the order of FORMAT.md."""
        receipt = self.receipt
        outcomes = [step[name] for step in self.steps for name in ("intent_event_id", "outcome_event_id")]
        approvals = [each["event_id"] for each in receipt["approvals"]]
        return [receipt["requested"]["event_id"], *approvals, *outcomes, receipt["decided"]["event_id"]]

    @property
    def baseline_window(self) -> dict[str, str]:
        """The first and the last day of the baseline."""
        return {"from_day": self.baseline["days"][0], "to_day": self.baseline["days"][-1]}

    @property
    def observed_window(self) -> dict[str, str]:
        """The first and the last day that was measured."""
        return {name: self.measurement[name] for name in ("from_day", "to_day")}


def digest(document: bytes) -> str:
    """SHA-256, hexadecimal."""
    return sha256(document).hexdigest()


def read_papers(bundle: Mapping[str, Any], signed: str) -> Papers:
    """The documents, where `signed` is the receipt's digest as it was signed. Raises Disproved, CannotTell."""
    raw = {name: bundle[name].encode() for name in ("receipt", "plan", "baseline", "measurement")}
    if digest(raw["receipt"]) != signed:
        raise Disproved("receipt: its digest isn't what the signed statement says")
    receipt = shaped(_document(raw, "receipt"), "receipt", _RECEIPT)
    for number, step in enumerate(receipt["execution"]["steps"], 1):
        _check_named(step["name"], f"receipt: step {number}: its name")
    _check_named(receipt["action_type"], "receipt: action_type")
    for name in ("plan", "baseline", "measurement"):
        if digest(raw[name]) != receipt[f"{name}_sha256"]:
            raise Disproved(f"{name}: its digest isn't what the receipt says")
    plan, baseline, measurement = (_document(raw, name) for name in ("plan", "baseline", "measurement"))
    planned = shaped(_those(plan, _PLAN), "plan", _PLAN)["measurement"]
    estimate = shaped(_those(planned, _PLANNED), "plan: measurement", _PLANNED)["estimate"]
    shaped(_those(estimate, _MONEY), "plan: estimate", _MONEY)
    shaped(baseline, "baseline", BASELINE)
    shaped(measurement, "measurement", MEASUREMENT)
    papers = Papers(signed, receipt, plan, baseline, measurement)
    for document, name in zip(papers[1:], raw, strict=True):
        _check_resource(document["resource"], name)
    for number, leak in enumerate(measurement["leakage"], 1):
        _check_resource(leak["resource"], f"measurement: leakage {number}")
    _check_ids(papers)
    return papers


def _document(raw: Mapping[str, bytes], name: str) -> Mapping[str, Any]:
    """A document of the version and the method that this verifier follows. Raises CannotTell, UnknownVersion."""
    document = read_canonical(raw[name], name)
    if not isinstance(document, dict):
        raise CannotTell(f"{name} must be an object")
    version, planned = document.get("v"), document.get("measurement")
    if type(version) is int and version != 1:
        raise UnknownVersion(f"{name}: version {version} is unknown to this verifier")
    method = planned.get("method") if isinstance(planned, dict) else document.get("method")
    if isinstance(method, str) and method != METHOD:
        raise UnknownVersion(f"{name}: the method {method[:40]!r} is unknown to this verifier")
    return document


def _those(document: Mapping[str, Any], kinds: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: document[name] for name in kinds if name in document}


def _check_named(text: str, where: str) -> None:
    if not text or len(text) > _MAX_TEXT:
        raise Disproved(f"{where} is empty or too long")


def _check_resource(resource: Mapping[str, Any], where: str) -> None:
    """Raise Disproved unless the key of a resource is texts alone."""
    if not resource or not all(isinstance(value, str) for value in resource.values()):
        raise Disproved(f"{where}: its resource isn't the key of one")


def _check_ids(papers: Papers) -> None:
    """Raise Disproved unless what is named by an id has one, and no two events the same."""
    receipt, events = papers.receipt, papers.event_ids
    named = [receipt[name] for name in ("receipt_id", "organization_id", "action_id")]
    superseded = [receipt["supersedes"]] if receipt["supersedes"] else []
    if not all(_ID.fullmatch(each) for each in (*named, *superseded, *events)):
        raise Disproved("receipt: one of its ids isn't a UUID")
    if len(set(events)) != len(events):
        raise Disproved("receipt: it names an event twice")
    if receipt["supersedes"] == receipt["receipt_id"]:
        raise Disproved("receipt: it says that it supersedes itself")


def moment_of(text: str, where: str, *, seconds: bool = False) -> datetime:
    """A moment in UTC, spelled with microseconds, or with whole seconds. Raises Disproved."""
    found = _MOMENT.fullmatch(text)
    try:
        if not found or bool(found[1]) == seconds:
            raise ValueError
        return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
    except ValueError:
        raise Disproved(f"{where} isn't a moment in UTC") from None
