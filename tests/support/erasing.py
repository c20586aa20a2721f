"""The audit process, as far as erasing goes, on real databases: decisions, the eraser, the look at restored keys."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.database import Database
from services._mesh.relay import Relay
from services._mesh.uow import Store, UnitOfWork
from services.audit import erasing, usecases
from services.audit.eraser import Eraser
from services.audit.model.erasures import Erasure, LegalHold
from services.audit.model.events import EventFilter, PayloadState, Produced, Recorded
from services.audit.opener import Opener
from services.audit.own_log import OwnLog
from services.audit.replay import Replay
from services.audit.sequencer import Sequencer
from services.audit.serving import Serving
from services.audit.store import erasures as store
from tests.support.log import ACME, ACTORS, event, kek, keys_of, sequencer
from tests.support.postgres import TestDatabase
from tests.support.things import context

T = TypeVar("T")
ADA, BOB, EVE = (UUID(int=n) for n in (0xA, 0xB, 0xE))


@dataclass
class Vault:
    """One audit process. `crash` is the name of a failpoint at which it dies."""

    database: TestDatabase
    keys: TestDatabase
    log: Sequencer
    store: Store
    relay: Relay
    eraser: Eraser
    replay: Replay
    serving: Serving
    opener: Opener
    api: Database
    counter: int = 0

    async def act(self, person: UUID, times: int = 1, organization: UUID = ACME) -> list[Produced]:
        """Something that a person did, in the log."""
        made = []
        for _ in range(times):
            self.counter += 1
            made.append(event(self.counter, organization, actor=f"user:{person}"))
        await usecases.append_events(self.log, "identity", made)
        return made

    async def decide(
        self, person: UUID, decide: Callable[[UnitOfWork], Awaitable[T]], organization: UUID = ACME, **more: Any
    ) -> T:
        """A decision of a person."""
        call = context(organization, actor=f"user:{person}", responsible_person=person, role="SECURITY", **more)
        with entered(call):
            async with self.store.begin(organization, call) as work:
                return await decide(work)

    async def request(self, person: UUID, subject: UUID, organization: UUID = ACME) -> Erasure:
        """Ask for an erasure."""
        return await self.decide(
            person, lambda work: erasing.request_erasure(work, ACTORS, f"user:{subject}", "case 7"), organization
        )

    async def approve(
        self, person: UUID, erasure: Erasure, subject: UUID, organization: UUID = ACME, **more: Any
    ) -> Erasure:
        """Approve one."""
        return await self.decide(
            person,
            lambda work: erasing.approve_erasure(work, ACTORS, erasure.erasure_id, f"user:{subject}", ""),
            organization,
            **more,
        )

    async def hold(self, person: UUID, subject: UUID | None) -> LegalHold:
        """Place a legal hold."""
        name = f"user:{subject}" if subject else ""
        return await self.decide(person, lambda work: erasing.place_legal_hold(work, ACTORS, name, "case 8"))

    async def erased(self, subject: UUID, organization: UUID = ACME) -> Erasure:
        """An erasure from the request to its end."""
        asked = await self.request(ADA, subject, organization)
        await self.approve(BOB, asked, subject, organization)
        assert await self.eraser.round() == 1
        return await self.get(asked, organization)

    async def get(self, erasure: Erasure, organization: UUID = ACME) -> Erasure:
        """An erasure as it stands."""
        return await self.get_by_id(erasure.erasure_id, organization)

    async def get_by_id(self, erasure_id: UUID, organization: UUID = ACME) -> Erasure:
        """The same, by its id."""
        async with self.store.read(organization) as connection:
            return await store.get_erasure(connection, erasure_id)

    async def read(self, events: list[Produced], organization: UUID = ACME) -> list[Recorded]:
        """Events as a reader gets them."""
        with entered(context(organization)):
            return [await usecases.get_event(self.store, self.opener, each.event_id, ("",)) for each in events]

    async def own_events(self, action: str, organization: UUID = ACME) -> list[dict[str, Any]]:
        """The payloads that can be read of the log's own events of an action, relayed now, in order."""
        while await self.relay.round():
            pass
        chosen = EventFilter(action=action)
        with entered(context(organization)):
            found = await usecases.list_events(self.store, self.opener, chosen, ACTORS, ("",), None, 500)
        return [json.loads(each.payload) for each in reversed(found) if each.state is PayloadState.PRESENT]


@contextlib.asynccontextmanager
async def vault(database: TestDatabase, keys: TestDatabase | None = None) -> AsyncIterator[Vault]:
    """An audit process on a log's database and a database of keys; it has looked at the keys."""
    keys, clock, serving = keys or await keys_of(database), Clock(), Serving()
    roles = {name: database.role(f"audit_{name}") for name in ("api", "relay", "dispatcher", "sequencer")}
    own = {name: keys.role(f"subjects_{name}") for name in ("api", "eraser")}
    log_store = Store(roles["api"], "audit", clock)
    erasing_roles = (log_store, roles["dispatcher"], roles["sequencer"], own["eraser"])
    replay = Replay(*erasing_roles, clock)
    try:
        serving.trust(await replay.look())
        async with sequencer(database, serving=serving, keys=keys) as log:
            relay = Relay(roles["relay"], "audit", OwnLog(log_store, log).append, clock)
            eraser = Eraser(*erasing_roles, serving, clock)
            opener = Opener(own["api"], roles["api"], kek(), serving)
            yield Vault(database, keys, log, log_store, relay, eraser, replay, serving, opener, own["api"])
    finally:
        await asyncio.gather(*(role.close() for role in (*roles.values(), *own.values())))


@contextlib.asynccontextmanager
async def elsewhere(made: Vault) -> AsyncIterator[Eraser]:
    """The eraser of another process of the same installation, with a pool and a knowledge of the keys of its own."""
    clock, serving = Clock(), Serving()
    api, dispatcher, head = (made.database.role(f"audit_{name}", 2) for name in ("api", "dispatcher", "sequencer"))
    own = made.keys.role("subjects_eraser", 2)
    log_store = Store(api, "audit", clock)
    serving.trust(await Replay(log_store, dispatcher, head, own, clock).look())
    yield Eraser(log_store, dispatcher, head, own, serving, clock)
    await asyncio.gather(*(role.close() for role in (api, dispatcher, head, own)))
