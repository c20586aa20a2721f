"""The demo's story, told once for each test process on a mesh of its own; what it left behind is there to be tested."""

from __future__ import annotations

import asyncio
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from rich.console import Console

from recoup_local.demo.story import Story, Teller, tell
from recoup_local.supervisor import LocalMesh
from tests.support.mesh import TestMesh, close_people

# A day from which the month closes within the story: provisional receipts are superseded by final ones.
DAY0 = date(2026, 11, 10)


@dataclass
class Told:
    """A mesh on which the story was told, the story, what was printed, and the receipt's bundle."""

    made: TestMesh
    story: Story
    printed: str
    receipt: str


@contextmanager
def told_story() -> Iterator[Told]:
    """The whole story, from an empty machine to the last receipt; everything is taken down at the end."""
    state = Path(tempfile.mkdtemp(prefix="recoup-story-"))
    mesh = LocalMesh(state, fsync=False)
    try:
        asyncio.run(mesh.start())
        yield asyncio.run(_tell(mesh))
    finally:
        close_people()
        mesh.stop()
        shutil.rmtree(state, ignore_errors=True)


async def _tell(mesh: LocalMesh) -> Told:
    page = io.StringIO()
    teller = Teller(mesh, Console(file=page, width=140), DAY0)
    story = await tell(teller)
    made = TestMesh(mesh, teller.clients, teller.estate, await teller.base_user(), teller.day0, teller.connection_id)
    return Told(made, story, page.getvalue(), teller.receipt)
