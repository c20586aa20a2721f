"""Proven domains: the DNS record that proves one, looked for when it is named and once a day from then on.

Inside them an identity provider or a directory may bring newcomers. A domain whose record is gone brings none after
`GRACE`; whoever is a member stays one, and what single sign-on demands of them stays demanded.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Protocol
from uuid import UUID

from services._mesh.errors import AlreadyExists, Reason, Unavailable, WrongState
from services._mesh.ids import uuid7
from services._mesh.uow import Store, UnitOfWork
from services.identity.model.sso import MAX_DOMAINS, Domain, domain_name
from services.identity.store import due
from services.identity.store import members as members_store
from services.identity.store import sso as store
from services.identity.usecases.sso import too_many
from services.identity.usecases.sso_sessions import end_domain_sessions

# What falls due, and when: the next look, and the next one after the DNS didn't answer.
CHECK, CHECK_AGAIN = "domain_check", "domain_check_again"
EVERY, AGAIN = timedelta(days=1), timedelta(hours=1)
# What is made of an answer, in a transaction of the organization's.
Decision = Callable[[UnitOfWork, UUID], Awaitable[None]]


class Resolver(Protocol):
    """The DNS, as far as it is needed."""

    async def txt(self, name: str) -> list[str]:
        """The TXT records at a name."""


async def list_domains(reader: Store) -> list[Domain]:
    """All domains of the caller's organization."""
    async with reader.read() as connection:
        return await store.list_domains(connection)


async def add_domain(work: UnitOfWork, name: str) -> Domain:
    """Name a domain, with the record that would prove it. Raises Invalid, AlreadyExists, Exhausted."""
    await members_store.lock_members(work.connection, work.organization_id)
    name = domain_name(name)
    if await store.find_domain(work.connection, name) is not None:
        raise AlreadyExists(Reason.ERROR_REASON_RESOURCE_EXISTS, "The domain is named already.", {"resource": "domain"})
    if await store.count_domains(work.connection) >= MAX_DOMAINS:
        raise too_many(MAX_DOMAINS, "domains")
    made = Domain(work.organization_id, uuid7(), name, secrets.token_hex(20), "PENDING", None, work.now)
    await store.insert_domain(work.connection, made)
    work.emit("identity.domain.add", f"domains/{made.domain_id}", {"before": {}, "after": _domain_reads(made)})
    return made


async def find_proof(reader: Store, resolver: Resolver, domain_id: UUID) -> None:
    """Look for a domain's record, outside of any transaction. Raises NotFound, WrongState, Unavailable."""
    async with reader.read() as connection:
        domain = await store.get_domain(connection, domain_id)
    if domain.record_value not in await resolver.txt(domain.record_name):
        raise WrongState(
            Reason.ERROR_REASON_DOMAIN_NOT_PROVEN,
            f"The DNS has no TXT record {domain.record_name} that says {domain.record_value}. A new one takes a while.",
            {"record_name": domain.record_name, "record_value": domain.record_value},
        )


async def verify_domain(work: UnitOfWork, domain_id: UUID) -> Domain:
    """Remember that the DNS proved a domain (`find_proof`). Raises NotFound."""
    before = await store.get_domain(work.connection, domain_id, lock=True)
    values = {"state": "VERIFIED", "verified_at": work.now, "missing_since": None}
    after = await store.mark_domain(work.connection, domain_id, **values)
    await _daily(work, domain_id)
    facts = {"before": _domain_reads(before), "after": _domain_reads(after)}
    work.emit("identity.domain.verify", f"domains/{domain_id}", facts)
    return after


async def remove_domain(work: UnitOfWork, domain_id: UUID) -> None:
    """Forget a domain. Raises NotFound, WrongState for the last proven one while single sign-on is enforced."""
    await members_store.lock_members(work.connection, work.organization_id)
    before = await store.get_domain(work.connection, domain_id, lock=True)
    left = await store.proven_domains(work.connection) - {before.name}
    if not left and await store.enforcing_provider(work.connection) is not None:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "It is the last proven domain, and single sign-on is enforced. End that first.",
            {"state": "ENFORCED", "allowed": "not enforced"},
        )
    await store.delete_domain(work.connection, domain_id)
    await _drop(work, domain_id)
    ended = await end_domain_sessions(work, before.name) if before.state == "VERIFIED" else 0
    facts = {"before": _domain_reads(before), "after": {}, "sessions_ended": str(ended)}
    work.emit("identity.domain.remove", f"domains/{domain_id}", facts)


def asks(reader: Store, resolver: Resolver) -> dict[str, Callable[[UUID, UUID], Awaitable[Decision]]]:
    """What is to be asked of the DNS when it is due, by its kind."""
    first = partial(ask_again, reader, resolver, silence=_soon)
    # Nameservers that never answer prove nothing either: a second silence is as good as a record that is gone.
    second = partial(ask_again, reader, resolver, silence=partial(recheck_domain, found=False, next_look=_soon))
    return {CHECK: first, CHECK_AGAIN: second}


async def ask_again(
    reader: Store, resolver: Resolver, organization_id: UUID, domain_id: UUID, *, silence: Decision
) -> Decision:
    """Look for a proven domain's record again, outside of any transaction; returns what is to be made of it."""
    async with reader.read(organization_id) as connection:
        domain = await store.find_domain_by_id(connection, domain_id)
    if domain is None:
        return _nothing
    try:
        found = domain.record_value in await resolver.txt(domain.record_name)
    except Unavailable:
        return silence
    return partial(recheck_domain, found=found)


async def _nothing(work: UnitOfWork, domain_id: UUID) -> None:
    """The domain was removed."""


async def _daily(work: UnitOfWork, domain_id: UUID) -> None:
    await _plan(work, domain_id, CHECK, EVERY)


async def _soon(work: UnitOfWork, domain_id: UUID) -> None:
    await _plan(work, domain_id, CHECK_AGAIN, AGAIN)


async def recheck_domain(work: UnitOfWork, domain_id: UUID, *, found: bool, next_look: Decision = _daily) -> None:
    """Remember that a proven domain's record is gone, or back; and have it looked for again."""
    before = await store.find_domain_by_id(work.connection, domain_id, lock=True)
    if before is None or before.state != "VERIFIED":
        return
    await next_look(work, domain_id)
    if found == (before.missing_since is None):
        return
    after = await store.mark_domain(work.connection, domain_id, missing_since=None if found else work.now)
    action = "identity.domain.regain" if found else "identity.domain.lose"
    work.emit(action, f"domains/{domain_id}", {"before": _domain_reads(before), "after": _domain_reads(after)})


async def _plan(work: UnitOfWork, domain_id: UUID, kind: str, after: timedelta) -> None:
    """The one next look at a domain."""
    await _drop(work, domain_id)
    await due.insert_due(work.connection, work.organization_id, kind, domain_id, work.now + after)


async def _drop(work: UnitOfWork, domain_id: UUID) -> None:
    for kind in (CHECK, CHECK_AGAIN):
        await due.drop_due(work.connection, work.organization_id, kind, domain_id)


def _domain_reads(domain: Domain) -> dict[str, str]:
    says = {"name": domain.name, "state": domain.state}
    return says | ({"joins_until": domain.joins_until.isoformat()} if domain.joins_until else {})
