"""The demo's story, told once for each test process on a mesh of its own; what it left behind is there to be tested.

While its last receipts are issued the log's witness is dead; it is back before finance verifies one.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from recoup_local.demo import evidencing
from recoup_local.demo.story import CHAPTERS, Story, Teller, tell
from recoup_local.supervisor import LocalMesh
from tests.support.mesh import TestMesh, close_people

# A day from which the month closes within the story: provisional receipts are superseded by final ones.
DAY0 = date(2026, 11, 10)
# The receipts of thirty days come after it, those of seven and fourteen days before.
WITNESS_DIES = 31


@dataclass
class Meanwhile:
    """What was seen while the witness was dead, and of the same receipt when it was back.

    `waiting` and `final` are answers about a receipt that was issued meanwhile, `earlier` one about an older receipt,
    `proof` the newest event's, `summary` the page of a bundle of evidence that was exported and verified.
    """

    waiting: dict[str, Any] = field(default_factory=dict)
    earlier: dict[str, Any] = field(default_factory=dict)
    proof: dict[str, Any] = field(default_factory=dict)
    summary: str = ""
    final: dict[str, Any] = field(default_factory=dict)


@dataclass
class Told:
    """A mesh on which the story was told, the story, what was printed, the receipt's bundle, and what came between."""

    made: TestMesh
    story: Story
    printed: str
    receipt: str
    meanwhile: Meanwhile


@contextmanager
def told_story() -> Iterator[Told]:
    """The whole story, from an empty machine to the last receipt; everything is taken down at the end."""
    state = Path(tempfile.mkdtemp(prefix="recoup-story-"))
    mesh = LocalMesh(state, fsync=False)
    mesh.spans.whole = state / "spans.otlp"
    try:
        asyncio.run(mesh.start())
        yield asyncio.run(_tell(mesh))
    finally:
        close_people(mesh)
        mesh.stop()
        shutil.rmtree(state, ignore_errors=True)


async def _tell(mesh: LocalMesh) -> Told:
    page, meanwhile = io.StringIO(), Meanwhile()
    teller = _WithoutWitness(mesh, Console(file=page, width=140), DAY0)
    at = next(place for place, (name, _) in enumerate(CHAPTERS) if name == "weeks_after") + 1
    look = ("without_witness", partial(_look, meanwhile=meanwhile))
    story = await tell(teller, [*CHAPTERS[:at], look, *CHAPTERS[at:]])
    made = TestMesh(mesh, teller.clients, teller.estate, await teller.base_user(), teller.day0, teller.connection_id)
    return Told(made, story, page.getvalue(), teller.receipt, meanwhile)


class _WithoutWitness(Teller):
    """Tells of a day on which the witness dies."""

    async def live_through(self, day: int, *, billed: bool = True) -> None:
        """One day."""
        if day == WITNESS_DIES:
            await self.until(self._is_seven_days_receipt_final, "the witness to cosign what was issued before it dies")
            self.mesh.kill("audit-witness")
        await super().live_through(day, billed=billed)

    async def _is_seven_days_receipt_final(self) -> bool | None:
        finance = self.person("acme", "Finance")
        newest = next(each for each in await finance.all("/receipts", "receipts") if each["days"] == 7)
        found = await finance.get(f"/receipts/{newest['receiptId']}")
        return True if found["state"] == "RECEIPT_STATE_FINAL" else None


async def _look(teller: Teller, meanwhile: Meanwhile) -> None:
    """Look at receipts, events and evidence without a witness; then start it again."""
    finance, auditor = teller.person("acme", "Finance"), teller.person("acme", "Auditor")
    newest = {each["days"]: each["receiptId"] for each in reversed(teller.story.facts["receipts"])}
    meanwhile.waiting = await finance.get(f"/receipts/{newest[30]}")
    meanwhile.earlier = await finance.get(f"/receipts/{newest[7]}")
    event = (await auditor.get("/events", pageSize=1))["events"][0]
    meanwhile.proof = await auditor.get(f"/events/{event['eventId']}/proof")
    await evidencing.export(teller)  # Raises where it isn't made, or isn't verified offline.
    with zipfile.ZipFile(io.BytesIO(teller.evidence)) as bundle:
        meanwhile.summary = bundle.read("summary.html").decode()
    teller.evidence = b""
    await teller.mesh.restart("audit-witness")

    async def final() -> dict[str, Any] | None:
        found = await finance.get(f"/receipts/{newest[30]}")
        return found if found["state"] == "RECEIPT_STATE_FINAL" else None

    meanwhile.final = await teller.until(final, "the witness to cosign what it missed")
