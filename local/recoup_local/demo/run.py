"""Runs the story on a mesh of its own and leaves what it did in a folder."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from recoup_local.demo.story import Story, Teller, tell
from recoup_local.otlp import tree
from recoup_local.supervisor import LocalMesh

FILES = ("story.json", "receipt.json", "evidence.zip", "log.vkey", "trace.json")


def _clean(output: Path) -> Path:
    """Remove what an earlier run left, and nothing else; returns a new folder for the mesh."""
    output.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (output / name).unlink(missing_ok=True)
    return Path(tempfile.mkdtemp(prefix="recoup-demo-"))


async def run(output: Path, console: Console) -> Story:
    """Bring a mesh up, tell the story, write the files, take the mesh down. Raises StartError, StoryBroken, OSError."""
    began = time.monotonic()
    state = await asyncio.to_thread(_clean, output)
    mesh = LocalMesh(state)
    try:
        console.print("[bold]Recoup[/]: the main job on this machine. LOCAL: not evidence.")
        await mesh.start(lambda text: console.print(f"  {text} …"))
        up = time.monotonic() - began
        teller = Teller(mesh, console)
        story = await tell(teller)
        story.seconds = {"start": round(up, 2), **story.seconds, "all": round(time.monotonic() - began, 2)}
        (output / "story.json").write_text(json.dumps(story.document(), indent=1) + "\n")
        (output / "receipt.json").write_text(teller.receipt)
        (output / "evidence.zip").write_bytes(teller.evidence)
        shutil.copyfile(state / "log.vkey", output / "log.vkey")
        await asyncio.to_thread(mesh.stop)  # The last spans arrive as the processes end.
        spans = mesh.spans.all()
        ordered = [{"depth": depth, **asdict(span)} for depth, span in tree(spans)]
        (output / "trace.json").write_text(json.dumps({"spans": ordered}) + "\n")
    finally:
        await asyncio.shield(asyncio.to_thread(mesh.stop))
        shutil.rmtree(state, ignore_errors=True)
    console.print(f"\nDone in {time.monotonic() - began:.0f} s. In {output}: story.json (what was done),")
    console.print("  trace.json (all spans), receipt.json, evidence.zip and log.vkey. Check them yourself:")
    console.print(f"  recoup-verify receipt {output / 'receipt.json'} --key @{output / 'log.vkey'}", markup=False)
    console.print(f"  recoup-verify bundle {output / 'evidence.zip'} --key @{output / 'log.vkey'}", markup=False)
    return story
