"""The offline verifier on receipts that lie: hashed, logged and signed as if they were true, each disproved by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recoup_verify.documents import CannotTell, Disproved
from recoup_verify.log import parse_key
from recoup_verify.receipts.receipt import check_receipt
from services.audit.model.notes import Signer
from tests.support import receipt_cases as cases
from tests.support.receipt_cases import Case, Document
from tests.support.receipt_log import ORIGIN, LoggedEvent, Signatories, b64, envelope, sha256
from tests.support.receipts import REQUESTER, Issuing, issue, load

SIGNATORIES = Signatories()
KEY = parse_key(SIGNATORIES.log.verifier_key.text())


def lie(why: str, case: Case | None = None, **changes: Callable[[Issuing], None]) -> None:
    """Issue with these changes, and expect to be found out."""
    raw = issue(case or cases.deleted_volume(), SIGNATORIES, **changes)
    with pytest.raises(Disproved, match=why):
        check_receipt(raw, KEY)


def setting(part: str, path: str, value: object) -> Callable[[Issuing], None]:
    """A change: of a part of the receipt, the field at a path of names and numbers."""

    def change(issuing: Issuing) -> None:
        found: Any = getattr(issuing, part)
        *way, last = [int(name) if name.isdigit() else name for name in path.split(".")]
        for name in way:
            found = found[name]
        found[last] = value

    return change


# What is changed before all digests, events and signatures are made, and what must be said of it.
DOCUMENTS = [
    ("measurement", "result.economic", "60.5", "its economic is '60.5', but its rows give '59.5'"),
    ("measurement", "result.cash", "59.5", "its cash is '59.5', but its rows give '46.9'"),
    ("measurement", "result.list", "59.5", "its list is"),
    ("measurement", "result.economic", "59.50", "its economic is '59.50'"),
    ("measurement", "result.interval_low", "59.4", "its interval_low is '59.4', but its rows give '59.5'"),
    ("measurement", "result.interval_high", "60", "its interval_high is"),
    ("measurement", "result.cv_rmse", "0.01", "its cv_rmse is"),
    ("measurement", "result.model", "VARIABLE", "its model is"),
    ("measurement", "result.decision", "PARTIAL", "its decision is 'PARTIAL', but its rows give 'VERIFIED'"),
    ("measurement", "result.daily.3.actual", "0.1", "its daily isn't what its rows give for 2026-03-14"),
    ("measurement", "result.daily", [], "its daily has 0 days, but its rows give 7"),
    ("measurement", "confirmed_gone", False, "but its rows give"),
    ("measurement", "expected_gone", False, "expected_gone isn't what was planned"),
    ("measurement", "spanning", True, "its decision is 'VERIFIED', but its rows give 'INCONCLUSIVE'"),
    ("measurement", "complete_days", [], "but its rows give"),
    ("measurement", "complete_days.6", "2026-03-18", "days outside of its window"),
    ("measurement", "complete_days.6", "2026-03-16", "ascending order"),
    ("measurement", "currency", "EUR", "its currency isn't the baseline's"),
    ("baseline", "currency", "usd", "isn't a currency"),
    ("measurement", "from_day", "2026-03-10", "its days aren't 7, 14 or 30"),
    ("measurement", "to_day", "2026-03-18", "its days aren't 7, 14 or 30"),
    ("measurement", "days", 8, "its days isn't the receipt's|its days aren't 7, 14 or 30|none of the plan's windows"),
    ("measurement", "provisional", True, "provisional isn't what its batches say"),
    ("measurement", "batches.0.period_closed", False, "provisional isn't what its batches say"),
    ("measurement", "batches", [], "no batch that the bill came from is named"),
    ("baseline", "batches", [], "no batch that the bill came from is named"),
    ("measurement", "batches.0.currency", "EUR", "but its rows give"),
    ("measurement", "batches.0.rows", -1, "a negative count"),
    ("measurement", "batches.0.provenance", "MADE_UP", "an unknown provenance"),
    ("measurement", "estimate.amount", "1", "its estimate isn't the plan's"),
    ("measurement", "estimate.currency", "EUR", "its estimate is in another currency"),
    ("measurement", "confirmed_at", "", "doesn't say when"),
    ("measurement", "confirmed_at", "2026-03-09T00:00:00Z", "confirmed gone before it was removed"),
    ("measurement", "confirmed_at", "2026-07-09T00:00:00Z", "or after the decision"),
    ("measurement", "confirmed_at", "2026-02-30T00:00:00Z", "isn't a moment"),
    ("measurement", "rows", [cases.row(cases.EXECUTED.date(), "1", "1")], "isn't one of its days"),
    ("measurement", "leakage.0.rows.0.effective_cost", "0.4", "but its rows give|isn't what its rows give"),
    ("measurement", "leakage", [], "what the snapshot snap-1 cost isn't netted"),
    ("measurement", "leakage.0.resource", cases.resource("ec2.volume", "vol-0123"), "isn't netted"),
    ("measurement", "prices", [], "its prices aren't those of the baseline's lines"),
    ("measurement", "prices.0.effective_cost", "91", "isn't what its rows give"),
    ("measurement", "prices.0.source", "BASELINE", "its sums aren't those of the baseline's rows"),
    ("measurement", "prices.0.quantity", "0", "less than the resource's own rows"),
    ("measurement", "prices.0.quantity", "-1", "less than the resource's own rows"),
    ("measurement", "prices.0.source", "GUESSED", "unknown source"),
    ("measurement", "resource", {"id": "vol-other"}, "its resource isn't the receipt's"),
    ("baseline", "resource", {"id": "vol-other"}, "its resource isn't the receipt's"),
    ("baseline", "resource", {}, "isn't the key of one"),
    ("baseline", "rows.4.quantity", "2401", "isn't what its rows give|its interval|its cv_rmse"),
    ("baseline", "rows.4.quantity", "2400.0", "isn't a decimal in its plain spelling"),
    ("baseline", "rows.4.quantity", "2.4e3", "isn't a decimal in its plain spelling"),
    ("baseline", "rows.4.quantity", "-0", "isn't a decimal in its plain spelling"),
    ("baseline", "rows.4.quantity", "9" * 63, "isn't a decimal in its plain spelling"),
    ("baseline", "rows.4.quantity", "٣", "isn't a decimal in its plain spelling"),
    ("baseline", "rows.4.contracted_cost", "x", "isn't a decimal in its plain spelling"),
    ("baseline", "rows.4.day", "2026-02-11", "in the order of day and line, each once"),
    ("baseline", "rows.27.day", "2026-03-08", "isn't one of its days"),
    ("baseline", "rows", [], "it has no row"),
    ("baseline", "days.0", "2026-02-09", "ascending order"),
    ("baseline", "days.0", "2026-01-31", "in the 35 days up to through_day"),
    ("baseline", "days", ["2026-02-08"], "it must have 14 to 28 days"),
    ("baseline", "through_day", "2026-03-06", "in the 35 days up to through_day"),
    ("baseline", "through_day", "2026-03-08", "through_day isn't the day before the request"),
    ("baseline", "through_day", "0001-01-01", "isn't a day"),
    ("measurement", "to_day", "9999-12-31", "isn't a day|its days aren't 7, 14 or 30"),
    ("baseline", "currency", "EUR", "in another currency"),
    ("baseline", "batches.0.billing_period", "2026-13", "no billing period"),
    ("baseline", "batches.0.sha256", "0", "no digest"),
    ("baseline", "batches.1.batch_id", str(UUID(int=100)), "a batch in two billing periods"),
    ("plan", "measurement.windows_days", [14, 30], "none of the plan's windows"),
    ("plan", "measurement.windows_days", ["7"], "none of the plan's windows"),
    ("plan", "measurement.removes_resource", False, "expected_gone isn't what was planned"),
    ("plan", "measurement.estimate.amount", "NaN", "isn't an amount"),
    ("plan", "measurement.estimate.amount", "much", "isn't an amount"),
    ("plan", "action_type", "", "is empty or too long"),
    ("measurement", "rows", [{}] * 20_001, "are more than 20000"),
    ("measurement", "leakage", [{"resource": {"id": "snap-1"}, "rows": []}] * 101, "nets more than 100"),
    ("measurement", "batches", [cases.batch("2026-03", number) for number in range(1_001)], "are more than 1000"),
    ("measurement", "batches", [cases.batch("2026-03", 10)] * 2, "in the order of period and id, each once"),
    ("measurement", "prices", [cases.price("1", "1")] * 2, "in the order of their lines, each once"),
    ("plan", "measurement.estimate.amount", "1e400", "its estimate isn't the plan's"),
    ("plan", "measurement.estimate.currency", "EUR", "its estimate isn't the plan's"),
    ("plan", "resource.id", 7, "isn't the key of one"),
]


@pytest.mark.parametrize(("part", "path", "value", "why"), DOCUMENTS, ids=lambda value: str(value)[:40])
def test_a_lie_in_a_document_is_disproved(part: str, path: str, value: object, why: str) -> None:
    lie(why, hash=setting(part, path, value))


def test_only_a_bill_that_never_came_makes_a_result_of_an_open_period_final() -> None:
    why, final = "provisional isn't what its batches say", setting("measurement", "provisional", False)
    lie(why, cases.deleted_volume("INCONCLUSIVE", spanning=True, closed=False), hash=final)
    lie(why, cases.deleted_volume(closed=False), hash=final)
    given_up = cases.unclear(cases.deleted_volume(missing=2, closed=False))
    lie(why, given_up, hash=setting("measurement", "provisional", True))


# What is changed when the documents are bound to each other, but nothing is written into the log yet.
BINDINGS = [
    ("plan", "action_type", "aws.ebs.convert_gp3", "its digest isn't what the receipt says"),
    ("baseline", "through_day", "2026-03-08", "its digest isn't what the receipt says"),
    ("measurement", "plan_hash", "0" * 64, "its digest isn't what the receipt says"),
]
RECEIPT = [
    ("receipt", "organization_id", str(UUID(int=9)), "its organization_id isn't the receipt's"),
    ("receipt", "action_id", str(UUID(int=9)), "its action_id isn't the receipt's"),
    ("receipt", "action_type", "x", "its action_type isn't the receipt's"),
    ("receipt", "economic.amount", "60", "economic isn't the measurement's"),
    ("receipt", "economic.currency", "EUR", "economic isn't the measurement's"),
    ("receipt", "cash.amount", "60", "cash isn't the measurement's"),
    ("receipt", "interval.low", "60", "interval isn't the measurement's"),
    ("receipt", "decision", "PARTIAL", "decision isn't the measurement's"),
    ("receipt", "provisional", True, "provisional isn't the measurement's"),
    ("receipt", "days", 14, "its days isn't the receipt's"),
    ("receipt", "approvals", [], "no approval or no step"),
    ("receipt", "execution.steps", [], "no approval or no step"),
    ("receipt", "execution.executed_at", "2026-03-10T12:30:00.000000Z", "isn't when the last step was confirmed"),
    ("receipt", "execution.steps.0.name", "look_at_it", "its steps aren't those of aws.ebs.delete_volume"),
    ("receipt", "decided.at", "2026-03-17T23:59:59.999999Z", "decided before the window was over"),
    ("receipt", "decided.at", "2026-03-18T01:00:00+01:00", "isn't a moment"),
    ("receipt", "supersedes", str(UUID(int=3)), "supersedes itself"),
    ("receipt", "receipt_id", "", "one of its ids isn't a UUID"),
    ("receipt", "supersedes", "R-1", "one of its ids isn't a UUID"),
    ("receipt", "execution.steps.0.outcome_event_id", str(UUID(int=1000)), "names an event twice"),
    ("receipt", "execution.steps.0.result_id", "snap-2", "what the snapshot snap-2 cost isn't netted"),
    ("receipt", "requested.at", "2026-03-07T12:00:00.000000Z", "through_day isn't the day before the request"),
    ("receipt", "requested.at", "2026-03-10T12:00:00.000000Z", "through_day isn't the day before the request"),
    ("receipt", "requested.extra", "", "unknown field extra"),
    ("receipt", "v", True, "must be a whole number"),
]


@pytest.mark.parametrize(("part", "path", "value", "why"), BINDINGS + RECEIPT, ids=lambda value: str(value)[:40])
def test_a_lie_in_the_receipt_is_disproved(part: str, path: str, value: object, why: str) -> None:
    lie(why, state=setting(part, path, value))


@pytest.mark.parametrize("days", [-1, 1, 7])
def test_a_window_that_does_not_follow_the_execution_is_disproved(days: int) -> None:
    """The best week after the action isn't the week after the action."""

    def moved(issuing: Issuing) -> None:
        shifted = [day + timedelta(days=days) for day in issuing.case.window]
        issuing.measurement |= {"from_day": shifted[0].isoformat(), "to_day": shifted[-1].isoformat()}

    lie("from_day isn't the day after the execution", hash=moved)


def test_a_day_is_one_of_utc() -> None:
    """The last moment of a day and the first of the next differ by a whole day of the window."""
    for last, why in (
        ("2026-03-10T23:59:59.999999Z", "occurred_at isn't"),
        ("2026-03-11T00:00:00.000000Z", "from_day"),
    ):

        def moved(issuing: Issuing, last: str = last) -> None:
            execution = issuing.receipt["execution"]
            execution["executed_at"] = execution["steps"][-1]["confirmed_at"] = last

        lie(why, state=moved)


def test_another_plan_or_baseline_than_the_measured_is_disproved() -> None:
    lie("its plan_hash isn't the receipt's", state=rebound("plan_sha256", "measurement", "plan_hash"))
    lie("its baseline_sha256 isn't the receipt's", state=rebound("baseline_sha256", "measurement", "baseline_sha256"))
    lie("it was made on another baseline", hash=other_baseline, write=keep_baseline)


def rebound(_: str, part: str, name: str) -> Callable[[Issuing], None]:
    """The measurement is of something else; all digests above it follow."""

    def change(issuing: Issuing) -> None:
        getattr(issuing, part)[name] = "0" * 64
        issuing.receipt["measurement_sha256"] = sha256(rfc8785.dumps(issuing.measurement))

    return change


def other_baseline(issuing: Issuing) -> None:
    issuing.case.estimate = "30"


def keep_baseline(issuing: Issuing) -> None:
    """The baseline is exchanged after the plan was approved."""
    issuing.baseline["through_day"] = "2026-03-08"
    issuing.measurement["baseline_sha256"] = sha256(rfc8785.dumps(issuing.baseline))


# What the log has otherwise than the receipt says it. Events: 0 request, 1 approval, 2 to 5 steps, 6 decision, 7 issue.
EVENTS = [
    (1, "responsible_person", REQUESTER, "whoever requested the action approved it too"),
    (1, "responsible_person", "", "nobody answers for the request or an approval"),
    (0, "responsible_person", "", "nobody answers for the request or an approval"),
    (0, "actor", "user:other", "the event of the request: its actor isn't what the receipt says"),
    (1, "role", "ADMIN", "the event of approval 1: its role isn't what the receipt says"),
    (1, "result", "DENIED", "the event of approval 1: its result isn't what the receipt says"),
    (1, "action", "actions.action.reject", "the event of approval 1: its action isn't"),
    (0, "target", f"actions/{UUID(int=9)}", "the event of the request: its target isn't"),
    (0, "occurred_at", "2026-03-08T12:30:00.250001Z", "the event of the request: its occurred_at isn't"),
    (0, "organization_id", str(UUID(int=9)), "payload's organization_id isn't the leaf's"),
    (1, "metadata.plan_hash", "0" * 64, "the event of approval 1: its plan_hash isn't"),
    (2, "metadata.step", "delete_volume", "the event of the intent of create_snapshot: its step isn't"),
    (3, "metadata.result_id", "snap-2", "the event of the outcome of create_snapshot: its result_id isn't"),
    (4, "metadata.plan_hash", "0" * 64, "the event of the intent of delete_volume: its plan_hash isn't"),
    (
        5,
        "occurred_at",
        "2026-03-10T12:30:00.250001Z",
        "the event of the outcome of delete_volume: its occurred_at isn't",
    ),
    (6, "metadata.decision", "PARTIAL", "the event of the decision: its decision isn't"),
    (6, "metadata.days", "14", "the event of the decision: its days isn't"),
    (6, "metadata.measurement_sha256", "0" * 64, "the event of the decision: its measurement_sha256 isn't"),
    (7, "metadata.receipt_sha256", "0" * 64, "the event of the issue: its receipt_sha256 isn't"),
    (7, "metadata.statement_sha256", "0" * 64, "the event of the issue: its statement_sha256 isn't"),
    (7, "target", f"receipts/{UUID(int=9)}", "the event of the issue: its target isn't"),
    (7, "metadata", "none", "the payload isn't an event's"),
    (7, "actor", 1, "the payload lacks a text that events have"),
]


@pytest.mark.parametrize(("number", "path", "value", "why"), EVENTS, ids=lambda value: str(value)[:40])
def test_an_event_that_says_otherwise_is_disproved(number: int, path: str, value: object, why: str) -> None:
    def change(issuing: Issuing) -> None:
        found: Any = issuing.events[number].payload
        *way, last = path.split(".")
        for name in way:
            found = found[name]
        found[last] = value

    lie(why, pack=change)


def test_an_event_of_another_organization_or_producer_is_disproved() -> None:
    def foreign(issuing: Issuing) -> None:
        issuing.events[2].organization_id = str(UUID(int=9))

    def produced(issuing: Issuing) -> None:
        issuing.events[2].producer = "scanner"

    def renamed(issuing: Issuing) -> None:
        issuing.events[1].payload["event_id"] = str(uuid4())

    lie("payload's organization_id isn't the leaf's", pack=foreign)
    lie("scanner wrote it, not actions", pack=produced)
    lie("the event of approval 1: it isn't the event that the receipt names", pack=renamed)


def test_one_person_approving_twice_is_disproved() -> None:
    def twice(issuing: Issuing) -> None:
        again = {**issuing.receipt["approvals"][0], "event_id": str(uuid4())}
        issuing.receipt["approvals"].append(again)
        payload = {**issuing.events[1].payload, "event_id": again["event_id"]}
        issuing.events.insert(2, LoggedEvent(payload))

    lie("two approvals are of one person", state=twice)


def test_events_out_of_order_are_disproved() -> None:
    """The approval came into the log after the steps: each event is genuine, but nobody had approved."""

    def late(issuing: Issuing) -> None:
        issuing.events.insert(5, issuing.events.pop(1))

    def in_place(issuing: Issuing) -> None:
        issuing.bundle["events"].insert(1, issuing.bundle["events"].pop(5))

    lie("aren't in the order in which the log recorded them", pack=late, end=in_place)


# Which event is moved, by how much, and what follows; 5 is the last step's outcome, 6 the decision, 7 the issue.
MOMENTS = [
    ("approvals.0.at", "2026-03-08T12:29:00.250000Z", ""),
    ("approvals.0.at", "2026-03-08T12:28:59.250000Z", "the event of approval 1: .*before what it follows"),
    ("execution.steps.0.intended_at", "2026-03-08T12:30:00.250000Z", "the event of the intent of create_snapshot: "),
    ("execution.steps.1.intended_at", "2026-03-10T10:59:00.000000Z", "the event of the intent of delete_volume: "),
    ("decided.at", "2026-07-01T00:00:00.000000Z", "the event of the issue: .*before what it follows"),
]


@pytest.mark.parametrize(("path", "at", "why"), MOMENTS)
def test_a_moment_before_what_it_follows_is_disproved(path: str, at: str, why: str) -> None:
    """Who wrote the approval after the steps can write it into the log before them, but not at the time it says."""
    change = setting("receipt", path, at)

    def moved(issuing: Issuing) -> None:
        change(issuing)
        issuing.events = issuing._events()

    if why:
        lie(why, state=moved)
    else:
        check_receipt(issue(cases.deleted_volume(), SIGNATORIES, state=moved), KEY)


@pytest.mark.parametrize(("at", "why"), [("2026-06-01T00:01:00.000000Z", ""), ("2026-06-01T00:01:00.000001Z", "after")])
def test_what_happened_after_it_was_recorded_is_disproved(at: str, why: str) -> None:
    """Of a key of somebody's own machine nothing is asked: its clock can be moved."""
    public = Signatories(Signer("recoup.example/log", Ed25519PrivateKey.generate()))

    def moved(issuing: Issuing) -> None:
        issuing.receipt["issued_at"] = at

    check_receipt(issue(cases.deleted_volume(), SIGNATORIES, state=moved), KEY)
    raw, key = issue(cases.deleted_volume(), public, state=moved), parse_key(public.log.verifier_key.text())
    if not why:
        check_receipt(raw, key)
        return
    with pytest.raises(Disproved, match="the event of the issue: it says that it happened after the log recorded it"):
        check_receipt(raw, key)


def test_missing_or_surplus_events_are_disproved() -> None:
    lie("has 7 events, but the receipt names 8", end=lambda issuing: issuing.bundle["events"].pop(3))
    lie("has 9 events", end=lambda issuing: issuing.bundle["events"].append(issuing.bundle["events"][-1]))
    lie("more than 100 events", end=lambda issuing: issuing.bundle.update(events=issuing.bundle["events"] * 13))


def test_a_broken_chain_is_disproved() -> None:
    """Two of the organization's events that follow each other, of which the second doesn't know the first."""

    def unchained(issuing: Issuing) -> None:
        issuing.events[2].previous = b"x" * 32

    def repeated(issuing: Issuing) -> None:
        issuing.events[2].number = 2

    lie("chain of events is broken between two that follow each other", pack=unchained)
    lie("in the order in which the log recorded them", pack=repeated)


@pytest.mark.parametrize("before", [1, 3])
def test_events_of_two_heads_are_disproved(before: int) -> None:
    """A log that shows different people different trees could put events together that never stood in one."""

    def forked(issuing: Issuing) -> None:
        other = Issuing(cases.deleted_volume(), SIGNATORIES)
        other.events = [*issuing.events]
        other.events[0].payload["trace_id"] = "other"
        other.events[0].before = before
        other.statement, other.receipt = issuing.statement, issuing.receipt
        other.pack()
        issuing.bundle["events"][4:] = other.bundle["events"][4:]

    lie("the proofs don't all lead to one checkpoint", end=forked)


# What the statement says otherwise than the documents.
STATEMENT = [
    ("predicate.decision", "PARTIAL"),
    ("predicate.economic.amount", "1"),
    ("predicate.inputs", []),
    ("predicate.event_ids", []),
    ("predicate.approvals.0.role", "ADMIN"),
    ("predicate.baseline_window.from_day", "2026-02-07"),
    ("predicate.observed_window.to_day", "2026-03-18"),
    ("predicate.extra", ""),
    ("subject.0.name", "receipts/other"),
    ("predicateType", "https://recoup.invalid/receipt/v2"),
]


@pytest.mark.parametrize(("path", "value"), STATEMENT, ids=lambda value: str(value)[:40])
def test_a_statement_that_does_not_follow_is_disproved(path: str, value: object) -> None:
    lie("isn't the one that the receipt's documents give", issue=setting("statement", path, value))


def test_a_statement_about_another_receipt_is_disproved() -> None:
    lie("receipt: its digest isn't what", issue=setting("statement", "subject.0.digest.sha256", "0" * 64))
    lie("must have one subject", issue=setting("statement", "subject", []))


def test_a_key_outside_of_its_range_is_disproved() -> None:
    """The issue is leaf 15 of 18; a range holds its first tree size and not its last."""
    key = Signatories(SIGNATORIES.log)
    for valid, good in (
        ("15 -", True),
        ("0 16", True),
        ("15 16", True),
        ("16 -", False),
        ("0 15", False),
        ("0 1", False),
    ):
        key.valid = valid
        raw = issue(cases.deleted_volume(), key)
        if good:
            check_receipt(raw, KEY)
        else:
            with pytest.raises(Disproved, match="the issue is outside of its range"):
                check_receipt(raw, KEY)


@pytest.mark.parametrize(
    "valid", ["5 5", "5 4", "5 0", "-1 -", "0 +", "00 -", "0 - ", "0", f"0 {2**63}", "0 -\nother ed25519 A= 0 -"]
)
def test_a_manifest_that_cannot_be_is_disproved(valid: str) -> None:
    with pytest.raises(Disproved, match="key manifest"):
        check_receipt(issue(cases.deleted_volume(), Signatories(SIGNATORIES.log, valid=valid)), KEY)


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}/keys\nrecoup-keys/v1\n",
        f"{ORIGIN}\nrecoup-keys/v1\nKEY",
        f"{ORIGIN}/keys\nrecoup-keys/v2\nKEY",
        f"{ORIGIN}/keys\nrecoup-keys/v1\nKEYKEY",
        f"{ORIGIN}/keys\nrecoup-keys/v1\n\nKEY",
    ],
)
def test_another_text_than_a_manifest_is_disproved(text: str) -> None:
    """The log's key signs other notes too: none of them may be taken for a manifest."""
    line = f"receipt ed25519 {b64(SIGNATORIES.receipt_public)} 0 -\n"

    def change(issuing: Issuing) -> None:
        issuing.bundle["key_manifest"] = SIGNATORIES.log.sign(text.replace("KEY", line))

    lie("key manifest", end=change)


def test_a_checkpoint_is_no_manifest_and_the_other_way_round() -> None:
    def swapped(issuing: Issuing) -> None:
        for event in issuing.bundle["events"]:
            event["proof"] = event["proof"].partition("\n\n")[0] + "\n\n" + issuing.bundle["key_manifest"]

    def checkpoint(issuing: Issuing) -> None:
        issuing.bundle["key_manifest"] = issuing.bundle["events"][0]["proof"].partition("\n\n")[2]

    lie("the checkpoint's text isn't a tree head of this log", end=swapped)
    lie("the key manifest's text isn't that of this log", end=checkpoint)


def test_a_manifest_by_another_key_is_disproved() -> None:
    forger = Signatories(Signer(ORIGIN, Ed25519PrivateKey.generate()))

    def change(issuing: Issuing) -> None:
        issuing.bundle["key_manifest"] = forger.manifest()
        issuing.bundle["envelope"] = envelope(rfc8785.dumps(issuing.statement), forger)

    lie("the key manifest isn't signed by the key that you gave", end=change)


def test_a_receipt_key_that_nobody_listed_is_disproved() -> None:
    """The forger knows everything but the receipt key."""
    forger = Signatories(SIGNATORIES.log)

    def signed_by_forger(issuing: Issuing) -> None:
        issuing.bundle["envelope"] = envelope(rfc8785.dumps(issuing.statement), forger)

    def under_a_listed_name(issuing: Issuing) -> None:
        signed_by_forger(issuing)
        issuing.bundle["envelope"]["signatures"][0]["keyid"] = sha256(SIGNATORIES.receipt_public)

    lie("doesn't list the key that the envelope names", end=signed_by_forger)
    lie("the envelope's signature is wrong", end=under_a_listed_name)


def test_an_amount_changed_by_who_cannot_sign_is_disproved() -> None:
    """All digests are computed anew, up to the statement, whose signature then is the old one."""

    def change(issuing: Issuing) -> None:
        bundle = issuing.bundle
        measurement = bundle["measurement"].replace('"economic":"59.5"', '"economic":"99.5"')
        receipt = bundle["receipt"].replace(sha256(bundle["measurement"].encode()), sha256(measurement.encode()))
        receipt = receipt.replace('"amount":"59.5"', '"amount":"99.5"')
        issuing.statement["subject"][0]["digest"]["sha256"] = sha256(receipt.encode())
        issuing.statement["predicate"]["economic"]["amount"] = "99.5"
        bundle.update(measurement=measurement, receipt=receipt)
        bundle["envelope"]["payload"] = b64(rfc8785.dumps(issuing.statement))

    lie("the envelope's signature is wrong: the statement or the signature was changed", end=change)


# What the bundle has otherwise than its issuer made it: one part at a time.
PARTS = [
    ("envelope.payloadType", "text/plain", "one in-toto statement"),
    ("envelope.signatures", [], "one in-toto statement"),
    ("envelope.extra", "", "unknown field extra"),
    ("envelope.payload", "e30=\n", "isn't base64|canonical base64"),
    ("events.0.salt", b64(b"s" * 32), "the event of the request: the payload isn't the one that the leaf commits to"),
    ("events.0.salt", "AB==", "isn't canonical base64"),
    ("events.0.payload", "{}", "the event of the request: the payload isn't the one that the leaf commits to"),
    ("events.0.leaf", "{}", "the event of the request: the proof doesn't lead to the signed root"),
    ("events.0.extra", "", "unknown field extra"),
    ("events.0", "", "must be an object"),
    ("plan", "{}", "plan: its digest isn't what the receipt says"),
    ("receipt", "{}", "receipt: its digest isn't what the signed statement says"),
    ("key_manifest", "", "(isn't a note with signature lines|that is nobody's)"),
]


@pytest.mark.parametrize(("path", "value", "why"), PARTS, ids=lambda value: str(value)[:40])
def test_a_changed_part_is_disproved_by_name(path: str, value: object, why: str) -> None:
    lie(why, end=setting("bundle", path, value))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("index 1\n", "index 2\n", "doesn't lead to the signed root"),
        ("index 1\n", "index 01\n", "isn't a tlog-proof"),
        ("index 1\n", "index 99\n", "outside of the signed tree"),
        ("index 1\n", f"index {'9' * 5000}\n", "isn't a tlog-proof"),
        ("index 1\n", "extra e30=\nindex 1\n", "isn't a tlog-proof"),
        ("c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2", "isn't a tlog-proof"),
        ("\n\n", "\nAAAA\n\n", "hasn't 32 bytes"),
        ("\n\n", "\n" + b64(b"h" * 32) + "\n\n", "longer than the tree is high"),
        ("\n\n", "\n" + f"{b64(b'h' * 32)}\n" * 64 + "\n", "longer than any tree is high"),
        (f"\n\n{ORIGIN}\n18\n", f"\n\n{ORIGIN}\n19\n", "checkpoint's signature is wrong"),
        ("\n\u2014 ", "\n\u2014 witness.example AAAA\n\u2014 ", "(isn't a note with signature lines|that is nobody's)"),
        ("\n\u2014 ", "\n\n\u2014 ", "checkpoint's signature is wrong"),
        ("\n\u2014 ", "\n- ", "signature isn't base64"),
    ],
)
def test_a_proof_that_was_changed_is_disproved(old: str, new: str, why: str) -> None:
    def change(issuing: Issuing) -> None:
        event = issuing.bundle["events"][0]
        assert old in event["proof"]
        event["proof"] = event["proof"].replace(old, new, 1)

    lie(f"the event of the request: .*({why})", end=change)


@pytest.mark.parametrize("part", ["receipt", "plan", "baseline", "measurement"])
def test_a_document_in_another_spelling_is_disproved(part: str) -> None:
    """The issuer itself signed it, but two spellings of one document have two digests."""

    def change(issuing: Issuing) -> None:
        document = getattr(issuing, part)
        document["v"] = 1.0

    stage = {"receipt": "state", "measurement": "write"}.get(part, "hash")
    raw = issue(cases.deleted_volume(), SIGNATORIES, **{stage: change})
    spaced = raw.decode().replace('\\"v\\":1}', '\\"v\\":1 }').encode()
    with pytest.raises(Disproved):
        check_receipt(spaced, KEY)


@pytest.mark.parametrize(
    ("stage", "part", "path", "value"),
    [
        ("state", "receipt", "v", 2),
        ("hash", "plan", "v", 2),
        ("hash", "baseline", "v", 2),
        ("hash", "measurement", "v", 2),
        ("hash", "measurement", "method", "recoup-savings/2"),
        ("hash", "plan", "measurement.method", "recoup-savings/2"),
    ],
)
def test_what_a_later_version_signed_cannot_be_told(stage: str, part: str, path: str, value: object) -> None:
    raw = issue(cases.deleted_volume(), SIGNATORIES, **{stage: setting(part, path, value)})
    with pytest.raises(CannotTell, match="unknown to this verifier"):
        check_receipt(raw, KEY)


def test_numbers_that_no_method_can_hold_are_disproved() -> None:
    def huge(issuing: Issuing) -> None:
        for each in issuing.baseline["rows"]:
            each["quantity"] = "9" * 60

    lie("too large for the method", hash=huge)


def test_leakage_of_one_resource_twice_or_of_the_measured_one_is_disproved() -> None:
    """Whose cost is netted twice, or as its own leakage, isn't measured any more."""

    def also(resource: Document) -> Callable[[Issuing], None]:
        return lambda issuing: issuing.measurement["leakage"].append({"resource": resource, "rows": []})

    for resource in (cases.resource("ec2.snapshot", "snap-1"), cases.resource("ec2.volume", "vol-0123")):
        lie("its leakage has a resource twice, or the resource itself", hash=also(resource))


def test_an_estimate_in_another_currency_is_disproved() -> None:
    def change(issuing: Issuing) -> None:
        issuing.plan["measurement"]["estimate"]["currency"] = issuing.measurement["estimate"]["currency"] = "EUR"

    lie("its estimate is in another currency", hash=change)


def test_the_price_of_what_is_still_used_is_that_of_the_reporting_period() -> None:
    """A baseline's higher price would claim the price cut."""

    def own_price(issuing: Issuing) -> None:
        rows = issuing.baseline["rows"]
        costs = {f"{name}_cost": str(sum(int(row[f"{name}_cost"]) for row in rows)) for name in ("billed", "list")}
        issuing.measurement["prices"] = [cases.price(str(2400 * 28), "280", "BASELINE", **costs)]

    lie("the resource was charged for it in the window", cases.deletion_that_failed(), hash=own_price)


def test_sums_below_the_resources_own_are_disproved() -> None:
    """$9 a day at 3,359 units: the resource alone had 7 × 480 = 3,360."""
    lie(
        "less than the resource's own rows have",
        cases.deletion_that_failed(),
        hash=setting("measurement", "prices.0.quantity", "3359"),
    )


def test_baseline_and_measurement_must_agree_on_a_batch() -> None:
    def change(issuing: Issuing) -> None:
        other: Document = {**issuing.baseline["batches"][1], "sha256": "0" * 64}
        issuing.measurement["batches"] = [other]

    lie("differ on the batch", hash=change)


def test_the_bundles_of_these_tests_are_what_they_seem() -> None:
    """Without a lie the same issuer is believed, so that each test above rests on its lie alone."""
    raw = issue(cases.deleted_volume(), SIGNATORIES)
    check_receipt(raw, KEY)
    check_receipt(issue(cases.deletion_that_failed(), SIGNATORIES), KEY)
    assert load(raw)["v"] == 1
