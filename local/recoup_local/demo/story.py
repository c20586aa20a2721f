"""The main job from start to end: its chapters in their order, each timed."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

from recoup_local.demo import beginning, evidencing, proving, saving, watching
from recoup_local.demo.teller import Story, StoryBroken, Teller

Chapter = tuple[str, Callable[[Teller], Awaitable[None]]]
CHAPTERS: Sequence[Chapter] = (
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


async def tell(teller: Teller, chapters: Sequence[Chapter] = CHAPTERS) -> Story:
    """The whole story, chapter by chapter. Raises StoryBroken where something didn't happen as it must."""
    try:
        for name, chapter in chapters:
            began = time.monotonic()
            await chapter(teller)
            teller.story.seconds[name] = round(time.monotonic() - began, 2)
    finally:
        await teller.close()
    return teller.story


__all__ = ["CHAPTERS", "Story", "StoryBroken", "Teller", "tell"]
