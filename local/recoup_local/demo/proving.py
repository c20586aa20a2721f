"""The third chapter: the bill is waited for, checkpoints decide by themselves, finance verifies a receipt offline."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from recoup_local.demo.showing import change_one_byte, recoup_verify
from recoup_local.demo.teller import StoryBroken, Teller

WINDOWS = (7, 14, 30)
# The last window ends 31 days after the deletion, its bill is complete two days later; then the checkpoint looks again.
LAST_DAY = 38
# The provider makes a month final on the fifth of the next; whoever saw a provisional receipt looks again.
MONTH_CLOSES = 6


async def wait(teller: Teller) -> None:
    """The days on which something can be decided; the checkpoints run from their rows when they are due."""
    teller.say("\n[bold]The weeks after[/]: each checkpoint decides by itself once the bill covers its window")
    wanted = len(teller.story.facts["requests"]) * len(WINDOWS)
    finance, seen = teller.person("acme", "Finance"), 0
    for day in (day for day in range(2, LAST_DAY + 1) if _may_decide(teller, day)):
        await teller.live_through(day)
        await teller.until(partial(_nothing_due, teller), f"the checkpoints of day {day}")
        found = await finance.all("/receipts", "receipts")
        for receipt in reversed(found[: len(found) - seen]):
            _tell(teller, day, receipt)
        seen = len(found)
        if len({(r["actionId"], r["days"]) for r in found}) == wanted:
            break
    else:
        raise StoryBroken(f"by day {LAST_DAY} only {seen} receipts of {wanted} were issued")
    teller.story.facts["receipts"] = found


def _may_decide(teller: Teller, day: int) -> bool:
    """Whether a window has just ended, or a month is about to become final; and the day after what was executed.

    On the latter the provider sees what is gone. A bill is complete two days after a window, then it is looked again.
    """
    of_month = (teller.day0 + timedelta(days=day)).day
    return (
        day == 2
        or of_month <= MONTH_CLOSES
        or day > WINDOWS[-1]
        or any(days + 2 <= day <= days + 4 for days in WINDOWS)
    )


async def _nothing_due(teller: Teller) -> bool | None:
    """Whether every checkpoint that is due by now has been looked at."""
    found = await teller.person("acme", "Finance").get("/actions", pageSize=100)
    now = f"{teller.mesh.clock.now():%Y-%m-%dT%H:%M:%S}"
    due = [c for a in found["actions"] for c in a["checkpoints"] if c.get("dueAt") and c["dueAt"][:19] <= now]
    return None if due else True


def _tell(teller: Teller, day: int, receipt: dict[str, Any]) -> None:
    amount = Decimal(receipt["economic"]["amount"]) if receipt.get("economic") else Decimal(0)
    state = "provisional" if receipt["provisional"] else "final"
    decision = receipt["decision"].removeprefix("DECISION_").lower()
    teller.say(
        f"  day {day:3}: {receipt['days']:2} days of {receipt['actionId'][-12:]}: {decision} {amount:.2f} USD, {state}"
    )


async def tally(teller: Teller) -> None:
    """The ledger, as finance sees it."""
    found = await teller.person("acme", "Finance").get("/ledger")
    teller.say(f"\n[bold]The ledger[/]: {found['executedActions']} actions executed, {found['openActions']} open")
    table = Table(box=None, header_style="dim")
    columns = ("days", "verified", "partial", "waiting", "regressed", "economic", "cash", "estimated")
    for column in columns:
        table.add_column(column, justify="right")
    for line in found["lines"]:
        money = [line[name]["amount"] for name in ("economic", "cash", "estimated")]
        table.add_row(*(str(line[name]) for name in columns[:5]), *money)
    teller.console.print(table)
    teller.story.facts["ledger"] = found
    last = found["lines"][-1]
    if last["verified"] + last["partial"] != len(teller.story.facts["requests"]):
        raise StoryBroken(f"not every saving was verified: {last}")


async def verify(teller: Teller) -> None:
    """Finance fetches the receipt of a deletion after 30 days, and checks it offline; then with one byte changed."""
    deleted = teller.story.facts["requests"][0]["action_id"]
    newest = next(r for r in teller.story.facts["receipts"] if r["actionId"] == deleted and r["days"] == WINDOWS[-1])
    answer = await teller.until(partial(_final, teller, newest["receiptId"]), "a witness to cosign the receipt")
    teller.receipt = answer["bundle"]
    teller.story.facts["receipt"] = {"receipt_id": newest["receiptId"], "bytes": len(teller.receipt)}
    teller.say("\n[bold]Finance[/] checks the receipt offline, with the log's key and nothing else")
    intact = await _verified(teller, teller.receipt.encode(), "the receipt", 0)
    changed = await _verified(teller, change_one_byte(teller.receipt.encode()), "one byte changed", 1)
    teller.story.facts["verification"] = {"receipt": intact, "one_byte_changed": changed}


async def _final(teller: Teller, receipt_id: str) -> dict[str, Any] | None:
    """The receipt, once as many witnesses have cosigned as must have."""
    found: dict[str, Any] = await teller.person("acme", "Finance").get(f"/receipts/{receipt_id}")
    return found if found["state"] == "RECEIPT_STATE_FINAL" else None


async def _verified(teller: Teller, content: bytes, name: str, expected: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "receipt.json"
        await asyncio.to_thread(file.write_bytes, content)
        code, told = await asyncio.to_thread(recoup_verify, file, teller.mesh.installation.log.verifier_key)
    teller.say(f"  recoup-verify, {name}: exit {code}")
    for line in told.splitlines():
        teller.console.print(f"    {line}", markup=False)
    if code != expected:
        raise StoryBroken(f"recoup-verify answered {code} for {name}")
    return {"exit": code, "said": told}
