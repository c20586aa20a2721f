"""The last chapter: who sees what. Another organization sees nothing, the auditor the log, the SRE one trace."""

from __future__ import annotations

from collections import Counter
from typing import Any

from recoup_local.demo.showing import with_processes
from recoup_local.demo.teller import StoryBroken, Teller
from recoup_local.otlp import SeenSpan, tree

_SHOWN_SPANS = 40
_ON_THE_WAY = {"gateway", "identity", "actions", "actions-worker", "scanner", "broker"}


async def audit(teller: Teller) -> None:
    """What an auditor sees: the organization's events."""
    auditor = teller.person("acme", "Auditor")
    events = await auditor.all("/events", "events")
    counts = Counter(event["action"] for event in events)
    teller.say(f"\n[bold]{len(events)} events[/] in the log, each with its place in the organization's chain")
    for action, count in counts.most_common(12):
        teller.say(f"  {action:32} {count:4}")
    teller.story.facts["events"] = {"count": len(events), "by_action": dict(counts), "first": events[0]["eventId"]}


async def isolate(teller: Teller) -> None:
    """Globex tries to read what is acme's, by id."""
    teller.say("\n[bold]Globex[/] tries to read what is acme's, by id")
    facts, admin = teller.story.facts, teller.person("globex", "Admin")
    auditor = teller.person("globex", "Auditor")
    results = {}
    for what, person, path in (
        ("connection", admin, f"/connections/{teller.connection_id}"),
        ("scan", admin, f"/scans/{facts['scans'][-1]['scan_id']}"),
        ("finding", admin, f"/findings/{facts['findings']['first']}"),
        ("action", admin, f"/actions/{facts['requests'][0]['action_id']}"),
        ("receipt", admin, f"/receipts/{facts['receipt']['receipt_id']}"),
        ("event", auditor, f"/events/{facts['events']['first']}"),
    ):
        refused = await teller.refusal(person.get(path))
        results[what] = refused.status
        teller.say(f"  {what:12} {refused.status} {refused.reason}")
    facts["isolation"] = results
    if set(results.values()) != {404}:
        raise StoryBroken(f"globex saw something of acme's: {results}")


async def trace(teller: Teller) -> None:
    """The trace of one approval, of received spans only, from the gateway to the worker."""
    trace_id = teller.story.facts["requests"][0]["approval_trace"]

    async def arrived() -> list[SeenSpan] | None:
        spans = teller.mesh.spans.trace(trace_id)
        return spans if {span.process for span in spans} >= _ON_THE_WAY else None

    spans = await teller.until(arrived, "the trace's last spans")
    processes = sorted({span.process for span in spans})
    shown = [(depth, span) for depth, span in tree(spans) if with_processes(span)]
    teller.say(f"\n[bold]One approval's trace[/]: {len(spans)} spans over {len(processes)} processes")
    for depth, span in shown[:_SHOWN_SPANS]:
        milliseconds = (span.end_ns - span.start_ns) / 1e6
        teller.say(f"  {'  ' * depth}{span.name} [dim]{span.process} {milliseconds:.0f} ms[/]")
    if len(shown) > _SHOWN_SPANS:
        teller.say(f"  … and {len(shown) - _SHOWN_SPANS} more, see trace.json")
    teller.story.facts["trace"] = _facts(trace_id, spans, processes)


def _facts(trace_id: str, spans: list[SeenSpan], processes: list[str]) -> dict[str, Any]:
    return {"trace_id": trace_id, "spans": len(spans), "processes": processes}
