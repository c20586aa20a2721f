"""What people decide about erasures and legal holds, one function a decision. Who they are is kept as a keyed hash.

An erasure is executed by the eraser (eraser.py), never here: the decision and its event are committed first.
"""

from __future__ import annotations

from uuid import UUID

from services._mesh.context import current
from services._mesh.database import Database
from services._mesh.errors import (
    AlreadyExists,
    Denied,
    Exhausted,
    NotFound,
    Reason,
    WrongState,
    invalid_field,
)
from services._mesh.ids import uuid7
from services._mesh.uow import UnitOfWork
from services.audit.model.actors import ActorHash
from services.audit.model.erasures import Erasure, ErasureState, LegalHold
from services.audit.store import erasures as store
from services.audit.store import keys as key_store

MAX_HOLDS = 1000
_PROCESSES = ("process:", "spiffe:")


async def require_subject(keys: Database, organization_id: UUID, hashed: ActorHash, subject: str) -> None:
    """Raises NotFound where nobody of that name has any event to erase; Invalid for a process, which is nobody."""
    if subject.startswith(_PROCESSES):
        raise invalid_field("subject", 'must be a person or a service account, such as "user:<uuid>".')
    async with keys.scoped(organization_id, read_only=True) as connection:
        if not await key_store.has_alive(connection, hashed(organization_id, subject)):
            raise NotFound("subject")


async def request_erasure(work: UnitOfWork, hashed: ActorHash, subject: str, reason: str) -> Erasure:
    """Ask for an erasure. Raises AlreadyExists while there is an open one, WrongState for payloads in the clear."""
    subject_hash = hashed(work.organization_id, subject)
    await store.lock_erasures(work.connection, work.organization_id)
    earlier = await store.find_open(work.connection, subject_hash)
    if earlier is not None:
        raise AlreadyExists(
            Reason.ERROR_REASON_RESOURCE_EXISTS,
            "An erasure of this subject was asked for already, and isn't over.",
            {"resource": earlier.target},
        )
    if clear := await store.count_clear(work.connection, subject):
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"{clear} of the subject's events are from before payloads were sealed: no key makes them unreadable.",
            {"state": "IN_THE_CLEAR", "allowed": "SEALED"},
        )
    made = Erasure(uuid7(), subject_hash, reason, ErasureState.REQUESTED, _person(work, hashed), work.now)
    await store.insert_erasure(work.connection, work.organization_id, made)
    work.emit("audit.erasure.request", made.target, {"subject_hash": subject_hash.hex(), "reason": reason})
    return await store.get_erasure(work.connection, made.erasure_id)


async def approve_erasure(work: UnitOfWork, hashed: ActorHash, erasure_id: UUID, subject: str, comment: str) -> Erasure:
    """Approve an erasure, by its subject's name. Raises NotFound, Denied, Invalid, WrongState."""
    found = await _requested(work, erasure_id)
    current().require_human("audit.erasure.approve")
    # Linked logins are one person, whichever of them asked.
    if _persons(work, hashed) & {found.requester_hash, found.subject_hash}:
        raise Denied(
            Reason.ERROR_REASON_REQUESTER_IS_APPROVER,
            "Who asked for an erasure, or is its subject, can't approve it. Ask somebody else who may.",
            {"erasure_id": str(erasure_id)},
        )
    if hashed(work.organization_id, subject) != found.subject_hash:
        raise invalid_field("subject", "isn't the subject of this erasure. Read again whom it is about.")
    if found.held:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "A legal hold covers the subject. It must be released first.",
            {"state": "HELD", "allowed": ErasureState.REQUESTED},
        )
    return await _decided(work, hashed, found, ErasureState.APPROVED, comment, "audit.erasure.approve")


async def reject_erasure(work: UnitOfWork, hashed: ActorHash, erasure_id: UUID, comment: str) -> Erasure:
    """Reject an erasure, or take it back. Raises NotFound, WrongState."""
    found = await _requested(work, erasure_id)
    return await _decided(work, hashed, found, ErasureState.REJECTED, comment, "audit.erasure.reject")


async def place_legal_hold(work: UnitOfWork, hashed: ActorHash, subject: str, reason: str) -> LegalHold:
    """Place a hold on one subject, or on everybody. Waits for an erasure that is being executed. Raises Exhausted."""
    await store.lock_erasures(work.connection, work.organization_id)
    if await store.count_placed(work.connection) >= MAX_HOLDS:
        raise Exhausted(
            Reason.ERROR_REASON_QUOTA_EXCEEDED,
            f"There are {MAX_HOLDS} legal holds already. Release one, or place one on everybody.",
            {"limit": str(MAX_HOLDS)},
        )
    subject_hash = hashed(work.organization_id, subject) if subject else None
    made = LegalHold(uuid7(), subject_hash, reason, _person(work, hashed), work.now)
    await store.insert_hold(work.connection, work.organization_id, made)
    about = {"subject_hash": subject_hash.hex() if subject_hash else "", "reason": reason}
    work.emit("audit.hold.place", made.target, about)
    return made


async def release_legal_hold(work: UnitOfWork, hashed: ActorHash, hold_id: UUID, reason: str) -> LegalHold:
    """Release a hold. Raises NotFound, WrongState for one that was released."""
    await store.lock_erasures(work.connection, work.organization_id)
    found = await store.get_hold(work.connection, hold_id)
    if found.released_at is not None:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            "The hold was released already.",
            {"state": "RELEASED", "allowed": "PLACED"},
        )
    await store.mark_released(work.connection, hold_id, _person(work, hashed), work.now, reason)
    about = {"subject_hash": found.subject_hash.hex() if found.subject_hash else "", "reason": reason}
    work.emit("audit.hold.release", found.target, about)
    return await store.get_hold(work.connection, hold_id)


async def _requested(work: UnitOfWork, erasure_id: UUID) -> Erasure:
    await store.lock_erasures(work.connection, work.organization_id)
    found = await store.get_erasure(work.connection, erasure_id)
    if found.state is not ErasureState.REQUESTED:
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"The erasure is {found.state}: it was decided already.",
            {"state": found.state, "allowed": ErasureState.REQUESTED},
        )
    return found


async def _decided(
    work: UnitOfWork, hashed: ActorHash, found: Erasure, state: ErasureState, comment: str, audit_action: str
) -> Erasure:
    decider, deciders = _person(work, hashed), _persons(work, hashed)
    await store.mark_decided(work.connection, found.erasure_id, state, decider, deciders, work.now, comment)
    work.emit(audit_action, found.target, {"subject_hash": found.subject_hash.hex(), "comment": comment})
    return await store.get_erasure(work.connection, found.erasure_id)


def _persons(work: UnitOfWork, hashed: ActorHash) -> frozenset[bytes]:
    """The hashes of all users that the caller is as a person."""
    return frozenset(hashed(work.organization_id, f"user:{user}") for user in current().persons())


def _person(work: UnitOfWork, hashed: ActorHash) -> bytes:
    """The hash of the person who answers for the call; theirs as an actor, so that it compares with subjects."""
    person = current().responsible_person
    if person is None:
        raise Denied(Reason.ERROR_REASON_PERMISSION_MISSING, "Only a person can decide this.", {"permission": ""})
    return hashed(work.organization_id, f"user:{person}")
