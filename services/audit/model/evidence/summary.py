"""The page that an auditor reads: one HTML file without scripts and without anything from elsewhere. Pure.

Every text in it may come from somebody hostile (names from clouds, comments, organizations): `text` is the one way in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from services.audit.model.evidence.documents import Contents, moment
from services.audit.model.evidence.markup import text
from services.audit.model.evidence.plots import Bar, bars
from services.audit.model.evidence.records import KINDS, Record

# Tables of the page end here; the files hold everything.
SHOWN_ROWS = 200
_MOST_DAYS = 62


@dataclass
class Summary:
    """What the page says, gathered while the bundle is written. `totals` counts what `shown` has only the first of."""

    contents: Contents
    requested_by: str
    events_a_day: Mapping[date, int]
    events_by_area: Mapping[str, int]
    shown: Mapping[str, Sequence[Record]]
    totals: Mapping[str, int]
    receipts: Sequence[Record] = field(default_factory=list)
    scans: Sequence[Record] = field(default_factory=list)
    keys: Sequence[Record] = field(default_factory=list)


def page(summary: Summary) -> str:
    """The whole page."""
    body = "\n".join(
        [
            _head(summary),
            _activity(summary),
            _savings(summary),
            *(_kind(name, summary) for name in KINDS),
            _scans(summary),
            _keys(summary),
            _proof(summary),
        ]
    )
    title = f"Evidence of {_day(summary.contents.begins_at)} to {_day(summary.contents.ends_at)}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}</style></head><body><main>\n{body}\n</main></body></html>\n"
    )


def _day(at: Any) -> str:
    return moment(at)[:10]


def _head(summary: Summary) -> str:
    said, counts = summary.contents, summary.contents.counts
    scope = said.scope
    about = [*(f"actions/{each}" for each in scope.actions), *(f"targets that begin with {t}" for t in scope.targets)]
    rows = [
        ("Organization", said.organization_id),
        ("Period", f"{moment(said.begins_at)} up to, not including, {moment(said.ends_at)}"),
        ("About", "; ".join(about) or "the whole organization"),
        ("Asked for by", summary.requested_by),
        ("Made at", moment(said.created_at)),
        ("Bundle", said.bundle_id),
        ("Log", said.log),
        ("Chain", f"{said.chain_seq:,} events of the organization, from its first on, without a gap"),
        ("Disclosed", f"{counts.disclosed:,} events of the period; {counts.erased:,} whose content was erased"),
        ("Receipts", f"{counts.receipts:,}"),
    ]
    cells = "".join(f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>' for name, value in rows)
    return f"<h1>Evidence bundle</h1>\n<table><caption>What this bundle is</caption><tbody>{cells}</tbody></table>"


def _activity(summary: Summary) -> str:
    days = _buckets(summary.events_a_day)
    if not days:
        return _section("activity", "Events", "<p>No event is disclosed for this period.</p>")
    most = max(days, key=lambda bar: bar.value)
    said = f"{sum(summary.events_a_day.values()):,} events; the most, {most.shown}, from {most.label} on."
    chart = bars("days", "Events a day", said, days)
    areas = [(area, f"{count:,}") for area, count in sorted(summary.events_by_area.items(), key=lambda i: -i[1])]
    return _section(
        "activity",
        "Events",
        f"<figure>{chart}<figcaption>Events a {'day' if len(summary.events_a_day) <= _MOST_DAYS else 'span of days'}: "
        f"{text(said)}</figcaption></figure>{_table('Events by area', ('Area', 'Events'), areas)}",
    )


def _buckets(counts: Mapping[date, int]) -> list[Bar]:
    """A bar a day, the days without events too; several days a bar where there would be too many."""
    if not counts:
        return []
    first, last = min(counts), max(counts)
    days = (last - first).days + 1
    width = -(-days // _MOST_DAYS)
    found = [0] * -(-days // width)
    for day, count in counts.items():
        found[(day - first).days // width] += count
    return [
        Bar((first + timedelta(days=place * width)).isoformat(), float(count), f"{count:,}")
        for place, count in enumerate(found)
    ]


def _savings(summary: Summary) -> str:
    valid = [each for each in summary.receipts if not each["superseded_by"]]
    if not valid:
        return _section("savings", "Savings by checkpoint", "<p>No receipt was issued in this period.</p>")
    parts = []
    for place, currency in enumerate(sorted({each["currency"] for each in valid})):
        sums = {days: _sum(valid, currency, days, "economic") for days in (7, 14, 30)}
        values = [Bar(f"{days} days", float(total), f"{total:,.2f}") for days, total in sums.items()]
        said = ", ".join(f"{total:,.2f} {currency} after {days} days" for days, total in sums.items())
        chart = bars(f"savings-{place}", f"Savings by checkpoint in {currency}", said, values)
        parts.append(f"<figure>{chart}<figcaption>Sums of the receipts in force: {text(said)}.</figcaption></figure>")
    rows = [
        tuple(each[name] for name in ("receipt_id", "action_id", "days", "decision", "economic", "cash", "currency"))
        + (_standing(each),)
        for each in summary.receipts[:SHOWN_ROWS]
    ]
    heads = ("Receipt", "Action", "Days", "Decision", "Economic", "Cash", "Currency", "Standing")
    parts.append(_table("Receipts", heads, rows, len(summary.receipts), "receipts/"))
    return _section("savings", "Savings by checkpoint", "".join(parts))


def _sum(receipts: Sequence[Record], currency: str, days: int, name: str) -> Decimal:
    return sum(
        (Decimal(r[name]) for r in receipts if r[name] and r["currency"] == currency and r["days"] == str(days)),
        Decimal(0),
    )


def _standing(receipt: Record) -> str:
    if receipt.get("absent"):
        return f"not enclosed: {receipt['absent']}"
    if receipt["superseded_by"]:
        return f"superseded by {receipt['superseded_by']}"
    return "provisional" if receipt["provisional"] else "in force"


def _kind(name: str, summary: Summary) -> str:
    kind, rows, total = KINDS[name], summary.shown.get(name, ()), summary.totals.get(name, 0)
    if not rows:
        return _section(name, kind.heading, f"<p>{text(kind.empty)}</p>")
    heads = ("At", "What", "On", "Result", "By", "Role", "Particulars")
    lines = [
        (r["occurred_at"], r["action"], r["target"], r["result"], _who(r), r["role"], _particulars(r["metadata"]))
        for r in rows
    ]
    return _section(name, kind.heading, _table(kind.heading, heads, lines, total, f"{name}.csv"))


def _who(record: Record) -> str:
    person = record["responsible_person"]
    return f"{record['actor']} (person {person})" if person and person not in record["actor"] else str(record["actor"])


def _particulars(metadata: Mapping[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in sorted(metadata.items()) if value != "")[:600]


def _missed(unit: Mapping[str, str]) -> str:
    return f"{unit['account']} {unit['region']} {unit['api']}: {unit['outcome']} {unit['error_code']}"


def _scans(summary: Summary) -> str:
    if not summary.scans:
        return _section("scans", "Completeness of scans", "<p>No scan was made in this period.</p>")
    rows = [
        (s["scan_id"], s["created_at"], s["state"], f"{s['units_done']} of {s['units_total']}", s["resources_seen"],
         "; ".join(_missed(unit) for unit in s["missed"][:8]) or "nothing")
        for s in summary.scans[:SHOWN_ROWS]
    ]  # fmt: skip
    heads = ("Scan", "Asked for at", "State", "Listings", "Resources", "What it missed")
    table = _table("Scans", heads, rows, summary.totals["scans"], "scans.csv")
    return _section("scans", "Completeness of scans", table)


def _keys(summary: Summary) -> str:
    heads = ("Kind", "Key", "Name", "State", "Since", "Age in days", "Checked at", "External id enforced", "Problem")
    columns = (
        "kind",
        "id",
        "name",
        "state",
        "created_at",
        "age_days",
        "verified_at",
        "external_id_enforced",
        "problem",
    )
    rows = [(*(each[name] for name in columns), each["problem"]) for each in summary.keys[:SHOWN_ROWS]]
    return _section("keys", "Keys and how they stand", _table("Keys", heads, rows, summary.totals["keys"], "keys.csv"))


def _proof(summary: Summary) -> str:
    return _section(
        "proof",
        "What this bundle proves, and what it doesn't",
        "<p>Checked with <code>recoup-verify</code>, which needs neither us nor a network, it proves:</p><ul>"
        "<li>each disclosed event stood in the log, exactly as it is here, when the log's head was signed;</li>"
        "<li>the organization's chain of events has no gap, from its first event to the stated head: nothing was left "
        "out, and what isn't disclosed is there as its leaf;</li>"
        "<li>each receipt's amounts follow from the rows of the bill that it carries;</li>"
        "<li>no file of this bundle was changed since it was sealed, and the seal stands in the log.</li></ul>"
        "<p>It doesn't prove that what an event says is true, that the rows are what the provider billed (compare each "
        "with the provider's own file), nor that the log's operator shows everybody the same log, unless witnesses "
        "have signed its heads. Of an erased event it proves that it was there, and nothing of what it said. This page "
        "and the CSV files are renderings for people: the files of JSON, and <code>events.jsonl</code> above all, are "
        "what is proved.</p>"
        "<h3>How to check it</h3><p>Get the log's key from somebody else than who gave you this bundle, then:</p>"
        "<pre>recoup-verify bundle THIS-FOLDER-OR-ZIP --key LOG-KEY</pre>"
        "<p>Exit code 0 means proved, 1 disproved, 2 that it can't tell.</p>",
    )


def _section(name: str, heading: str, content: str) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{text(heading)}</h2>{content}</section>'


def _table(
    caption: str, heads: Sequence[str], rows: Sequence[Sequence[object]], total: int = 0, where: str = ""
) -> str:
    top = "".join(f'<th scope="col">{text(head)}</th>' for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    more = f"<p>{total - len(rows):,} more stand in {text(where)}.</p>" if total > len(rows) else ""
    return f"<table><caption>{text(caption)}</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{more}"


_STYLE = """
:root{color-scheme:light}body{margin:0;background:#fff;color:#1b1f24;font:15px/1.5 system-ui,sans-serif}
main{max-width:64rem;margin:0 auto;padding:2rem 1.25rem}h1{font-size:1.7rem;margin:0 0 1rem}
h2{font-size:1.2rem;margin:2.2rem 0 .6rem;border-bottom:1px solid #d5d9de;padding-bottom:.2rem}h3{font-size:1rem}
table{border-collapse:collapse;width:100%;font-size:.84rem;margin:.6rem 0}
caption{text-align:left;font-weight:600;padding:.2rem 0}
th,td{text-align:left;vertical-align:top;padding:.28rem .5rem;border-bottom:1px solid #e4e7eb;overflow-wrap:anywhere}
thead th{border-bottom:2px solid #8a8f98}th[scope=row]{width:11rem;font-weight:600}
figure{margin:.8rem 0}figcaption{font-size:.84rem;color:#434a54}svg{width:100%;height:auto}
svg text{font:11px system-ui,sans-serif;fill:#434a54}pre{background:#f4f5f7;padding:.7rem;overflow-x:auto}
@media print{main{max-width:none;padding:0}tr,figure{break-inside:avoid}thead{display:table-header-group}}
"""
