"""The summary page and the CSV twins: who is hostile in a cloud stays a text, and the page can be read."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import pytest

from recoup.services import SERVICES
from recoup_verify.evidence.events import RECORDS
from services._mesh.descriptors import method_rules
from services.audit.model.evidence.csv_files import cell, row
from services.audit.model.evidence.documents import Contents, Counts, Head, Scope
from services.audit.model.evidence.records import KEY_COLUMNS, KINDS, Record, cells, kinds_of, record
from services.audit.model.evidence.summary import SHOWN_ROWS, Summary, page

HOSTILE = "<script>alert(1)</script>\"'&\u202e=cmd|' /C calc'!A0\x07"


class Reading(HTMLParser):
    """Reads a page strictly: every element is closed, in its order."""

    VOID = frozenset({"meta"})

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(markup)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, tag: str) -> list[Mapping[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def contents(**changes: Any) -> Contents:
    said: dict[str, Any] = {
        "bundle_id": UUID(int=1),
        "organization_id": UUID(int=2),
        "scope": Scope(),
        "begins_at": datetime(2026, 1, 1, tzinfo=UTC),
        "ends_at": datetime(2026, 4, 1, tzinfo=UTC),
        "created_at": datetime(2026, 4, 2, tzinfo=UTC),
        "log": "recoup.example/log",
        "heads": [Head(0, 900)],
        "chain_seq": 300,
        "chain_leaf": b"\1" * 32,
        "counts": Counts(events=300, disclosed=250, erased=1, receipts=3),
        "digests": {},
        **changes,
    }
    return Contents(**said)


def receipt(days: int, economic: str, superseded_by: str = "", currency: str = "USD") -> Record:
    return {
        "receipt_id": f"r{days}{superseded_by}", "action_id": "a1", "days": str(days), "decision": "VERIFIED",
        "economic": economic, "cash": economic, "currency": currency, "provisional": False,
        "superseded_by": superseded_by,
    }  # fmt: skip


def event(**changes: Any) -> Record:
    return record({
        "event_id": "e1", "occurred_at": "2026-01-02T00:00:00.000000Z", "action": "actions.action.approve",
        "target": "actions/1", "result": "OK", "actor": "user:1", "responsible_person": "1", "role": "APPROVER",
        "metadata": {"comment": "fine"}, **changes,
    })  # fmt: skip


def summary(**changes: Any) -> Summary:
    said: dict[str, Any] = {
        "contents": contents(),
        "requested_by": "user:7",
        "events_a_day": {date(2026, 1, 2): 3, date(2026, 1, 5): 9},
        "events_by_area": {"actions": 10, "scanner": 2},
        "shown": {"approvals": [event()]},
        "totals": {"approvals": 1, "scans": 0, "keys": 0},
        "receipts": [receipt(7, "10.50"), receipt(7, "99", "r7"), receipt(30, "-3.25")],
        **changes,
    }
    return Summary(**said)


def test_the_page_stands_alone_and_can_be_read() -> None:
    markup = page(summary())
    read = Reading(markup)
    assert read.named("html") == [{"lang": "en"}]
    assert [name for name, _ in read.tags].index("title") < [name for name, _ in read.tags].index("h1")
    assert len(read.named("h1")) == 1
    # Nothing runs, nothing is fetched: no scripts, no addresses, and a policy that forbids both.
    assert not {tag for tag, _ in read.tags} & {"script", "link", "img", "iframe", "object", "a", "form", "base"}
    assert not re.search(r"[a-z][a-z0-9+.-]*://|url\(|@import|javascript:", markup)
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
    policies = [m["content"] for m in read.named("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    # Every table has its caption, every plot its title and description, every section its heading.
    assert len(read.named("caption")) == len(read.named("table"))
    assert all(cell.get("scope") in ("col", "row") for cell in read.named("th"))
    ids = {attributes["id"] for _, attributes in read.tags if "id" in attributes}
    for plot in read.named("svg"):
        assert plot["role"] == "img"
        assert set(str(plot["aria-labelledby"]).split()) <= ids
    assert all(section["aria-labelledby"] in ids for section in read.named("section"))


def test_savings_are_those_of_the_receipts_in_force() -> None:
    said = "".join(Reading(page(summary())).text)
    assert "10.50 USD after 7 days, 0.00 USD after 14 days, -3.25 USD after 30 days" in said
    assert "superseded by r7" in said
    absent = {**receipt(7, "1"), "absent": "it isn't final"}
    assert "not enclosed: it isn't final" in "".join(Reading(page(summary(receipts=[absent]))).text)
    two = "".join(Reading(page(summary(receipts=[receipt(7, "1"), receipt(7, "2", currency="EUR")]))).text)
    assert "1.00 USD after 7 days" in two
    assert "2.00 EUR after 7 days" in two


def test_what_is_empty_says_so() -> None:
    said = "".join(Reading(page(summary(events_a_day={}, events_by_area={}, shown={}, receipts=[]))).text)
    nothing = ("No receipt was issued", "No event is disclosed", "No scan was made")
    for sentence in (*nothing, *(kind.empty for kind in KINDS.values())):
        assert sentence in said


_UNIT = dict.fromkeys(("account", "region", "api", "outcome", "error_code"), HOSTILE)
_SCAN = {
    "scan_id": HOSTILE, "created_at": "", "state": HOSTILE, "units_done": "1", "units_total": "2",
    "resources_seen": "1", "missed": [_UNIT],
}  # fmt: skip
_PLACES: dict[str, dict[str, Any]] = {
    "actor": {"shown": {"approvals": [event(actor=HOSTILE)]}},
    "target": {"shown": {"approvals": [event(target=HOSTILE)]}},
    "metadata": {"shown": {"changes": [event(metadata={HOSTILE: HOSTILE})]}},
    "scope": {"contents": contents(scope=Scope((), (HOSTILE,)))},
    "requested_by": {"requested_by": HOSTILE},
    "log": {"contents": contents(log=HOSTILE)},
    "area": {"events_by_area": {HOSTILE: 1}},
    "scan": {"scans": [_SCAN], "totals": {"scans": 1, "keys": 0}},
    "key": {"keys": [dict.fromkeys(KEY_COLUMNS, HOSTILE)], "totals": {"scans": 0, "keys": 1}},
    "receipt": {"receipts": [{**receipt(7, "1", currency=HOSTILE), "receipt_id": HOSTILE}]},
}


@pytest.mark.parametrize("place", _PLACES)
def test_hostile_names_stay_text(place: str) -> None:
    plain, hostile = Reading(page(summary())), Reading(page(summary(**_PLACES[place])))
    said = "".join(hostile.text)
    assert "<script>alert(1)</script>\"'&\ufffd=cmd" in said
    assert not set(said) & {"\u202e", "\x07"}
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in plain.tags}


def test_a_long_table_says_where_the_rest_is() -> None:
    shown = {"approvals": [event()] * SHOWN_ROWS}
    said = "".join(Reading(page(summary(shown=shown, totals={"approvals": 1234, "scans": 0, "keys": 0}))).text)
    assert f"{1234 - SHOWN_ROWS:,} more stand in approvals.csv" in said


def test_a_plot_of_many_days_has_few_bars_and_loses_nothing() -> None:
    days = {date.fromordinal(date(2024, 1, 1).toordinal() + n): 1 + n % 3 for n in range(700)}
    read = Reading(page(summary(events_a_day=days, receipts=[])))
    assert 40 <= len(read.named("rect")) <= 62
    assert f"{sum(days.values()):,} events" in "".join(read.text)


@pytest.mark.parametrize("value", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1dcmd", "-", "+5"])
def test_a_cell_is_never_a_formula(value: str) -> None:
    assert cell(value) == f"'{value}"


@pytest.mark.parametrize("value", ["", "plain", "12.50", "-3.25", "-7", "a=b", "user:1", "2026-01-01"])
def test_what_is_harmless_stays_as_it_is(value: str) -> None:
    assert cell(value) == value


def test_csv_is_read_back_as_it_was_written() -> None:
    values = ["a", 'say "hi"', "x,y", "line\nbreak", "", "\u00e4\U0001f4b6", "lone \ud800"]
    (found,) = csv.reader(io.StringIO(row(values).decode(), newline=""))
    assert found == [*values[:-1], "lone ?"]


def test_records_by_action() -> None:
    kinds = {
        "actions.action.approve": ["approvals"],
        "actions.action.reject": ["approvals"],
        "actions.action.request": [],
        "identity.member.update": ["changes"],
        "actions.policy.override": ["changes"],
        "identity.elevation.request": ["break_glass"],
        "audit.alarm.raise": ["break_glass"],
        "identity.control.bypass": ["break_glass"],
        "identity.exception.create": ["exceptions"],
        "identity.review.decide": ["exceptions"],
        "member": [],
        "": [],
    }
    assert {action: kinds_of(action, "passport:1") for action in kinds} == kinds
    # Whatever was done under break-glass access is a use of it, beside what it is otherwise.
    assert kinds_of("audit.hold.release", "elevation:1.2") == ["break_glass"]
    assert kinds_of("identity.member.update", "elevation:1.2") == ["changes", "break_glass"]
    assert kinds_of("identity.elevation.end", "elevation:1.2") == ["break_glass"]
    assert cells(event(metadata={"b": 1, "a": "x"}), ("event_id", "metadata", "absent")) == [
        "e1", '{"a":"x","b":1}', "",
    ]  # fmt: skip


# How somebody signed in, or what they chose for themselves alone.
NOT_WHO_MAY_WHAT = frozenset({"session", "browser_session", "saml_response", "test_login", "default_organization"})


def test_what_identity_decides_is_in_a_list_for_people_and_the_verifier_demands_it() -> None:
    decided = {
        rule.audit_action
        for service in SERVICES["identity"]
        for rule in method_rules(service)
        if rule.audit_action and rule.audit_action.split(".")[1] not in NOT_WHO_MAY_WHAT
    }
    assert len(decided) > 40
    for action in sorted(decided):
        kinds = kinds_of(action, "passport:1")
        assert len(kinds) == 1, action
        assert action.split(".")[1] in RECORDS[f"{kinds[0]}.json"], action
