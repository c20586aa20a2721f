"""The feed's beats: one read tells all who have seen the same."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from services._mesh.clock import Clock
from services.identity.usecases import feed


class Reads:
    """The database, as far as it counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.fails = False

    async def read(self, _reader: object, after: int, _now: datetime) -> feed.FeedPiece:
        self.asked.append(after)
        if self.fails:
            raise ConnectionError("away")
        return feed.FeedPiece((), after)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    made = Reads()
    monkeypatch.setattr(feed, "read_revocations", made.read)
    return made


def beats() -> feed.Beats:
    nobody: Any = None
    return feed.Beats(nobody, Clock(), 0.0)


async def test_those_who_saw_the_same_are_told_by_one_read(reads: Reads) -> None:
    made = beats()
    found = await asyncio.gather(made.after(7), made.after(3), made.after(7), made.after(7))
    assert [piece.latest_seq for piece in found] == [7, 3, 7, 7]
    assert sorted(reads.asked) == [3, 7]
    await made.after(7)  # What was read for one beat isn't told at the next.
    assert sorted(reads.asked) == [3, 7, 7]


async def test_who_goes_away_takes_it_from_nobody_else(reads: Reads) -> None:
    made = beats()
    first, second = (asyncio.create_task(made.after(7)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).latest_seq == 7


async def test_a_failure_reaches_everybody_and_the_next_beat_asks_again(reads: Reads) -> None:
    made, reads.fails = beats(), True
    found = await asyncio.gather(made.after(7), made.after(7), return_exceptions=True)
    assert [type(each) for each in found] == [ConnectionError, ConnectionError]
    reads.fails = False
    assert (await made.after(7)).latest_seq == 7
