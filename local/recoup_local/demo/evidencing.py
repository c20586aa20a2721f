"""The last chapter: an auditor has everything of it exported, and checks it offline."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

from recoup_local.demo.showing import recoup_verify
from recoup_local.demo.teller import StoryBroken, Teller


async def export(teller: Teller) -> None:
    """The auditor exports all that happened so far; `recoup-verify bundle` proves it. Raises StoryBroken."""
    auditor, now = teller.person("acme", "Auditor"), teller.mesh.clock.now().astimezone(UTC)
    period = {"beginsAt": f"{now - timedelta(days=400):%FT%TZ}", "endsAt": f"{now + timedelta(hours=1):%FT%TZ}"}
    started = (await auditor.post("/evidenceExports", **period))["export"]
    path = f"/evidenceExports/{started['exportId']}"

    async def ended() -> dict[str, Any] | None:
        found: dict[str, Any] = (await auditor.get(path))["export"]
        return found if found["state"] not in ("EVIDENCE_STATE_QUEUED", "EVIDENCE_STATE_RUNNING") else None

    made = await teller.until(ended, "the evidence bundle")
    if made["state"] != "EVIDENCE_STATE_READY":
        raise StoryBroken(f"no evidence bundle was made: {made['problem']}")
    while len(teller.evidence) < int(made["sizeBytes"]):
        teller.evidence += await auditor.octets(f"{path}/content", offset=len(teller.evidence))
    if hashlib.sha256(teller.evidence).hexdigest() != made["sha256"]:
        raise StoryBroken("the evidence bundle didn't arrive as it was made")
    teller.say(f"\n[bold]The auditor[/] exports acme's evidence, {len(teller.evidence):,} bytes, and checks it offline")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "evidence.zip"
        await asyncio.to_thread(file.write_bytes, teller.evidence)
        key = teller.mesh.installation.log.verifier_key
        code, said = await asyncio.to_thread(recoup_verify, file, key, "bundle")
    for line in said.splitlines():
        teller.console.print(f"    {line}", markup=False)
    if code != 0:
        raise StoryBroken(f"recoup-verify answered {code} for the evidence bundle")
    teller.story.facts["evidence"] = {"export_id": made["exportId"], "bytes": len(teller.evidence), "exit": code}
