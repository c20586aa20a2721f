"""What every chapter of the story has: the mesh, the people, the clock, and somewhere to tell it.

It decides nothing about savings: what is shown is what the services answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from typing import Any, TypeVar

from rich.console import Console

from recoup_local.cloud.aws_clients import AwsClients
from recoup_local.cloud.bill.simulator import BillOptions, BillSimulator
from recoup_local.cloud.estate.plan import build_plan
from recoup_local.cloud.estate.roles import BaseUser, create_base_user
from recoup_local.cloud.estate.seeder import Estate, bill_bucket_name
from recoup_local.cloud.proxy_control import ProxyControl
from recoup_local.demo.rest import Refused, Somebody
from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh

POLL_SECONDS = 0.15
WAIT_SECONDS = 120.0
# The provider publishes its bill before people come to work: at six, and everything else happens from ten on.
BILL_MINUTES = -180
WORK_MINUTES = 120
T = TypeVar("T")


class StoryBroken(Exception):
    """Something in the story didn't happen as it must."""


@dataclass
class Story:
    """What was done, for out/demo/story.json: ids, counts, money as decimal strings, seconds a step."""

    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The story as JSON."""
        return {"version": 1, "profile": "local", "timings_seconds": self.seconds, **self.facts}


class Teller:
    """A running mesh, an estate behind it, and what was told so far. `day0` is today unless another day is given."""

    def __init__(self, mesh: LocalMesh, console: Console, day0: date | None = None) -> None:
        self.mesh, self.console, self.story = mesh, console, Story()
        self.day0 = datetime.combine(day0 or datetime.now(UTC).date(), time_of_day(9), UTC)
        self.clients = AwsClients.of(mesh.cloud)
        self.control = ProxyControl.of(mesh.cloud)
        self.estate = Estate(self.clients, build_plan())
        self.bills = BillSimulator(
            self.clients,
            mesh.state / "bills",
            mesh.clock.now,
            BillOptions(bill_bucket_name()),
            self.control.changes,
        )
        self.connection_id = ""
        # The bundle of the receipt that is shown, as finance fetched it.
        self.receipt = ""
        # The zip of the evidence bundle, as the auditor fetched it.
        self.evidence = b""
        self._base: BaseUser | None = None
        self._people: dict[tuple[str, str], Somebody] = {}

    def person(self, organization: str, role: str) -> Somebody:
        """Somebody, signed in once."""
        key = (organization, role)
        if key not in self._people:
            self._people[key] = Somebody(
                self.mesh.gateway_url,
                self.mesh.installation.ca.cert_file,
                self.mesh.token(organization, role),
                str(organization_id(organization)),
            )
        return self._people[key]

    async def close(self) -> None:
        """Sign everybody out."""
        await asyncio.gather(*(person.close() for person in self._people.values()))

    async def base_user(self) -> BaseUser:
        """The customer's user whose key we are given, made on first use."""
        if self._base is None:
            self._base = await asyncio.to_thread(create_base_user, self.clients)
        return self._base

    def say(self, text: str) -> None:
        """A line of the story."""
        self.console.print(text)

    def go_to(self, day: int, minutes: int = 0) -> None:
        """Move the clock to a day of the story, so many minutes after nine in UTC."""
        self.mesh.clock.set_now(self.day0 + timedelta(days=day, minutes=minutes))

    def work_hours(self, day: int) -> None:
        """Move the clock to a day's work; a minute later each day, so that what is due after a day is due."""
        self.go_to(day, WORK_MINUTES + day)

    async def seed_through(self, day: int) -> int:
        """Let the estate change as it did, up to a day; the clock stands on each day as its changes happen."""
        steps = 0
        for each in self.estate.plan.days():
            if each <= day and each not in self.estate.done_days:
                self.go_to(each)
                steps += await asyncio.to_thread(self.estate.seed_day, each)
        return steps

    async def live_through(self, day: int, *, billed: bool = True) -> None:
        """One day: the provider's bill in the early morning, what changes in the estate, then work.

        Returns once the day's bill was fetched, by itself, from its row. Where the day isn't `billed`, the provider
        only looks at what there is: what it bills of that day stands in the next bill.
        """
        self.go_to(day, BILL_MINUTES)
        await asyncio.to_thread(self.bills.run_day if billed else self.bills.observe)
        await self.seed_through(day)
        self.work_hours(day)
        await self.until(self._bill_fetched, f"the import of day {day}")

    async def _bill_fetched(self) -> bool | None:
        """Whether today's fetch of the bill is over. Raises StoryBroken when a bill was refused."""
        found = await self.person("acme", "Finance").get("/billImports", pageSize=1)
        newest = found["billImports"][0]
        if newest["state"] == "BILL_IMPORT_STATE_FAILED":
            raise StoryBroken(f"a bill was refused: {newest['problem']}")
        today = newest["createdAt"][:10] == f"{self.mesh.clock.now().date()}"
        return True if today and newest.get("finishedAt") else None

    async def until(self, ended: Callable[[], Awaitable[T | None]], what: str, seconds: float = WAIT_SECONDS) -> T:
        """Ask until there is an answer. Raises StoryBroken when none comes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            answer = await ended()
            if answer is not None:
                return answer
            await asyncio.sleep(POLL_SECONDS)
        raise StoryBroken(f"{what} didn't end within {seconds:.0f} s")

    async def refusal(self, call: Awaitable[Any]) -> Refused:
        """How a call is refused. Raises StoryBroken when it isn't."""
        try:
            await call
        except Refused as refused:
            return refused
        raise StoryBroken("something that must be refused was done")
