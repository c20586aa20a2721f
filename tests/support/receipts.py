"""Makes whole receipts for the verifier's tests: plan, bill, log, signatures. An honest issuer, or a lying one.

The documents are written here from FORMAT.md by hand, amounts included: nothing is computed by what is tested.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import rfc8785

from tests.support.receipt_cases import EXECUTED, Case, Document, batch, periods, resource
from tests.support.receipt_log import ORGANIZATION, LoggedEvent, Signatories, envelope, log, sha256

Change = Callable[["Issuing"], None]

METHOD = "recoup-savings/1"
ACTION, RECEIPT = str(UUID(int=2)), str(UUID(int=3))
REQUESTER, APPROVER = str(UUID(int=11)), str(UUID(int=12))
_DAY = timedelta(days=1)
_BATCH = ("batch_id", "billing_period", "sha256", "provenance", "object", "object_version")


def moment(at: datetime) -> str:
    """With microseconds, as receipts and events have it."""
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


class Issuing:
    """A receipt in the making. Whoever changes something here has it hashed, logged and signed as if it were true."""

    def __init__(self, case: Case, signatories: Signatories | None = None) -> None:
        self.case, self.signatories = case, signatories or Signatories()
        self.resource = resource("ec2.volume", "vol-0123")
        self.baseline, self.plan = self._baseline(), self._plan()
        self.measurement = self._measurement()
        self.receipt: Document = {}
        self.events: list[LoggedEvent] = []
        self.statement: Document = {}
        self.bundle: Document = {}

    def _baseline(self) -> Document:
        case = self.case
        return {
            "v": 1,
            "method": METHOD,
            "resource": self.resource,
            "currency": "USD",
            "through_day": case.before[-1].isoformat(),
            "days": [day.isoformat() for day in case.before],
            "rows": case.baseline_rows,
            "batches": [batch(period, number) for number, period in enumerate(periods(case.before))],
        }

    def _plan(self) -> Document:
        case = self.case
        measurement = {
            "method": METHOD,
            "windows_days": [7, 14, 30],
            "baseline_sha256": "",
            "removes_resource": case.expected_gone,
            "estimate": {"amount": case.estimate, "currency": "USD", "period": "month", "price_version": "p1"},
        }
        return {
            "v": 1,
            "organization_id": ORGANIZATION,
            "action_id": ACTION,
            "action_type": case.action_type,
            "resource": self.resource,
            "preconditions": {"state": "available"},
            "measurement": measurement,
        }

    def _measurement(self) -> Document:
        case, window = self.case, self.case.window
        return {
            "v": 1,
            "method": METHOD,
            "plan_hash": "",
            "baseline_sha256": "",
            "resource": self.resource,
            "currency": "USD",
            "from_day": window[0].isoformat(),
            "to_day": window[-1].isoformat(),
            "days": case.window_days,
            "expected_gone": case.expected_gone,
            "confirmed_gone": case.confirmed_gone,
            "confirmed_at": "2026-04-20T00:00:00Z" if case.confirmed_gone else "",
            "estimate": {"amount": case.estimate, "currency": "USD"},
            "complete_days": [day.isoformat() for day in window[: len(window) - case.missing]],
            "spanning": case.spanning,
            "rows": case.rows,
            "leakage": [{"resource": resource("ec2.snapshot", "snap-1"), "rows": case.leakage}],
            "prices": case.prices,
            "provisional": not case.closed and not case.missing,
            "batches": [
                batch(period, 10 + number, closed=case.closed, currency=case.currency)
                for number, period in enumerate(periods(window))
            ],
            "result": {**case.result, "explanation": "As the rows say."},
        }

    def hash(self) -> None:
        """Bind the documents to each other by their digests."""
        self.plan["measurement"]["baseline_sha256"] = sha256(rfc8785.dumps(self.baseline))
        self.measurement["baseline_sha256"] = self.plan["measurement"]["baseline_sha256"]
        self.measurement["plan_hash"] = sha256(rfc8785.dumps(self.plan))

    def write(self) -> None:
        """Write the receipt and its events."""
        result, currency, last = self.measurement["result"], self.measurement["currency"], self._steps()[-1]
        self.receipt = {
            "v": 1,
            "receipt_id": RECEIPT,
            **{name: self.plan[name] for name in ("organization_id", "action_id", "action_type", "resource")},
            "days": self.measurement["days"],
            "issued_at": moment(EXECUTED + _DAY * 80),
            "supersedes": "",
            "plan_sha256": self.measurement["plan_hash"],
            "baseline_sha256": self.measurement["baseline_sha256"],
            "measurement_sha256": sha256(rfc8785.dumps(self.measurement)),
            "requested": _done("user:requester", "ENGINEER", EXECUTED - _DAY * 2),
            "approvals": [_done("user:approver", "APPROVER", EXECUTED - _DAY)],
            "execution": {"executed_at": last["confirmed_at"], "steps": self._steps()},
            "decided": {"at": moment(EXECUTED + _DAY * 79), "event_id": str(uuid4())},
            "decision": result["decision"],
            "economic": {"amount": result["economic"], "currency": currency},
            "cash": {"amount": result["cash"], "currency": currency},
            "interval": {"low": result["interval_low"], "high": result["interval_high"]},
            "provisional": self.measurement["provisional"],
            "method": self.measurement["method"],
        }
        self.events = self._events()

    def _steps(self) -> list[Document]:
        count = len(self.case.steps)
        return [
            {
                "name": name,
                "result_id": "snap-1" if name == "create_snapshot" else "",
                "intended_at": moment(EXECUTED - timedelta(hours=count - number, seconds=1)),
                "confirmed_at": moment(EXECUTED - timedelta(hours=count - number - 1)),
                "intent_event_id": str(UUID(int=1000 + number)),
                "outcome_event_id": str(UUID(int=2000 + number)),
            }
            for number, name in enumerate(self.case.steps)
        ]

    def _events(self) -> list[LoggedEvent]:
        receipt, plan = self.receipt, {"plan_hash": self.receipt["plan_sha256"]}
        found = [_event("actions.action.request", receipt["requested"], plan, person=REQUESTER)]
        found += [_event("actions.action.approve", each, plan, person=APPROVER) for each in receipt["approvals"]]
        for step in receipt["execution"]["steps"]:
            intent = {"at": step["intended_at"], "event_id": step["intent_event_id"]}
            outcome = {"at": step["confirmed_at"], "event_id": step["outcome_event_id"]}
            said = {**plan, "step": step["name"]}
            found += [
                _event("actions.step.intend", intent, said),
                _event("actions.step.confirm", outcome, {**said, "result_id": step["result_id"]}),
            ]
        decided = {"days": str(receipt["days"]), "decision": receipt["decision"]}
        decided["measurement_sha256"] = receipt["measurement_sha256"]
        return [*found, _event("actions.checkpoint.decide", receipt["decided"], decided)]

    def state(self) -> None:
        """Write the statement that follows from the documents."""
        receipt = self.receipt
        batches = {b["batch_id"]: b for d in (self.baseline, self.measurement) for b in d["batches"]}
        inputs = [{name: each[name] for name in _BATCH} for each in batches.values()]
        self.statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": f"receipts/{RECEIPT}", "digest": {"sha256": sha256(rfc8785.dumps(receipt))}}],
            "predicateType": "https://recoup.invalid/receipt/v1",
            "predicate": {
                **{name: receipt[name] for name in ("organization_id", "action_id", "action_type", "plan_sha256")},
                **{name: receipt[name] for name in ("decision", "economic", "cash", "provisional", "method")},
                "approvals": [{name: each[name] for name in ("actor", "role", "at")} for each in receipt["approvals"]],
                "baseline_window": {"from_day": self.baseline["days"][0], "to_day": self.baseline["days"][-1]},
                "observed_window": {name: self.measurement[name] for name in ("from_day", "to_day")},
                "inputs": sorted(inputs, key=lambda each: (each["billing_period"], each["batch_id"])),
                "event_ids": [event.payload["event_id"] for event in self.events],
            },
        }
        # Nothing of it may change with the documents later.
        self.statement = json.loads(json.dumps(self.statement))

    def issue(self) -> None:
        """Write the event of the issue, the last one."""
        said = {
            "receipt_sha256": sha256(rfc8785.dumps(self.receipt)),
            "statement_sha256": sha256(rfc8785.dumps(self.statement)),
        }
        issued = {"at": self.receipt["issued_at"], "event_id": str(uuid4())}
        self.events.append(_event("actions.receipt.issue", issued, said, target=f"receipts/{RECEIPT}"))

    def pack(self) -> None:
        """Log the events, sign the statement, and put all of it into the bundle."""
        self.bundle = {
            "type": "recoup-receipt-bundle",
            "v": 1,
            "envelope": envelope(rfc8785.dumps(self.statement), self.signatories),
            "events": log(self.events, self.signatories.log),
            "key_manifest": self.signatories.manifest(),
            **{
                name: rfc8785.dumps(getattr(self, name)).decode()
                for name in ("receipt", "plan", "baseline", "measurement")
            },
        }


STAGES = ("hash", "write", "state", "issue", "pack")


def issue(case: Case, signatories: Signatories | None = None, **changes: Change) -> bytes:
    """A receipt's bundle. A change is applied before the stage that it is named after, or to the bundle at "end"."""
    issuing = Issuing(case, signatories)
    assert changes.keys() <= {*STAGES, "end"}
    for stage in STAGES:
        _apply(changes.get(stage), issuing)
        run: Callable[[], None] = getattr(issuing, stage)
        run()
    _apply(changes.get("end"), issuing)
    return rfc8785.dumps(issuing.bundle)


def _event(
    action: str, done: Document, metadata: dict[str, str], *, person: str = "", target: str = f"actions/{ACTION}"
) -> LoggedEvent:
    return LoggedEvent(
        {
            "v": 1,
            "event_id": done["event_id"],
            "organization_id": ORGANIZATION,
            "action": action,
            "target": target,
            "result": "OK",
            "actor": done.get("actor", "process:actions"),
            "responsible_person": person,
            "role": done.get("role", "SYSTEM"),
            "occurred_at": done["at"],
            "request_id": "",
            "trace_id": "",
            "authority": "passport",
            "metadata": dict(metadata),
        }
    )


def _done(actor: str, role: str, at: datetime) -> Document:
    return {"actor": actor, "role": role, "at": moment(at), "event_id": str(uuid4())}


def _apply(change: Change | None, issuing: Issuing) -> None:
    if change:
        change(issuing)


def load(bundle: bytes) -> Document:
    """The bundle's members."""
    found: Document = json.loads(bundle)
    return found
