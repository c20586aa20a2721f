"""What is decided about the organization's own keys: made, followed by another, ended; and who may have one used.

They are sealed before the transaction that keeps them, each with its purpose in its context. Nothing here opens one.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from services._mesh.clock import Clock
from services._mesh.context import current
from services._mesh.envelope import parse
from services._mesh.errors import AlreadyExists, Conflict, Exhausted, NotFound, Reason, WrongState, invalid_field
from services._mesh.grants import CredentialScope
from services._mesh.ids import uuid7
from services._mesh.jobs import Authority, Job, Planner
from services._mesh.kms.interface import SecretContext
from services._mesh.kms.opening import Sealer
from services._mesh.uow import Store, UnitOfWork
from services.scanner.clients.peers import Identity
from services.scanner.model import key as model
from services.scanner.model.key import Key, KeyInvalid, KeyPurpose, KeyState, NewKey
from services.scanner.store import keks
from services.scanner.store import keys as store
from services.scanner.usecases.credentials import REVOKE, revoke_credential
from services.scanner.usecases.kinds import SIGN

MAX_ACTIVE = 50


async def seal_key(sealer: Sealer, purpose: KeyPurpose, secret: str) -> NewKey:
    """Seal a key that was given, or a new one. Raises Invalid, and what the key service raises."""
    try:
        shown = "" if secret else model.generated(purpose)
        plaintext = model.content(purpose, secret or shown)
    except KeyInvalid as error:
        raise invalid_field("secret", str(error)) from None
    key_id = uuid7()
    envelope = await sealer.seal(plaintext, SecretContext(current().organization(), key_id, purpose.value))
    return NewKey(key_id, purpose, envelope, shown)


async def create_key(work: UnitOfWork, name: str, sealed: NewKey) -> Key:
    """Keep a key. Raises AlreadyExists where one of its purpose and name is active, Exhausted, Conflict."""
    await store.lock(work.connection, work.organization_id)
    if await store.find_key(work.connection, sealed.purpose, name, KeyState.ACTIVE) is not None:
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS,
            "A key of this purpose and name is active. Rotate it, revoke it, or choose another name.",
            {"resource": "key"},
        )
    if await store.count_active(work.connection, sealed.purpose) >= MAX_ACTIVE:
        message = f"An organization has {MAX_ACTIVE} active keys of a purpose at most. Revoke one first."
        raise Exhausted(Reason.ERROR_REASON_QUOTA_EXCEEDED, message, {"limit": str(MAX_ACTIVE)})
    made = await _keep(work, name, sealed)
    work.emit("scanner.key.create", f"keys/{made.key_id}", {"before": {}, "after": _facts(made)})
    return made


async def rotate_key(
    work: UnitOfWork, planner: Planner, old_id: UUID, overlap: timedelta, sealed: NewKey
) -> tuple[Key, Key]:
    """Keep a key's successor; returns it, and the old one with its end. Raises NotFound, WrongState, Conflict."""
    await store.lock(work.connection, work.organization_id)
    old = await store.get_key(work.connection, old_id)
    if old.state is not KeyState.ACTIVE:
        raise _wrong(old, "Rotate the key that is active now, or make a new one.")
    before = await store.find_key(work.connection, old.purpose, old.name, KeyState.RETIRING)
    if before is not None:
        raise _wrong(before, f"The key before it, {before.key_id}, isn't revoked yet. Revoke it first, or wait.")
    if overlap:
        replaced = await store.mark_retiring(work.connection, old_id, work.now + overlap)
        await work.enqueue(planner.plan(work.organization_id, REVOKE, old_id, work.now + overlap))
    else:
        replaced = await _end(work, planner, old_id)
    new = await _keep(work, old.name, sealed)
    said = {"before": _facts(old), "after": _facts(replaced), "successor": _facts(new)}
    work.emit("scanner.key.rotate", f"keys/{old_id}", said)
    return new, replaced


async def revoke_key(work: UnitOfWork, planner: Planner, key_id: UUID) -> Key:
    """End a key at once, and have everybody told. Raises NotFound, WrongState."""
    await store.lock(work.connection, work.organization_id)
    before = await store.get_key(work.connection, key_id)
    if before.state is KeyState.REVOKED:
        raise _wrong(before, "Nothing is left to do.")
    ended = await _end(work, planner, key_id)
    work.emit("scanner.key.revoke", f"keys/{key_id}", {"before": _facts(before), "after": _facts(ended)})
    return ended


async def end_key(work: UnitOfWork, credential_id: UUID) -> None:
    """End a key whose overlap with its successor is over; nothing to do for any other credential."""
    found = await store.find_retiring(work.connection, credential_id)
    if found is None:
        return
    ended = await store.mark_revoked(work.connection, credential_id, work.now)
    work.emit("scanner.key.end", f"keys/{credential_id}", {"before": _facts(found), "after": _facts(ended)})


async def purpose_of(reader: Store, key_id: UUID) -> KeyPurpose:
    """What a key is for. Raises NotFound."""
    async with reader.read() as connection:
        return (await store.get_key(connection, key_id)).purpose


async def list_keys(reader: Store, after: UUID | None, limit: int) -> list[Key]:
    """Keys by id; one more than `limit` shows that there are more."""
    async with reader.read() as connection:
        return await store.list_keys(connection, after, limit + 1)


class KeyPolicies:
    """What a worker may have done with keys, decided anew at each claim and renewal."""

    def __init__(self, reader: Store, identity: Identity, clock: Clock) -> None:
        self._reader, self._identity, self._clock = reader, identity, clock

    async def deliver(self, job: Job) -> Authority:
        """Sign with every live key of the name that the subject, a webhook key, has: one grant each.

        Raises NotFound, WrongState where none is live.
        """
        if not await self._identity.is_active(job.organization_id):
            raise NotFound("organization")
        async with self._reader.read(job.organization_id) as connection:
            found = await store.get_key(connection, job.subject_id)
            live = await store.list_live(connection, KeyPurpose.WEBHOOK, found.name, self._clock.now())
        if found.purpose is not KeyPurpose.WEBHOOK or not live:
            raise _wrong(found, "No webhook key of this name is live.")
        # `account` tells the grants of a lease apart.
        scopes = (CredentialScope(credential_id=key.key_id, purpose=SIGN, account=str(key.key_id)) for key in live)
        return Authority(credentials=tuple(scopes))


async def _keep(work: UnitOfWork, name: str, sealed: NewKey) -> Key:
    await keks.lock(work.connection, work.organization_id)
    if await keks.is_retired(work.connection, parse(sealed.envelope).kek):
        raise Conflict(Reason.ERROR_REASON_ETAG_MISMATCH, "The KEK was retired at the same moment. Repeat it.")
    made = Key(sealed.key_id, sealed.purpose, name, KeyState.ACTIVE, work.now)
    await store.insert_key(work.connection, work.organization_id, made, sealed)
    return made


async def _end(work: UnitOfWork, planner: Planner, key_id: UUID) -> Key:
    await work.cancel_jobs(REVOKE, key_id)
    await revoke_credential(work, planner, key_id)
    return await store.mark_revoked(work.connection, key_id, work.now)


def _facts(key: Key) -> dict[str, str]:
    return {
        "key_id": str(key.key_id),
        "purpose": key.purpose.value,
        "name": key.name,
        "state": key.state.value,
        "ends_at": key.ends_at.isoformat() if key.ends_at else "",
    }


def _wrong(found: Key, way_out: str) -> WrongState:
    message = f"The key {found.name} is {found.state.value}. {way_out}"
    return WrongState(Reason.ERROR_REASON_STATE_WRONG, message, {"state": found.state.value, "allowed": "ACTIVE"})
