"""All SQL of erasures and legal holds in the log's own database, within one organization but for what is dispatched."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services._mesh.errors import NotFound
from services.audit.model.erasures import Erasure, ErasureState, LegalHold

_HELD = """EXISTS (SELECT FROM audit.legal_holds h WHERE h.organization_id = e.organization_id
  AND h.released_at IS NULL AND (h.subject_hash IS NULL OR h.subject_hash = e.subject_hash))"""
_ERASURE = f"SELECT e.*, {_HELD} AS held FROM audit.erasures e"


async def lock_erasures(connection: AsyncConnection, organization_id: UUID) -> None:
    """Keep others from deciding about erasures and holds of the organization until the transaction ends.

    An erasure is executed under it, from the look for holds to the record that it is done.
    """
    name = f"erasures of {organization_id}"
    await connection.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})


async def get_erasure(connection: AsyncConnection, erasure_id: UUID) -> Erasure:
    """One erasure of the transaction's organization. Raises NotFound."""
    rows = await connection.execute(text(f"{_ERASURE} WHERE e.erasure_id = :id"), {"id": erasure_id})
    found = rows.one_or_none()
    if found is None:
        raise NotFound("erasure")
    return _erasure(found)


async def find_open(connection: AsyncConnection, subject_hash: bytes) -> Erasure | None:
    """The erasure of a subject that is neither rejected nor done, if there is one."""
    rows = await connection.execute(
        text(f"{_ERASURE} WHERE e.subject_hash = :subject AND e.state IN ('REQUESTED', 'APPROVED')"),
        {"subject": subject_hash},
    )
    found = rows.one_or_none()
    return None if found is None else _erasure(found)


async def list_erasures(connection: AsyncConnection, before: UUID | None, limit: int) -> list[Erasure]:
    """Erasures of the transaction's organization, newest first: their ids sort by the time that they were made."""
    rows = await connection.execute(
        text(
            f"{_ERASURE} WHERE CAST(:before AS uuid) IS NULL OR e.erasure_id < :before"
            " ORDER BY e.erasure_id DESC LIMIT :limit"
        ),
        {"before": before, "limit": limit},
    )
    return [_erasure(row) for row in rows]


async def insert_erasure(connection: AsyncConnection, organization_id: UUID, erasure: Erasure) -> None:
    """Keep a new erasure."""
    await connection.execute(
        text(
            "INSERT INTO audit.erasures (organization_id, erasure_id, subject_hash, reason, state, requester_hash,"
            " requested_at) VALUES (:organization_id, :id, :subject, :reason, :state, :requester, :at)"
        ),
        {
            "organization_id": organization_id,
            "id": erasure.erasure_id,
            "subject": erasure.subject_hash,
            "reason": erasure.reason,
            "state": erasure.state,
            "requester": erasure.requester_hash,
            "at": erasure.requested_at,
        },
    )


async def mark_decided(
    connection: AsyncConnection,
    erasure_id: UUID,
    state: ErasureState,
    decider: bytes,
    deciders: Collection[bytes],
    at: datetime,
    comment: str,
) -> None:
    """Approve or reject an erasure that was requested; `deciders` are all users that the decider is."""
    decided = {"state": state, "decider": decider, "deciders": sorted(deciders), "at": at, "comment": comment}
    await connection.execute(
        text(
            "UPDATE audit.erasures SET state = :state, decider_hash = :decider, decider_hashes = :deciders,"
            " decided_at = :at, comment = :comment WHERE erasure_id = :id AND state = 'REQUESTED'"
        ),
        {"id": erasure_id, **decided},
    )


async def mark_done(
    connection: AsyncConnection, organization_id: UUID, erasure_id: UUID, key_ids: Sequence[UUID], at: datetime
) -> int:
    """Record an erasure as done, and its keys as erased for good; returns how many events are under them."""
    await connection.execute(
        text(
            "INSERT INTO audit.erased_keys (organization_id, key_id, erasure_id)"
            " SELECT :organization_id, k, :id FROM unnest(CAST(:keys AS uuid[])) AS k ON CONFLICT DO NOTHING"
        ),
        {"organization_id": organization_id, "id": erasure_id, "keys": list(key_ids)},
    )
    rows = await connection.execute(
        text(
            "UPDATE audit.erasures e SET state = 'DONE', done_at = :at, keys_destroyed = :count,"
            " events_erased = (SELECT count(*) FROM audit.entries n WHERE n.organization_id = e.organization_id"
            "   AND n.actor_hash = e.subject_hash)"
            " WHERE e.erasure_id = :id AND e.state = 'APPROVED' RETURNING events_erased"
        ),
        {"id": erasure_id, "count": len(key_ids), "at": at},
    )
    return int(rows.scalar_one())


async def count_clear(connection: AsyncConnection, subject: str) -> int:
    """How many of a subject's payloads stand in the clear: from before payloads were sealed."""
    return int((await connection.execute(text(_CLEAR), {"subject": subject})).scalar_one())


async def list_erased_keys(connection: AsyncConnection) -> dict[UUID, UUID]:
    """The erasure by which each erased key of the transaction's organization was destroyed, by key."""
    rows = await connection.execute(text("SELECT key_id, erasure_id FROM audit.erased_keys"))
    return {row.key_id: row.erasure_id for row in rows}


async def find_erased(connection: AsyncConnection, destroyed: Sequence[tuple[UUID, UUID | None, bytes]]) -> set[UUID]:
    """Which keys of the transaction's organization an erasure stands behind, of those that are destroyed.

    Given as (key, erasure that its row names, subject's hash). It is among the erased keys, or its erasure is being
    executed: that was approved before it destroyed anything.
    """
    rows = await connection.execute(
        text(_BEHIND),
        {
            "keys": [key_id for key_id, _, _ in destroyed],
            "erasures": [erasure_id for _, erasure_id, _ in destroyed],
            "subjects": [subject_hash for _, _, subject_hash in destroyed],
        },
    )
    return {row.key_id for row in rows}


async def list_due(connection: AsyncConnection, state: ErasureState, after: UUID, limit: int) -> list[UUID]:
    """Organizations that have an erasure in this state, after one, in order: for the dispatcher's role."""
    rows = await connection.execute(
        text(
            "SELECT DISTINCT organization_id FROM audit.erasures WHERE state = :state AND organization_id >= :after"
            " ORDER BY organization_id LIMIT :limit"
        ),
        {"state": state, "after": after, "limit": limit},
    )
    return [row.organization_id for row in rows]


async def list_approved(connection: AsyncConnection, after: UUID, limit: int) -> list[Erasure]:
    """Erasures of the transaction's organization that wait to be executed, after one, in the order of their ids."""
    rows = await connection.execute(
        text(f"{_ERASURE} WHERE e.state = 'APPROVED' AND e.erasure_id > :after ORDER BY e.erasure_id LIMIT :limit"),
        {"after": after, "limit": limit},
    )
    return [_erasure(row) for row in rows]


async def mark_generation(connection: AsyncConnection, generation: UUID) -> None:
    """Say in which generation the keys hold nothing that was erased.

    Waits for the flush that is under way; where it is another generation, every later one looks for its keys again.
    """
    await connection.execute(
        text(
            "UPDATE audit.head SET erasures = erasures + 1, keys_generation = :generation"
            " WHERE keys_generation IS DISTINCT FROM :generation"
        ),
        {"generation": generation},
    )


async def get_hold(connection: AsyncConnection, hold_id: UUID) -> LegalHold:
    """One legal hold of the transaction's organization. Raises NotFound."""
    rows = await connection.execute(text("SELECT * FROM audit.legal_holds WHERE hold_id = :id"), {"id": hold_id})
    found = rows.one_or_none()
    if found is None:
        raise NotFound("legal hold")
    return _hold(found)


async def is_held(connection: AsyncConnection, subject_hash: bytes) -> bool:
    """Whether a legal hold covers a subject of the transaction's organization."""
    rows = await connection.execute(
        text(
            "SELECT EXISTS (SELECT FROM audit.legal_holds WHERE released_at IS NULL"
            " AND (subject_hash IS NULL OR subject_hash = :subject))"
        ),
        {"subject": subject_hash},
    )
    return bool(rows.scalar_one())


async def list_holds(connection: AsyncConnection, before: UUID | None, limit: int) -> list[LegalHold]:
    """Legal holds of the transaction's organization, newest first."""
    rows = await connection.execute(
        text(
            "SELECT * FROM audit.legal_holds WHERE CAST(:before AS uuid) IS NULL OR hold_id < :before"
            " ORDER BY hold_id DESC LIMIT :limit"
        ),
        {"before": before, "limit": limit},
    )
    return [_hold(row) for row in rows]


async def count_placed(connection: AsyncConnection) -> int:
    """How many holds of the transaction's organization stand."""
    rows = await connection.execute(text("SELECT count(*) FROM audit.legal_holds WHERE released_at IS NULL"))
    return int(rows.scalar_one())


async def insert_hold(connection: AsyncConnection, organization_id: UUID, hold: LegalHold) -> None:
    """Keep a new hold."""
    await connection.execute(
        text(
            "INSERT INTO audit.legal_holds (organization_id, hold_id, subject_hash, reason, placer_hash, placed_at)"
            " VALUES (:organization_id, :id, :subject, :reason, :placer, :at)"
        ),
        {
            "organization_id": organization_id,
            "id": hold.hold_id,
            "subject": hold.subject_hash,
            "reason": hold.reason,
            "placer": hold.placer_hash,
            "at": hold.placed_at,
        },
    )


async def mark_released(connection: AsyncConnection, hold_id: UUID, releaser: bytes, at: datetime, reason: str) -> None:
    """Release a hold that stands."""
    await connection.execute(
        text(
            "UPDATE audit.legal_holds SET releaser_hash = :releaser, released_at = :at, release_reason = :reason"
            " WHERE hold_id = :id AND released_at IS NULL"
        ),
        {"id": hold_id, "releaser": releaser, "at": at, "reason": reason},
    )


def _erasure(row: Row[Any]) -> Erasure:
    return Erasure(
        row.erasure_id,
        bytes(row.subject_hash),
        row.reason,
        ErasureState(row.state),
        bytes(row.requester_hash),
        row.requested_at,
        None if row.decider_hash is None else bytes(row.decider_hash),
        row.decided_at,
        row.comment,
        row.done_at,
        row.keys_destroyed,
        row.events_erased,
        row.held,
    )


def _hold(row: Row[Any]) -> LegalHold:
    return LegalHold(
        row.hold_id,
        None if row.subject_hash is None else bytes(row.subject_hash),
        row.reason,
        bytes(row.placer_hash),
        row.placed_at,
        None if row.releaser_hash is None else bytes(row.releaser_hash),
        row.released_at,
        row.release_reason,
    )


_BEHIND = """
SELECT d.key_id
FROM unnest(CAST(:keys AS uuid[]), CAST(:erasures AS uuid[]), CAST(:subjects AS bytea[]))
  AS d(key_id, erasure_id, subject_hash)
WHERE EXISTS (SELECT FROM audit.erased_keys k WHERE k.key_id = d.key_id)
  OR EXISTS (SELECT FROM audit.erasures e
    WHERE e.erasure_id = d.erasure_id AND e.subject_hash = d.subject_hash AND e.state = 'APPROVED')
"""
# Payloads in the clear come before all sealed ones of an organization: no more than those are looked at.
_CLEAR = """
SELECT count(*) FROM audit.payloads WHERE format = 1 AND subject = :subject
  AND idx < coalesce((SELECT idx FROM audit.payloads WHERE format > 1 ORDER BY idx LIMIT 1), 9223372036854775807)
"""
