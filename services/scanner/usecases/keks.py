"""Which key an organization's secrets are sealed under, and naming another one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from uuid import UUID

from services._mesh.context import current
from services._mesh.envelope import VERSION
from services._mesh.errors import AlreadyExists, Exhausted, Reason, WrongState, invalid_field
from services._mesh.ids import uuid7
from services._mesh.kms.interface import Binding, Kek, Kms, SecretContext
from services._mesh.uow import Store, UnitOfWork
from services.scanner.clients.rewrapping import Wrapper
from services.scanner.model.kek import PROBE_PURPOSE, KekInvalid, KekState, NamedKek, RegisteredKek
from services.scanner.store import backups, rewrapping
from services.scanner.store import keks as store

# Each is a row that posture counts, and that somebody has to keep alive while anything is sealed under it.
MAX_KEKS = 1000


class Keks:
    """The keys of organizations: named by themselves, or given by the installation's rule, which `own_kek` knows."""

    def __init__(self, reader: Store, kms: Kms, own_kek: Callable[[UUID], Awaitable[Kek]], wrapper: Wrapper) -> None:
        self._reader, self._kms, self._own_kek, self._wrapper = reader, kms, own_kek, wrapper

    async def kek_in_use(self, organization_id: UUID) -> Kek:
        """The key that is sealed under. Raises WrongState (KMS_KEY_UNUSABLE) where there is none."""
        async with self._reader.read(organization_id) as connection:
            found = await store.find_active(connection)
        return found.named.kek() if found is not None else await self._own_kek(organization_id)

    async def probe(self, named: NamedKek) -> None:
        """Wrap under a key, and have the broker unwrap. Raises Invalid for what is no name, and what either says."""
        try:
            kek = named.kek()
        except KekInvalid as error:
            raise invalid_field(error.field, error.rule) from None
        await self._require_not_anothers(kek)
        context = SecretContext(current().organization(), uuid7(), PROBE_PURPOSE)
        material = os.urandom(32)
        wrapped = await self._kms.wrap(kek, material, Binding(context.canonical(VERSION), context, kek))
        digest = hashlib.sha256(material).digest()
        await self._wrapper.prove(context.organization_id, context.credential_id, kek, wrapped, digest)

    async def _require_not_anothers(self, kek: Kek) -> None:
        """Raises Invalid for a key that the installation's rule gives to another organization.

        Whoever knows its id could seal under it, and lose everything with that organization's key.
        """
        own = str(current().organization())
        try:
            mine = await self._own_kek(current().organization())
        except WrongState:  # There is no rule.
            return
        before, found, _ = mine.reference.partition(own)
        named = kek.reference.removeprefix(before)[: len(own)]
        if found and kek.service is mine.service and kek.reference.startswith(before) and _is_another(named, own):
            raise invalid_field("key_id", "must be a key of your own, and is kept for another organization; make one")


def _is_another(named: str, own: str) -> bool:
    try:
        return UUID(named) != UUID(own)
    except ValueError:
        return False


async def register_kek(work: UnitOfWork, named: NamedKek) -> RegisteredKek:
    """Take a key that was probed. Raises AlreadyExists for one that was named before, Exhausted (QUOTA_EXCEEDED)."""
    await store.lock(work.connection, work.organization_id)
    before = await store.find_active(work.connection)
    if await store.find_named(work.connection, named) is not None:
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS,
            "The organization named this version of the key before. Make a new version, or a new key.",
            {"resource": "kek"},
        )
    version = before.version + 1 if before is not None else 1
    if version > MAX_KEKS:
        message = f"An organization names {MAX_KEKS} keys at most."
        raise Exhausted(Reason.ERROR_REASON_QUOTA_EXCEEDED, message, {"limit": str(MAX_KEKS)})
    made = RegisteredKek(uuid7(), version, named, KekState.ACTIVE, work.now)
    await store.insert_kek(work.connection, work.organization_id, made)
    said = {"version": str(version), "before": _said(before.named) if before is not None else "", "after": _said(named)}
    work.emit("scanner.kek.register", f"keks/{made.kek_id}", said)
    return made


def _said(named: NamedKek) -> str:
    return f"{named.kek().service.name} {named.kek().reference} in {named.region}"


async def list_keks(reader: Store, before: int | None, limit: int) -> list[RegisteredKek]:
    """Keys, the newest first; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_keks(connection, before, limit + 1)


@dataclass(frozen=True, slots=True)
class Uses:
    """How many credentials, and backups, are under each key, by its reference; under none that was named; and stuck."""

    by_reference: Mapping[str, int]
    backups: Mapping[str, int]
    by_rule: int
    stuck: int


async def count_uses(reader: Store) -> Uses:
    """What is sealed under what."""
    async with reader.read() as connection:
        counts, kept = await rewrapping.count_by_kek(connection), await backups.count_by_kek(connection)
        named = {each.named.kek().reference for each in await store.list_keks(connection, None, MAX_KEKS)}
        newest = await store.find_active(connection)
        stuck = 0 if newest is None else await rewrapping.count_stuck(connection, newest.kek_id)
    return Uses(counts, kept, sum(count for kek, count in counts.items() if kek not in named), stuck)
