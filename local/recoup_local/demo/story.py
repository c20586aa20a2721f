"""The main job from start to end: its chapters in their order, each timed."""

from __future__ import annotations

import time

from recoup_local.demo import beginning, evidencing, proving, saving, watching
from recoup_local.demo.teller import Story, StoryBroken, Teller

CHAPTERS = (
    ("history", beginning.grow),
    ("connect", beginning.connect),
    ("bill_source", beginning.wait_for_the_bill),
    ("weeks_before", beginning.live),
    ("findings", saving.find),
    ("requests", saving.request),
    ("approvals", saving.approve),
    ("execution", saving.execute),
    ("weeks_after", proving.wait),
    ("ledger", proving.tally),
    ("verification", proving.verify),
    ("events", watching.audit),
    ("isolation", watching.isolate),
    ("trace", watching.trace),
    ("evidence", evidencing.export),
)


async def tell(teller: Teller) -> Story:
    """The whole story. Raises StoryBroken where something didn't happen as it must."""
    try:
        for name, chapter in CHAPTERS:
            began = time.monotonic()
            await chapter(teller)
            teller.story.seconds[name] = round(time.monotonic() - began, 2)
    finally:
        await teller.close()
    return teller.story


__all__ = ["CHAPTERS", "Story", "StoryBroken", "Teller", "tell"]
