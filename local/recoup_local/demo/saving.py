"""The second chapter: findings become requests, somebody else approves them, the worker executes them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rich.table import Table

from recoup_local.demo.showing import money
from recoup_local.demo.teller import StoryBroken, Teller

# The safest: what can be taken back, or was read to be used by nobody. Two of each kind.
ACTION_TYPES = ("aws.ebs.delete_volume", "aws.ebs.convert_gp3", "aws.ec2.release_address")
OF_EACH_KIND = 2
_SHOWN = 12


async def find(teller: Teller) -> None:
    """What could be recovered, with money."""
    found = await teller.person("acme", "Viewer").all("/findings", "findings")
    teller.say(f"\n[bold]{len(found)} findings[/], the largest saving first")
    table = Table(box=None, header_style="dim")
    for column in ("detection", "resource", "name", "USD a month", "may be acted on"):
        table.add_column(column, no_wrap=True, justify="right" if column == "USD a month" else "left")
    for finding in found[:_SHOWN]:
        table.add_row(
            finding["detectionId"],
            finding["resource"]["id"],
            finding["resourceName"],
            money(finding),
            finding["actionability"].removeprefix("ACTIONABILITY_").replace("_", " ").lower(),
        )
    teller.console.print(table)
    totals: dict[str, Decimal] = {}
    for finding in found:
        amount = Decimal(finding["monthlySaving"]["amount"]) if finding.get("monthlySaving") else Decimal(0)
        totals[finding["detectionId"]] = totals.get(finding["detectionId"], Decimal(0)) + amount
    counts = Counter(finding["detectionId"] for finding in found)
    for detection, total in sorted(totals.items(), key=lambda item: -item[1]):
        teller.say(f"  {detection:24} {counts[detection]:4} findings {total:10.2f} USD a month")
    teller.story.facts["findings"] = {
        "count": len(found),
        "by_detection": dict(counts),
        "monthly_saving": {name: str(total) for name, total in totals.items()},
        "price_version": found[0]["priceVersion"] if found else "",
        "first": found[0]["findingId"],
    }
    teller.story.facts["chosen"] = _choose(found)


def _choose(found: Sequence[dict[str, Any]]) -> list[str]:
    """The findings that are acted on: actionable, of one of the three kinds, the largest saving first."""
    chosen: list[str] = []
    for action_type in ACTION_TYPES:
        fitting = [
            f["findingId"]
            for f in found
            if f["actionType"] == action_type and f["actionability"] == "ACTIONABILITY_ACTIONABLE"
        ]
        if len(fitting) < OF_EACH_KIND:
            raise StoryBroken(f"the estate has too few findings for {action_type}")
        chosen += fitting[:OF_EACH_KIND]
    return chosen


async def request(teller: Teller) -> None:
    """Request the safest actions; each plan is frozen and hashed."""
    finops = teller.person("acme", "FinOps")
    teller.say("\n[bold]Requested[/] by a FinOps engineer; each plan is frozen, and its hash is what gets approved")
    made = []
    for finding_id in teller.story.facts["chosen"]:
        action = (await finops.post("/actions", findingId=finding_id))["action"]
        made.append(action)
        amount = Decimal(action["plan"]["estimate"]["amount"])
        teller.say(f"  {action['plan']['planHash'][:16]}  {amount:8.2f} USD a month  {action['plan']['summary']}")
    again = await teller.refusal(finops.post("/actions", findingId=teller.story.facts["chosen"][0]))
    teller.say(f"  the same resource once more: {again.status} {again.reason}")
    teller.story.facts["requests"] = [
        {
            "action_id": action["actionId"],
            "finding_id": action["findingId"],
            "action_type": action["actionType"],
            "resource": action["resource"],
            "plan_hash": action["plan"]["planHash"],
            "estimate": action["plan"]["estimate"],
        }
        for action in made
    ]


async def approve(teller: Teller) -> None:
    """The requester's own approval is refused; an approver approves the hashes that were displayed."""
    finops, approver = teller.person("acme", "FinOps"), teller.person("acme", "Approver")
    requests = teller.story.facts["requests"]
    first = requests[0]
    body = {"planHash": first["plan_hash"], "comment": "looks right"}
    own = await teller.refusal(finops.post(f"/actions/{first['action_id']}:approve", **body))
    other = await teller.refusal(approver.post(f"/actions/{first['action_id']}:approve", planHash="0" * 64))
    teller.say(f"\n  the requester approves: {own.status} {own.reason}")
    teller.say(f"  an approver, another hash: {other.status} {other.reason}")
    for each in requests:
        body = {"planHash": each["plan_hash"], "comment": "nobody needs it"}
        await approver.post(f"/actions/{each['action_id']}:approve", **body)
        each["approval_trace"] = approver.trace_id
    teller.say(f"[bold]Approved[/] by an approver: {len(requests)} plans, each by its hash")
    teller.story.facts["refusals"] = {
        "own_approval": {"status": own.status, "reason": own.reason},
        "wrong_hash": {"status": other.status, "reason": other.reason},
    }


async def execute(teller: Teller) -> None:
    """The worker executes: at once what can be taken back, deletions after a day of quarantine."""
    teller.say("\n[bold]Executed[/] by the worker, with sessions that only the broker could open for it")
    await _reach(teller, {"EXECUTED", "QUARANTINED"}, "the first part of the execution")
    for action in await _actions(teller):
        _show(teller, action)
    teller.say("\n[bold]Day 1[/]: the quarantine is over; everything is checked again, then the volumes are deleted")
    await teller.live_through(1)
    await _reach(teller, {"EXECUTED"}, "the execution")
    found = await _actions(teller)
    for action in found:
        if action["actionType"] == ACTION_TYPES[0]:
            _show(teller, action)
    calls = await asyncio.to_thread(teller.control.counts)
    mutating = _changes(calls)
    teller.say(f"  changes that the cloud saw from us: {', '.join(f'{n} {name}' for name, n in mutating.items())}")
    teller.story.facts["actions"] = [
        {
            "action_id": action["actionId"],
            "state": action["state"],
            "executed_at": action["executedAt"],
            "steps": [{"name": s["name"], "result_id": s["resultId"], "state": s["state"]} for s in action["steps"]],
        }
        for action in found
    ]
    teller.story.facts["mutating_calls"] = mutating


def _changes(counts: dict[str, Any]) -> dict[str, int]:
    """How many requests to change something the cloud saw, by the call's name."""
    return {name: row["mutating"] for name, row in counts["by_action"].items() if row["mutating"]}


async def _actions(teller: Teller) -> list[dict[str, Any]]:
    person = teller.person("acme", "Approver")
    ids = [each["action_id"] for each in teller.story.facts["requests"]]
    return [(await person.get(f"/actions/{action_id}"))["action"] for action_id in ids]


async def _reach(teller: Teller, states: set[str], what: str) -> None:
    async def ended() -> bool | None:
        found = await _actions(teller)
        ended_badly = [a for a in found if a["state"].removeprefix("ACTION_STATE_") in ("FAILED", "STALE")]
        if ended_badly:
            raise StoryBroken(f"{ended_badly[0]['plan']['summary']}: {ended_badly[0]['problem']}")
        return True if all(a["state"].removeprefix("ACTION_STATE_") in states for a in found) else None

    await teller.until(ended, what)


def _show(teller: Teller, action: dict[str, Any]) -> None:
    steps = ", ".join(
        f"{s['name']} {s['resultId']} {s['state'].removeprefix('STEP_STATE_').lower()}" for s in action["steps"]
    )
    until = f" until {action['quarantinedUntil'][:16]}" if action.get("quarantinedUntil") else ""
    teller.say(f"  {action['state'].removeprefix('ACTION_STATE_').lower()}{until}: {steps}")
