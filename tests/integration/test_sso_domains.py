"""Proven domains are looked for again: what becomes of those whose record is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.json_format import MessageToDict

from recoup_client.posture import rows
from services._mesh.context import entered
from services._mesh.errors import dependency_down
from services.identity.falling_due import FallingDue
from services.identity.model.sso import GRACE
from services.identity.usecases import posture, sso_domains
from services.identity.usecases.sso_domains import AGAIN, CHECK, EVERY
from services.identity.wire import posture as posture_wire
from services.identity.wire import sso as wire
from tests.integration.test_identity_saml import cause, demanded, enforce
from tests.support.identity import ADMIN, CLERK, registry
from tests.support.postgres import TestDatabase, drop, new_database
from tests.support.signing_in import Desk, Dns, desk, prove_domain
from tests.support.things import ACME, context

pytestmark = pytest.mark.services("identity")
MINUTE = timedelta(minutes=1)


class Watch:
    """acme's provider and domain, and the task that looks again."""

    def __init__(self, at: Desk, task: FallingDue) -> None:
        self.at, self.task = at, task

    async def after(self, time: timedelta) -> int:
        """How many domains were looked for when that time has passed."""
        self.at.made.clock.ahead += time
        return await self.task.ask()

    async def domains(self) -> list[Any]:
        with entered(context(ACME)):
            return await sso_domains.list_domains(self.at.made.store)

    async def due(self) -> int:
        found = await self.at.made.rows("SELECT FROM identity.due_items WHERE kind LIKE $1", f"{CHECK}%")
        return len(found)


@pytest.fixture
async def watch(database: TestDatabase) -> AsyncIterator[Watch]:
    async with registry(database) as made, desk(made) as at:
        dispatcher = database.role("identity_dispatcher", 1)
        asks = sso_domains.asks(made.store, at.dns)
        yield Watch(at, FallingDue(dispatcher, made.store, made.clock, asks=asks))
        await dispatcher.close()


async def test_a_domain_whose_record_is_gone_brings_nobody_new_after_the_grace(watch: Watch) -> None:
    at = watch.at
    await at.passed_test()
    await at.session()
    await enforce(at)
    assert await watch.after(EVERY - MINUTE) == 0
    assert await watch.after(2 * MINUTE) == 1
    assert await at.made.events("identity.domain.lose") == []  # It is there.
    kept, at.dns.records = at.dns.records, {}
    assert await watch.after(EVERY + MINUTE) == 1
    (event,) = await at.made.events("identity.domain.lose")
    (found,) = await watch.domains()
    assert (event["metadata"]["before"].get("joins_until"), event["metadata"]["after"]["joins_until"]) == (
        None,
        (found.missing_since + GRACE).isoformat(),
    )
    # It is told, and nothing more as long as the grace lasts; the next looks tell it no second time.
    await at.session(at.said(name_id="newcomer"))
    with entered(context(ACME)):
        facts = await posture.get_posture(at.made.store, at.made.clock.now(), at.made.clock.wall_now())
    assert [each.name for each in facts.missing_domains] == ["acme.example"]
    shown = rows(MessageToDict(posture_wire.posture(facts), always_print_fields_with_no_presence=True))
    assert next(which for fact, _, which in shown if "record" in fact).startswith("acme.example since 20")
    assert wire.domain(found).HasField("joins_until")
    assert await watch.after(EVERY + MINUTE) == 1
    assert len(await at.made.events("identity.domain.lose")) == 1
    at.made.clock.ahead += GRACE
    assert cause(await at.sign_in(at.said(name_id="late"))) == "DOMAIN_GONE"
    # Members stay, and so does what is demanded of them.
    await at.session()
    assert await demanded(at.made, CLERK)
    # It is back: by the next look, as by an Admin who has it looked for.
    at.dns.records = kept
    assert await watch.after(EVERY) == 1
    assert len(await at.made.events("identity.domain.regain")) == 1
    await at.session(at.said(name_id="late"))


async def test_a_dns_that_says_nothing_proves_nothing_either_way(watch: Watch) -> None:
    at = watch.at

    class Down(Dns):
        async def txt(self, name: str) -> list[str]:
            raise dependency_down("DNS")

    answering, watch.task._asks = watch.task._asks, sso_domains.asks(at.made.store, Down())
    assert await watch.after(EVERY + MINUTE) == 1
    assert [each.missing_since for each in await watch.domains()] == [None]
    assert await watch.after(AGAIN - MINUTE) == 0
    watch.task._asks = answering
    kept = dict(at.dns.records)
    at.dns.records.clear()
    assert await watch.after(2 * MINUTE) == 1
    assert [each.missing_since is None for each in await watch.domains()] == [False]
    # One that never answers proves nothing for ever: its second silence counts, and it is asked every hour.
    watch.task._asks, at.dns.records = answering, dict(kept)
    assert await watch.after(EVERY + MINUTE) == 1
    watch.task._asks = sso_domains.asks(at.made.store, Down())
    missing = []
    for wait in (EVERY, AGAIN, AGAIN):
        assert await watch.after(wait + MINUTE) == 1
        missing.append([each.missing_since is not None for each in await watch.domains()])
    assert missing == [[False], [True], [True]]
    assert len(await at.made.events("identity.domain.lose")) == 2
    # Proven anew, it is as it was; and it is looked for once a day, however often it was proven.
    for _ in range(2):
        (domain,) = await watch.domains()
        await at.made.decide(partial(sso_domains.verify_domain, domain_id=domain.domain_id))
    assert [each.missing_since for each in await watch.domains()] == [None]
    assert await watch.due() == 1
    await prove_domain(at.made, at.dns, "other.example", ACME, ADMIN)
    await at.made.decide(lambda work: sso_domains.remove_domain(work, domain.domain_id))
    assert await watch.due() == 1
    await at.made.rows(
        "INSERT INTO identity.due_items (organization_id, kind, subject_id, due_at) VALUES ($1, $2, $3, now())",
        *(ACME, CHECK, domain.domain_id),
    )
    assert await watch.after(2 * MINUTE) == 1  # What was removed meanwhile is let go.
    assert await watch.due() == 1


async def test_what_was_proven_before_is_looked_for_and_what_was_set_up_is_believed() -> None:
    """The migrations, over rows of the version before them."""
    old = await new_database()
    try:
        await old.migrate("identity", version="0022")
        superuser = await old.superuser()
        await superuser.execute("SET session_replication_role = replica")
        organization, provider, domain, pending = (UUID(int=number) for number in (1, 2, 3, 4))
        for statement in (
            "INSERT INTO identity.sso_providers (organization_id, provider_id, display_name, state, created_at)"
            f" VALUES ('{organization}', '{provider}', 'Okta', 'ACTIVE', now())",
            "INSERT INTO identity.sso_domains"
            " (organization_id, domain_id, name, challenge, state, verified_at, created_at)"
            f" VALUES ('{organization}', '{domain}', 'a.example', 'x', 'VERIFIED', now(), now()),"
            f" ('{organization}', '{pending}', 'b.example', 'x', 'PENDING', NULL, now())",
        ):
            await superuser.execute(statement)
        await old.migrate("identity")
        found = await superuser.fetch("SELECT organization_id, kind, subject_id FROM identity.due_items")
        assert [tuple(row) for row in found] == [(organization, CHECK, domain)]
        (row,) = await superuser.fetch("SELECT changed_at, changed_by, confirmed_by FROM identity.sso_providers")
        assert tuple(row) == (None, None, None)
        await superuser.close()
    finally:
        await drop(old)
