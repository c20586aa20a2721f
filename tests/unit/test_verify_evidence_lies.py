"""The offline verifier on evidence bundles that lie, logged, signed and sealed as if they were true: each by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recoup_verify.documents import CannotTell, Disproved
from recoup_verify.log import parse_key
from services.audit.model.cosigning import Cosigner
from tests.support.evidence_bundle import NAME, STAGES, Bundling, Change, bundled
from tests.support.evidence_checks import KEYS, OTHER_KEY, RECEIPT_FILE, TRUST, check, lie, lines_changed, named, new
from tests.support.receipt_log import b64


def ids(made: Bundling) -> list[str]:
    return [json.loads(each.leaf)["event_id"] for each in made.log.placed]


def undisclosed(_number: int, _day: str) -> Change:
    """An event of the period is shown by its leaf alone."""
    return lambda made: lines_changed(made, 15, lambda line: [line.pop(name) for name in ("payload", "salt")])


def test_a_narrower_scope_may_leave_events_of_the_period_undisclosed(tmp_path: Path) -> None:
    def narrower(made: Bundling) -> None:
        made.scope = "actions/00000000-0000-0000-0000-000000000002"
        lines_changed(made, 15, lambda line: [line.pop(name) for name in ("payload", "salt")])
        records = json.loads(made.files["changes.json"])
        made.files["changes.json"] = rfc8785.dumps([each for each in records if each["event_id"] != ids(made)[14]])

    lie("neither disclosed nor said to be erased", tmp_path / "whole", state=undisclosed(17, "2026-06-30"))
    assert check(bundled(new(), state=narrower), tmp_path / "narrow").withheld == 4


# --- What its issuer does, who can sign: events dropped, moved, exchanged; heads that aren't the log's.


def dropped(number: int) -> Change:
    def change(made: Bundling) -> None:
        lines = made.files["events.jsonl"].splitlines(keepends=True)
        del lines[number]
        made.files["events.jsonl"] = b"".join(lines)
        del made.files["head.json"]  # which would know better already

    return change


def swapped(first: int, second: int) -> Change:
    def change(made: Bundling) -> None:
        lines = made.files["events.jsonl"].splitlines(keepends=True)
        lines[first], lines[second] = lines[second], lines[first]
        made.files["events.jsonl"] = b"".join(lines)

    return change


def replaced(name: str, old: bytes, new_: bytes) -> Change:
    def change(made: Bundling) -> None:
        assert old in made.files[name]
        made.files[name] = made.files[name].replace(old, new_, 1)

    return change


def line(number: int, **fields: Any) -> Change:
    return lambda made: lines_changed(made, number, lambda found: found.update(fields))


def payload_of(other: int) -> Change:
    """Line 5 has the payload and salt of another event."""

    def change(made: Bundling) -> None:
        lines = [json.loads(each) for each in made.files["events.jsonl"].splitlines()]
        lines_changed(made, 5, lambda found: found.update({n: lines[other - 1][n] for n in ("payload", "salt")}))

    return change


def document(name: str, change: Callable[[Any], Any]) -> Change:
    def changed(made: Bundling) -> None:
        found = json.loads(made.files[name])
        change(found)
        made.files[name] = rfc8785.dumps(found)

    return changed


def tree(shard: int, change: Callable[[list[bytes]], list[bytes]]) -> Change:
    def changed(made: Bundling) -> None:
        name = f"log/{shard}/tree.txt"
        made.files[name] = b"".join(change(made.files[name].splitlines(keepends=True)))

    return changed


def note(shard: int, text: str) -> Change:
    """A checkpoint that the log's key signed over another text."""

    def changed(made: Bundling) -> None:
        made.files[f"log/{shard}/checkpoint"] = made.log.trees[shard].signer.sign(text).encode()

    return changed


EVENTS: list[tuple[Change, str]] = [
    (dropped(0), "line 1: it is the organization's event 2, not 1: one is missing"),
    (dropped(6), "line 7: it is the organization's event 8, not 7: one is missing"),
    (swapped(5, 6), "line 6: it is the organization's event 7, not 6"),
    (line(5, index=1), "isn't in the order of the tree|don't lead to the root"),
    (line(5, index=1000), "there is an event at index 1000"),
    (line(5, index=-1), "isn't in the order of the tree|don't lead to the root"),
    (line(5, shard=1), "an event of shard|there is an event|don't lead|isn't in the order|lacks hashes|more hashes"),
    (line(17, shard=2), "has an event of shard 2, where it can't be|lacks hashes|don't lead"),
    (line(5, extra=""), "line 5: it has the unknown field extra"),
    (line(5, index="9"), "index must be a whole number"),
    (line(5, salt="AB=="), "line 5: its salt isn't canonical base64"),
    (line(5, salt=b64(b"s" * 32)), "line 5: the payload isn't the one that the leaf commits to"),
    (line(5, payload="{}"), "line 5: the payload isn't the one that the leaf commits to"),
    (payload_of(6), "line 5: the payload isn't the one that the leaf commits to"),
    (line(1, erased=False), "line 1: erased can only be true"),
    (line(5, erased=True), "line 5: it has the unknown field erased"),
    (line(5, leaf="{}"), "the leaf hasn't the fields of one"),
    (undisclosed(15, ""), "line 15: the event is of the bundle's period, but is neither disclosed nor said"),
    (replaced("events.jsonl", b'{"index"', b'{ "index"'), "line 1: it isn't canonical JSON"),
    (replaced("events.jsonl", b'"shard":0}', b'"shard":0,"shard":0}'), "the field 'shard' is there twice"),
    (replaced("events.jsonl", b'\\"producer\\":', b'\\"producer\\" :'), "the leaf isn't canonical"),
    (replaced("events.jsonl", b'"shard":0}\n', b'"shard":0}\n\n'), "line 2"),
    (replaced("events.jsonl", b'"shard":0}\n', b'"shard":0}\r\n'), "line 1: it isn't canonical JSON"),
    (tree(0, lambda lines: lines[:-1]), "tree.txt lacks hashes of the tree"),
    (tree(0, lambda lines: [*lines, lines[0]]), "tree.txt has more hashes than the tree needs"),
    (tree(0, lambda lines: lines[::-1]), "don't lead to the root of log/0/checkpoint"),
    (
        tree(1, lambda lines: [b64(b"h" * 32).encode() + b"\n", *lines[1:]]),
        "don't lead to the root of log/1/checkpoint",
    ),
    (tree(0, lambda lines: [b"AAAA\n", *lines[1:]]), "tree.txt has a hash that hasn't 32 bytes"),
    (tree(0, lambda lines: [lines[0][:-3] + b"B=\n", *lines[1:]]), "tree.txt isn't canonical base64"),
    (tree(0, lambda lines: [b" " + lines[0], *lines[1:]]), "tree.txt isn't base64"),
    (replaced("log/0/checkpoint", b"\n30\n", b"\n31\n"), "log/0/checkpoint's signature is wrong"),
    (note(0, f"{NAME}\n30\n{b64(b'r' * 32)}\n"), "opening.json: it doesn't continue log/0/checkpoint"),
    (note(1, f"{NAME}/1\n11\n{b64(b'r' * 32)}\n"), "its head doesn't continue log/1/checkpoint"),
    (note(0, f"{NAME}\n0\n{b64(b'r' * 32)}\n"), "root or size can't be"),
    (note(0, f"{NAME}\n29\n{b64(b'r' * 32)}\n"), "isn't the head that the signed manifest says"),
    (replaced("log/0/checkpoint", b"\n\xe2", b"\n\xe2\x80\x94 other AAAA\n\xe2"), "nobody's|isn't signed by the key"),
    (lambda made: made.files.pop("log/1/opening.json"), "lacks the file log/1/opening.json"),
    (lambda made: made.files.pop("log/1/tree.txt"), "lacks the file log/1/tree.txt"),
    (lambda made: made.files.pop("log/0/checkpoint"), "lacks the file log/0/checkpoint"),
]


@pytest.mark.parametrize(("change", "why"), EVENTS, ids=named)
def test_events_and_trees_that_are_not_the_logs_are_disproved(change: Change, why: str, tmp_path: Path) -> None:
    lie(why, tmp_path, state=change)


def test_an_event_left_out_at_the_end_is_disproved_by_what_the_log_published(tmp_path: Path) -> None:
    """All is signed anew without it: only the heads that the log published for everybody know better."""

    def cut(made: Bundling) -> None:
        del made.log.placed[-1]

    lie(
        "the end was cut off: the log published that the organization has 17 events, but the bundle ends at 16",
        tmp_path,
        write=cut,
    )


def published_as(**said: Any) -> Bundling:
    """The log published something else of the organization than what the bundle has."""
    made = new()
    entry = {"leaf": "0" * 64, "organization_id": str(UUID(int=1)), "org_seq": 9, "salt": "ab" * 16, "v": 1, **said}
    made.publish = lambda: made.publish_entry(rfc8785.dumps(entry))  # type: ignore[method-assign]
    return made


def test_a_published_head_that_the_bundle_does_not_lead_to_is_disproved(tmp_path: Path) -> None:
    """The log published the hash of another event under the same number: one of two histories."""
    lie("line 9: the log published another event as the organization's number 9", tmp_path / "leaf", published_as())
    why = "head.json: its entry is of another organization"
    lie(why, tmp_path / "other", published_as(organization_id=str(UUID(int=9))))
    lie("its entry has the unknown field extra", tmp_path / "extra", published_as(extra=""))

    def another(made: Bundling) -> None:
        made.entry = made.entry.replace(b'"org_seq":17', b'"org_seq":16')

    lie("head.json: its entry isn't among those that the log published", tmp_path / "entry", write=another)


HEADS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda head: head.update(position=6), "head.json: its entry isn't among those"),
    (lambda head: head.update(position=16), "head.json: its entry isn't among those"),
    (lambda head: head["path"].pop(), "head.json: its entry isn't among those"),
    (lambda head: head.update(path=["AAAA", *head["path"][1:]]), "hasn't 32 bytes"),
    (lambda head: head.update(index=3), "its index or shard isn't that of its proof"),
    (lambda head: head.update(shard=0), "its proof leads to another checkpoint than the bundle's"),
    (lambda head: head.update(payload="{}"), "head.json: the payload isn't the one that the leaf commits to"),
    (lambda head: head.update(leaf="{}"), "head.json: the proof doesn't lead to the signed root"),
    (lambda head: head.update(extra=""), "unknown field extra"),
    (lambda head: head.update(proof=head["proof"].replace("index 7", "index 8")), "longer than the tree is high"),
    (lambda head: head.update(proof=head["proof"].replace("index 7", "index 99")), "outside of the signed tree"),
]


@pytest.mark.parametrize(("change", "why"), HEADS, ids=named)
def test_a_published_head_that_is_none_is_disproved(change: Callable[[Any], Any], why: str, tmp_path: Path) -> None:
    lie(why, tmp_path, state=document("head.json", change))


OPENINGS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda found: found.update(proof=found["proof"].replace("index 0", "index 1")), "doesn't lead to the signed root"),
    (lambda found: found.update(salt=b64(b"s" * 32)), "opening.json: the payload isn't the one"),
]


@pytest.mark.parametrize(("change", "why"), OPENINGS)
def test_an_opening_that_is_none_is_disproved(change: Callable[[Any], Any], why: str, tmp_path: Path) -> None:
    lie(why, tmp_path, state=document("log/1/opening.json", change))


def test_another_event_as_an_opening_is_disproved(tmp_path: Path) -> None:
    def other(made: Bundling) -> None:
        made.opening = made.log.placed[-1]

    lie("opening.json: the event's producer is 'identity', not 'audit'", tmp_path, write=other)


# What an event's leaf or payload has otherwise, in a log that was built on it.
LEAVES = [
    ({"organization_seq": 9}, "line 6: it is the organization's event 9, not 6"),
    ({"previous": b"x" * 32}, "line 6: it doesn't follow the event before it: the organization's chain is broken"),
    ({"organization_id": UUID(int=9)}, "line 6: it is of another organization"),
    (
        {"event_id": UUID(int=9)},
        "event_id isn't the leaf's|isn't in events.jsonl|isn't the event that the receipt names",
    ),
    ({"producer": "Mallory"}, "the leaf isn't canonical|wrote it, not actions"),
    ({"producer_counter": -1}, "the leaf isn't canonical"),
]


@pytest.mark.parametrize(("odd", "why"), LEAVES, ids=named)
def test_a_leaf_that_lies_is_disproved(odd: dict[str, Any], why: str, tmp_path: Path) -> None:
    """The receipt has its events in places 3 to 10; it is left out, so that the export alone is asked."""
    lie(why, tmp_path, new(odd={6: odd}), write=lambda made: made.files.pop(RECEIPT_FILE))


def test_a_payload_outside_of_the_period_is_disproved(tmp_path: Path) -> None:
    lie("line 1: the event isn't of the bundle's period", tmp_path, state=shown(1))


def shown(number: int) -> Change:
    def change(made: Bundling) -> None:
        placed = made.log.placed[number - 1]
        said = {"payload": placed.payload.decode(), "salt": b64(placed.salt)}
        lines_changed(made, number, lambda found: found.update(said))

    return change


# --- The lists for people, and the receipts.


def first(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda records: change(records[0])


RECORDS: list[tuple[str, Callable[[Any], Any], str]] = [
    ("approvals.json", first(lambda each: each.update(actor="user:eve")), "has another actor of"),
    (
        "approvals.json",
        first(lambda each: each.update(action="actions.action.reject")),
        "has another action of",
    ),
    ("approvals.json", first(lambda each: each["metadata"].update(plan_hash="0")), "has another metadata of"),
    ("approvals.json", first(lambda each: each.update(event_id=str(UUID(int=5)))), "approvals.json"),
    ("approvals.json", first(lambda each: each.update(event_id="")), "approvals.json"),
    ("approvals.json", first(lambda each: each.pop("event_id")), "record 1 doesn't name its event"),
    ("approvals.json", lambda records: records.clear(), "approvals.json leaves out actions.action.approve"),
    ("approvals.json", lambda records: records.append("x"), "record 2 doesn't name its event"),
    ("changes.json", lambda records: records.pop(0), "changes.json leaves out identity.member.grant"),
    ("changes.json", lambda records: records.pop(), "changes.json leaves out identity.member.remove"),
    ("break_glass.json", lambda records: records.clear(), "break_glass.json leaves out audit.alarm.raise"),
    ("break_glass.json", lambda records: records.pop(), "break_glass.json leaves out scanner.scan.finish"),
    ("break_glass.json", first(lambda each: each.update(authority="passport:1")), "has another authority of"),
    ("changes.json", first(lambda each: each.update(occurred_at="2026-06-02T08:00:00.000001Z")), "another occurred_at"),
    ("changes.json", lambda records: records.append({"event_id": str(UUID(int=5))}), "doesn't disclose"),
    ("scans.json", first(lambda each: each.update(event_id=str(UUID(int=5)))), "scans.json names the event"),
    ("keys.json", first(lambda each: each.update(event_id=1)), "record 1 doesn't name its event"),
]


@pytest.mark.parametrize(("name", "change", "why"), RECORDS, ids=named)
def test_a_list_that_says_otherwise_than_the_log_is_disproved(
    name: str, change: Callable[[Any], Any], why: str, tmp_path: Path
) -> None:
    lie(why, tmp_path, state=document(name, change))


def test_a_list_that_names_events_of_another_kind_is_disproved(tmp_path: Path) -> None:
    def moved(made: Bundling) -> None:
        made.files["exceptions.json"] = made.files["changes.json"]

    lie("exceptions.json names the event .* which is identity.member.grant", tmp_path, state=moved)


def test_receipts_that_are_not_these_are_disproved(tmp_path: Path) -> None:
    def renamed(made: Bundling) -> None:
        made.files[f"receipts/{uuid4()}.json"] = made.files.pop(RECEIPT_FILE)

    def forged(made: Bundling) -> None:
        made.files[RECEIPT_FILE] = made.files[RECEIPT_FILE].replace(b"59.5", b"69.5")

    def foreign(made: Bundling) -> None:
        made.files[RECEIPT_FILE] = bundled(new()).files[RECEIPT_FILE]

    lie("it is another receipt", tmp_path / "renamed", state=renamed)
    lie(f"{RECEIPT_FILE}: receipt: its digest isn't what", tmp_path / "forged", state=forged)
    lie(f"{RECEIPT_FILE}", tmp_path / "foreign", state=foreign)


# --- Statement and seal.

CLAIMS: list[tuple[str, Any, str]] = [
    ("predicate.v", True, "must be a whole number|version or heads can't be"),
    ("predicate.organization_id", str(UUID(int=9)), "the event's organization_id is"),
    ("predicate.log", "other.example/log", "isn't the head that the signed manifest says"),
    ("predicate.heads", [], "heads can't be"),
    ("predicate.heads.0.size", 29, "log/0/checkpoint isn't the head that the signed manifest says"),
    ("predicate.heads.0.shard", 1, "heads can't be"),
    ("predicate.chain.org_seq", 16, "the end was cut off|doesn't continue the chain"),
    ("predicate.chain.leaf", "0" * 64, "doesn't continue the chain|not where the signed manifest says"),
    ("predicate.counts.events", 16, "says that there are 16 events, but there are 17"),
    ("predicate.counts.disclosed", 17, "says that there are 17 disclosed, but there are 13"),
    ("predicate.counts.erased", 0, "says that there are 0 erased, but there are 1"),
    ("predicate.counts.receipts", 0, "says that there are 0 receipts, but there are 1"),
    ("predicate.period.from", "2026-03-01", "period can't be"),
    ("predicate.period.to", "2026-02-01T00:00:00.000000Z", "period can't be"),
    ("predicate.period.to", "2026-06-02T00:00:00.000000Z", "isn't of the bundle's period"),
    ("predicate.created_at", "now", "period can't be"),
    ("predicate.extra", "", "unknown field extra"),
    ("predicateType", "https://recoup.invalid/receipt/v1", "isn't a statement about an evidence bundle"),
    ("subject.0.digest.sha256", "0" * 64, "its digest isn't what the signed manifest says"),
    ("subject.0.name", "zzz", "in the order of their names"),
    ("subject.0.extra", "", "unknown field extra"),
    ("subject", [], "has the file that nobody signed"),
]


def at_path(found: Any, path: str, value: Any) -> None:
    *way, last = [int(name) if name.isdigit() else name for name in path.split(".")]
    for name in way:
        found = found[name]
    found[last] = value


@pytest.mark.parametrize(("path", "value", "why"), CLAIMS, ids=named)
def test_a_statement_that_does_not_follow_is_disproved(path: str, value: Any, why: str, tmp_path: Path) -> None:
    lie(why, tmp_path, sign=lambda made: at_path(made.statement, path, value))


def test_a_later_version_cannot_be_told(tmp_path: Path) -> None:
    made = bundled(new(), sign=lambda made: at_path(made.statement, "predicate.v", 2))
    with pytest.raises(CannotTell, match="version 2 are unknown to this verifier"):
        check(made, tmp_path)


SEALINGS: list[tuple[str, Any, str]] = [
    ("action", "audit.evidence.start", "the event's action is 'audit.evidence.start'"),
    ("target", f"evidence/{UUID(int=5)}", "the event's target is"),
    ("result", "DENIED", "the event's result is 'DENIED'"),
    ("organization_id", str(UUID(int=9)), "the event's organization_id is"),
    (
        "metadata.statement_sha256",
        "0" * 64,
        "its statement_sha256 isn't that of manifest.json: it seals another bundle",
    ),
    ("metadata.events", "16", "its events isn't that of manifest.json"),
    ("metadata", {}, "its statement_sha256 isn't that of manifest.json"),
]


@pytest.mark.parametrize(("path", "value", "why"), SEALINGS, ids=named)
def test_a_seal_that_says_otherwise_is_disproved(path: str, value: Any, why: str, tmp_path: Path) -> None:
    lie(why, tmp_path, close=lambda made: at_path(made.sealing, path, value))


SEALS: list[tuple[Callable[[Any], Any], str]] = [
    (lambda seal: seal.update(v=2), "version 2|must be"),
    (lambda seal: seal.update(extra=""), "unknown field extra"),
    (lambda seal: seal["consistency"].pop(), "its head doesn't continue log/1/checkpoint"),
    (lambda seal: seal["consistency"].append(b64(b"h" * 32)), "its head doesn't continue log/1/checkpoint"),
    (lambda seal: seal.update(consistency=["AB=="]), "isn't canonical base64"),
    (lambda seal: seal.update(consistency=[b64(b"h" * 32)] * 64), "consistency is longer than any tree"),
    (lambda seal: seal.update(proof=seal["proof"].replace("index 11", "index 10")), "doesn't lead to the signed root"),
    (lambda seal: seal.update(proof=seal["proof"].replace("index 11", "index 15")), "outside of the signed tree"),
    (lambda seal: seal.update(key_manifest=seal["key_manifest"].replace("evidence ", "receipt ")), "key manifest"),
    (lambda seal: seal.update(key_manifest=""), "key manifest"),
]


@pytest.mark.parametrize(("change", "why"), SEALS, ids=named)
def test_a_seal_that_does_not_prove_is_disproved(change: Callable[[Any], Any], why: str, tmp_path: Path) -> None:
    made = bundled(new(), finish=lambda made: change(made.seal))
    with pytest.raises((Disproved, CannotTell), match=why):
        check(made, tmp_path)


@pytest.mark.parametrize(
    ("valid", "good"), [("1:11 -", True), ("1:11 1:12", True), ("1:12 -", False), ("0:0 1:11", False)]
)
def test_an_evidence_key_outside_of_its_range_is_disproved(valid: str, good: bool, tmp_path: Path) -> None:
    """The seal is leaf 11 of shard 1."""
    made = bundled(new(evidence_range=valid))
    if good:
        check(made, tmp_path)
        return
    with pytest.raises(Disproved, match="the seal is outside of its range"):
        check(made, tmp_path)


def test_a_key_that_the_manifest_does_not_list_for_evidence_is_disproved(tmp_path: Path) -> None:
    def forger(made: Bundling) -> None:
        made.evidence_key = OTHER_KEY

    def back(made: Bundling) -> None:
        made.evidence_key = KEYS["evidence_key"]

    lie("doesn't list the key that the envelope names", tmp_path / "other", sign=forger, close=back)


def test_who_must_have_cosigned_is_asked_of_the_seals_head(tmp_path: Path) -> None:
    """It continues all others, so that nobody asks for cosignatures of those."""
    witness = Cosigner("witness.example/w", Ed25519PrivateKey.generate())
    trust = TRUST._replace(witnesses=[parse_key(witness.witness.text(), b"\x04")], wanted=1)
    with pytest.raises(Disproved, match="cosigned by 0 of the 1 witnesses that you ask for"):
        check(bundled(new(), state=lambda made: made.files.pop(RECEIPT_FILE)), tmp_path / "none", trust)

    def cosigned(made: Bundling) -> None:
        text = made.seal["proof"].partition("\n\n")[2].rpartition("\n\n")[0] + "\n"
        made.seal["proof"] += witness.cosign(text, 1_780_000_000)

    made = bundled(new(), state=lambda made: made.files.pop(RECEIPT_FILE), finish=cosigned)
    assert check(made, tmp_path / "one", trust).seal.head.cosigned == ("witness.example/w",)


def test_the_bundles_of_these_tests_are_what_they_seem(tmp_path: Path) -> None:
    """Without a lie the same issuer is believed; and each stage can be changed."""
    unchanged: dict[str, Change] = {stage: lambda _: None for stage in (*STAGES, "end")}
    made = bundled(new(), **unchanged)
    assert check(made, tmp_path).files == len(made.files) - 2
