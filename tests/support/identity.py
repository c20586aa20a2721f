"""Identity's use cases on a real database, as its RPCs call them: two organizations, and somebody who decides."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from services._mesh.context import entered
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.membership import Member, Role
from services.identity.store.members import find_member_of_user
from services.identity.usecases.organizations import NewOrganization, create_organization
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, MovableClock, context

ADMIN, SECOND, CLERK, GLOBAL_ADMIN = (UUID(int=number) for number in (0x71, 0x72, 0x73, 0x74))
T = TypeVar("T")


@dataclass
class Registry:
    """Identity's store with a movable clock. acme has two Admins and a Viewer, globex one Admin."""

    database: TestDatabase
    store: Store
    clock: MovableClock

    async def decide(
        self,
        decide: Callable[[UnitOfWork], Awaitable[T]],
        user: UUID = ADMIN,
        organization: UUID = ACME,
        action: str = "",
        **facts: Any,
    ) -> T:
        """A decision of a user's in one transaction; `action` is the audit action that it owes."""
        told = {"actor": f"user:{user}", "responsible_person": user, "role": "ADMIN", "aal": 2, **facts}
        call = context(organization, action, **told)
        with entered(call):
            async with self.store.begin(organization, call) as work:
                return await decide(work)

    async def member(self, user: UUID, organization: UUID = ACME) -> Member:
        """A user's membership."""
        async with self.store.read(organization) as connection:
            found = await find_member_of_user(connection, organization, user)
        assert found is not None
        return found

    async def events(self, action: str, organization: UUID = ACME) -> list[dict[str, Any]]:
        """The payloads of the organization's events of an action, in order."""
        rows = await self.rows(
            "SELECT payload FROM identity.outbox WHERE organization_id = $1 AND action = $2 ORDER BY counter",
            organization,
            action,
        )
        return [json.loads(row["payload"]) for row in rows]

    async def revoked(self) -> list[tuple[str, str]]:
        """Kind and key of each entry of the revocation feed, in order."""
        rows = await self.rows("SELECT kind, key FROM identity.revocations ORDER BY seq")
        return [(row["kind"], row["key"]) for row in rows]

    async def rows(self, statement: str, *values: Any) -> list[Any]:
        """What a superuser sees, past all policies."""
        superuser = await self.database.superuser()
        try:
            found: list[Any] = await superuser.fetch(statement, *values)
            return found
        finally:
            await superuser.close()


@asynccontextmanager
async def registry(database: TestDatabase, connections: int = 5) -> AsyncIterator[Registry]:
    """Identity on a database that has its migrations."""
    role, clock = database.role("identity_api", connections), MovableClock()
    made = Registry(database, Store(role, "identity", clock), clock)
    people = ((ADMIN, "ada@acme.example"), (SECOND, "bob@acme.example"), (CLERK, "cleo@acme.example"))
    roles = (Role.ADMIN, Role.ADMIN, Role.VIEWER)
    members = tuple((user, email, role) for (user, email), role in zip(people, roles, strict=True))
    await create_organization(made.store, NewOrganization(ACME, "acme", "Acme Inc.", "UTC", "USD", members))
    other = ((GLOBAL_ADMIN, "gus@globex.example", Role.ADMIN),)
    await create_organization(made.store, NewOrganization(GLOBEX, "globex", "Globex", "UTC", "USD", other))
    try:
        yield made
    finally:
        await role.close()
