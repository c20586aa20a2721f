"""Reads the four documents of a bundle, each only after its digest is the one that was signed.

Owns their shapes; whether they agree with each other is checked in `agreement`, with the log in `trail`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from recoup_verify.documents import CannotTell, Disproved, Shape, UnknownVersion, read_canonical, shape, shaped
from recoup_verify.savings.bundle import Bundle

METHOD = "recoup-savings/1"
_MAX_TEXT = 4_096
_MICROSECONDS = re.compile(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SECONDS = re.compile(r"2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_MONEY = shape(texts="amount currency")
_RECEIPT = shape(
    numbers="v days",
    texts="receipt_id organization_id action_id action_type issued_at supersedes plan_sha256 baseline_sha256 "
    "measurement_sha256 decision method",
    flags="provisional",
    lists="approvals",
    objects="resource requested execution decided economic cash interval",
)
_DONE = shape(texts="actor role at event_id")
_EXECUTION = shape(texts="executed_at", lists="steps")
_STEP = shape(texts="name result_id intended_at confirmed_at intent_event_id outcome_event_id")
_DECIDED, _INTERVAL = shape(texts="at event_id"), shape(texts="low high")
_BASELINE = shape(numbers="v", texts="method currency through_day", lists="days rows batches", objects="resource")
_MEASUREMENT = shape(
    numbers="v days",
    texts="method plan_hash baseline_sha256 currency from_day to_day confirmed_at",
    flags="expected_gone confirmed_gone spanning provisional",
    lists="complete_days rows leakage prices batches",
    objects="resource estimate result",
)
_RESULT = shape(texts="decision explanation economic cash list interval_low interval_high cv_rmse model", lists="daily")
_RESULT_DAY = shape(texts="day counterfactual actual leakage")
_LEAK = shape(objects="resource", lists="rows")
_PLANNED = shape(numbers="v", texts="organization_id action_id action_type", objects="resource measurement")
_MEASURED = shape(texts="method baseline_sha256", flags="removes_resource", lists="windows_days", objects="estimate")


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


def digest(document: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(document).hexdigest()


def read_papers(bundle: Bundle, signed: str) -> Papers:
    """The documents, where `signed` is the receipt's digest as it was signed. Raises Disproved, CannotTell."""
    if digest(bundle.receipt) != signed:
        raise Disproved("receipt: its digest isn't what the signed statement says")
    receipt = _document(bundle.receipt, "receipt")
    _known(receipt, "receipt")
    _check_receipt(receipt)
    for name in ("plan", "baseline", "measurement"):
        if digest(getattr(bundle, name)) != receipt[f"{name}_sha256"]:
            raise Disproved(f"{name}: its digest isn't what the receipt says")
    plan, baseline = _document(bundle.plan, "plan"), _document(bundle.baseline, "baseline")
    measurement = _document(bundle.measurement, "measurement")
    for document, name in ((plan, "plan"), (baseline, "baseline"), (measurement, "measurement")):
        _known(document, name)
    _check_plan(plan)
    shaped(baseline, "baseline", _BASELINE)
    _check_measurement(measurement)
    for document, name in ((receipt, "receipt"), (plan, "plan"), (baseline, "baseline"), (measurement, "measurement")):
        check_resource(document["resource"], name)
    papers = Papers(signed, receipt, plan, baseline, measurement)
    _check_ids(papers)
    return papers


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
    try:
        if not (_SECONDS if seconds else _MICROSECONDS).fullmatch(text):
            raise ValueError
        return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC)
    except ValueError:
        raise Disproved(f"{where} isn't a moment in UTC") from None


def check_resource(resource: Mapping[str, Any], where: str) -> None:
    """Raise Disproved unless the key of a resource is texts alone."""
    if not resource or not all(isinstance(value, str) for value in resource.values()):
        raise Disproved(f"{where}: its resource isn't the key of one")


def _document(raw: bytes, name: str) -> Mapping[str, Any]:
    document = read_canonical(raw, name)
    if not isinstance(document, dict):
        raise CannotTell(f"{name} must be an object")
    return document


def _known(document: Mapping[str, Any], name: str) -> None:
    """Raise UnknownVersion unless version and method are those that this verifier follows."""
    version = document.get("v")
    if type(version) is int and version != 1:
        raise UnknownVersion(f"{name}: version {version} is unknown to this verifier")
    planned = document.get("measurement")
    method = planned.get("method") if isinstance(planned, dict) else document.get("method")
    if isinstance(method, str) and method != METHOD:
        raise UnknownVersion(f"{name}: the method {method[:40]!r} is unknown to this verifier")


def _check_receipt(receipt: Mapping[str, Any]) -> None:
    shaped(receipt, "receipt", _RECEIPT)
    shaped(receipt["requested"], "receipt: requested", _DONE)
    shaped(receipt["decided"], "receipt: decided", _DECIDED)
    shaped(receipt["interval"], "receipt: interval", _INTERVAL)
    execution = shaped(receipt["execution"], "receipt: execution", _EXECUTION)
    for number, approval in enumerate(receipt["approvals"], 1):
        shaped(approval, f"receipt: approval {number}", _DONE)
    for number, step in enumerate(execution["steps"], 1):
        shaped(step, f"receipt: step {number}", _STEP)
        _named(step["name"], f"receipt: step {number}: its name")
    for name in ("economic", "cash"):
        shaped(receipt[name], f"receipt: {name}", _MONEY)
    _named(receipt["action_type"], "receipt: action_type")


def _check_plan(plan: Mapping[str, Any]) -> None:
    """The plan's other fields are covered by its hash, and nobody's to judge here."""
    _has(plan, "plan", _PLANNED)
    _has(plan["measurement"], "plan: measurement", _MEASURED)
    _has(plan["measurement"]["estimate"], "plan: estimate", _MONEY)


def _has(document: Mapping[str, Any], where: str, kinds: Shape) -> None:
    shaped({name: document[name] for name in kinds if name in document}, where, kinds)


def _check_measurement(measurement: Mapping[str, Any]) -> None:
    shaped(measurement, "measurement", _MEASUREMENT)
    shaped(measurement["estimate"], "measurement: estimate", _MONEY)
    result = shaped(measurement["result"], "measurement: result", _RESULT)
    for number, day in enumerate(result["daily"], 1):
        shaped(day, f"measurement: day {number} of daily", _RESULT_DAY)
    for number, leak in enumerate(measurement["leakage"], 1):
        shaped(leak, f"measurement: leakage {number}", _LEAK)
        check_resource(leak["resource"], f"measurement: leakage {number}")


def _named(text: str, where: str) -> None:
    if not text or len(text) > _MAX_TEXT:
        raise Disproved(f"{where} is empty or too long")
