"""Several gateways spend one budget, over a real NATS server; without it each keeps to its own share."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from dataclasses import dataclass
from uuid import uuid4

import pytest

from services._mesh.errors import Exhausted
from services._mesh.metrics import Metrics
from services._mesh.passports import Passport
from services.gateway import bucket as bucketing
from services.gateway import sharing
from services.gateway.bucket import Bucket
from services.gateway.config import EdgeSettings
from services.gateway.exchange import blank
from services.gateway.limiting import Limits
from services.gateway.sharing import LEASE_SECONDS, SharedLimiter
from tests.support.nats import TestNats
from tests.support.things import linked_passport

RATE, BURST, GATEWAYS = 10.0, 40, 2
DAY = 1_800_000_000.0


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine NATS takes its time, which isn't what these tests are about."""
    monkeypatch.setattr(sharing, "_PATIENCE_SECONDS", 20.0)
    monkeypatch.setattr(bucketing, "ANSWER_SECONDS", 20.0)


@dataclass
class Time:
    """The clocks of all gateways."""

    now: float = 1000.0

    def wall(self) -> float:
        return DAY + self.now

    def clock(self) -> float:
        return self.now


class Fleet:
    """Two gateways, and one budget for every key."""

    def __init__(self, *buckets: Bucket, burst: int = BURST, rate: float = RATE) -> None:
        self.time, name = Time(), str(uuid4())
        self.limiters = [
            SharedLimiter(bucket, name, rate, burst, GATEWAYS, self.time.wall, self.time.clock) for bucket in buckets
        ]

    async def spend(self, gateway: int, calls: int) -> int:
        """How many of so many calls go on."""
        return sum([(await self.limiters[gateway].take("acme")).allowed for _ in range(calls)])


async def bucket(nats: TestNats) -> tuple[Bucket, Metrics]:
    metrics = Metrics()
    return Bucket(await nats.link("gateway"), GATEWAYS, metrics), metrics


def number(metrics: Metrics, name: str) -> float:
    (line,) = [line for line in metrics.render().splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


async def test_two_gateways_let_through_one_budget_and_the_one_left_has_it_whole(nats_server: TestNats) -> None:
    (one, seen), (other, _) = await bucket(nats_server), await bucket(nats_server)
    fleet = Fleet(one, other)
    # Both at once, and by turns until nobody holds anything: the budget, and not one more.
    first = sum(await asyncio.gather(*(fleet.spend(each, 25) for each in (0, 1) * 2)))
    assert first == BURST
    # Who is refused is told until when, and asks nobody meanwhile.
    trips = number(seen, "recoup_gateway_budget_trips_total")
    verdict = await fleet.limiters[0].take("acme")
    assert (verdict.allowed, verdict.retry_after) == (False, pytest.approx(1 / RATE))
    assert await fleet.spend(0, 50) == 0
    assert number(seen, "recoup_gateway_budget_trips_total") == trips
    # In any time they gain what the budget gains, and what it gains in the time of one lease.
    through, seconds = 0, 10
    for _ in range(seconds * 10):
        fleet.time.now += 0.1
        through += sum(await asyncio.gather(fleet.spend(0, 3), fleet.spend(1, 3)))
    assert RATE * seconds * 0.9 <= through <= RATE * (seconds + LEASE_SECONDS)
    # One dies with its lease. The other one has what the budget gains at once, and soon all of it.
    fleet.time.now += BURST / RATE
    assert await fleet.spend(0, 5) == 5
    assert BURST - 5 - RATE * LEASE_SECONDS <= await fleet.spend(1, BURST) <= BURST - 5
    fleet.time.now += BURST / RATE
    assert await fleet.spend(1, 2 * BURST) == BURST
    # What was leased a while ago is nobody's any more: the whole budget, and not what 0 once held besides.
    fleet = Fleet(one, other)
    assert await fleet.spend(0, 4) == 4
    fleet.time.now += BURST / RATE
    assert [await fleet.spend(each, 2 * BURST) for each in (1, 0)] == [BURST, 0]
    # A busy key costs few questions.
    busy = Fleet(one, other, burst=2000, rate=500.0)
    before = number(seen, "recoup_gateway_budget_trips_total")
    assert await busy.spend(0, 1000) == 1000
    assert number(seen, "recoup_gateway_budget_trips_total") - before < 20


async def test_without_nats_each_keeps_its_own_share_and_says_so(
    nats_server: TestNats, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "services.gateway.bucket")
    monkeypatch.setattr(bucketing, "AGAIN_SECONDS", 0.05)
    (one, seen), (other, _) = await bucket(nats_server), await bucket(nats_server)
    fleet = Fleet(one, other)
    assert await fleet.spend(0, 5) == 5
    assert number(seen, "recoup_gateway_budgets_shared") == 1
    monkeypatch.setattr(sharing, "_PATIENCE_SECONDS", 0.2)
    # It hangs: nobody waits for it longer than a moment. What was spent of one's own share before counts.
    os.kill(nats_server.handle.pid, signal.SIGSTOP)
    try:
        fleet.time.now += 2 * LEASE_SECONDS
        async with asyncio.timeout(20):
            assert BURST // GATEWAYS - 5 <= await fleet.spend(0, BURST) <= BURST // GATEWAYS
            assert await fleet.spend(1, BURST) == BURST // GATEWAYS
    finally:
        os.kill(nats_server.handle.pid, signal.SIGCONT)
    assert number(seen, "recoup_gateway_budgets_shared") == 0
    # It is gone, with all that it held: then the budget is whole, and shared again once it is back.
    nats_server.stop()
    fleet.time.now += BURST / RATE
    assert await fleet.spend(0, BURST) == BURST // GATEWAYS
    nats_server.restart(lose_everything=True)
    monkeypatch.setattr(sharing, "_PATIENCE_SECONDS", 20.0)
    fleet.time.now += BURST / RATE
    async with asyncio.timeout(20):
        while number(seen, "recoup_gateway_budgets_shared") == 0:
            await asyncio.sleep(0.02)
            await fleet.spend(0, 1)
            fleet.time.now += BURST / RATE
    said = [record.getMessage() for record in caplog.records if record.name == "services.gateway.bucket"]
    assert sum("budgets can't be shared" in each and "1/2 of each" in each for each in said) == 2  # One a gateway.


async def test_two_edges_share_what_actors_and_organizations_have(nats_server: TestNats) -> None:
    slow = {"reads_a_second": 0.1, "organization_reads_a_second": 0.1}
    settings = EdgeSettings(
        listen="127.0.0.1:0", shared="nats", gateways=2, read_burst=8, organization_read_burst=12, **slow
    )
    edges = [Limits(settings, (await bucket(nats_server))[0]) for _ in range(2)]
    ann, bob = linked_passport(uuid4()), linked_passport(uuid4())

    async def through(passport: Passport) -> int:
        count = 0
        for turn in range(20):
            exchange = blank("GET")
            try:
                await edges[turn % 2].count_verified(exchange, passport, reads=True)
                count += 1
            except Exhausted:
                pass
        return count

    assert [await through(each) for each in (ann, bob)] == [8, 12 - 8]
