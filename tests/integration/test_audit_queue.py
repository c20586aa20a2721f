"""What waits to be appended, and what one flush writes, is bounded in bytes too."""

from __future__ import annotations

import asyncio

import pytest

from services._mesh.errors import Exhausted
from services.audit import sequencer as module
from services.audit import usecases
from services.audit.model.events import Produced
from services.audit.sequencer import Sequencer, _Waiting
from tests.support.log import event, sequencer
from tests.support.mesh import soon
from tests.support.postgres import TestDatabase

pytestmark = pytest.mark.services("audit")
LARGE = 60_000


def large(counter: int) -> Produced:
    return event(counter, metadata={"x": "y" * LARGE})


def appending(log: Sequencer, *counters: int) -> list[asyncio.Task[list[int]]]:
    return [asyncio.create_task(usecases.append_events(log, "identity", [large(n)])) for n in counters]


async def test_bytes_that_wait_are_bounded_and_given_back(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED_BYTES", 16 * (LARGE + 4096))
    async with sequencer(database) as log:
        superuser = await database.superuser()
        transaction = superuser.transaction()
        await transaction.start()
        await superuser.execute("SELECT FROM audit.head FOR UPDATE")
        tasks = appending(log, *range(1, 17))

        async def queued() -> bool | None:
            return log._queued == 16 or None

        await soon(queued)
        # Also what is being flushed takes its memory.
        with pytest.raises(Exhausted, match="Too many bytes wait"):
            await usecases.append_events(log, "identity", [large(17)])
        await transaction.rollback()
        await superuser.close()
        assert sorted(place for places in await asyncio.gather(*tasks) for place in places) == list(range(16))
        assert await usecases.append_events(log, "identity", [large(17)]) == [16]
        assert (log._queued, log._queued_bytes) == (0, 0)


async def test_a_flush_is_bounded_in_bytes(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = 4 * LARGE
    monkeypatch.setattr(module, "FLUSH_BYTES", bound)
    async with sequencer(database) as log:
        flush, sizes = log._flush, list[int]()

        async def recording(group: list[_Waiting]) -> None:
            sizes.append(sum(waiting.bytes for waiting in group))
            await flush(group)

        log._flush = recording  # type: ignore[assignment,method-assign]
        await asyncio.gather(*appending(log, *range(1, 17)))
        assert len(sizes) >= 4
        # But for the one append that goes beyond it.
        assert max(sizes) < bound + LARGE + 4096
