"""All SQL of the subjects' keys, in their own database. Keys are wrapped here; nothing in this file can open one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# An organization and the keyed hash of one of its subjects.
Subject = tuple[UUID, bytes]


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it stands in the database. `wrapped` is empty once it is destroyed, by `erasure_id` as the row says."""

    organization_id: UUID
    subject_hash: bytes
    key_id: UUID
    wrapped: bytes = field(repr=False)
    erasure_id: UUID | None = None

    @property
    def context(self) -> bytes:
        """What the wrapping binds the key to."""
        return b"recoup subject key v1" + self.organization_id.bytes + self.key_id.bytes + self.subject_hash


async def find_alive(connection: AsyncConnection, subjects: Iterable[Subject]) -> dict[Subject, KeyRow]:
    """The key that is alive of each subject that has one, whatever the organization: for the sealer's role."""
    rows = await connection.execute(text(_ALIVE), _subjects(list(subjects)))
    return {(row.organization_id, bytes(row.subject_hash)): _key(row) for row in rows}


async def insert_keys(connection: AsyncConnection, keys: Sequence[KeyRow], created_at: datetime) -> None:
    """Keep new keys. Of a subject that somebody else made one for meanwhile, that one stays."""
    named = _subjects([(key.organization_id, key.subject_hash) for key in keys])
    wrapped = {"ids": [key.key_id for key in keys], "wrapped": [key.wrapped for key in keys]}
    await connection.execute(text(_INSERT), {**named, **wrapped, "created_at": created_at})


async def find_keys(connection: AsyncConnection, key_ids: Iterable[UUID]) -> tuple[UUID, dict[UUID, KeyRow]]:
    """The generation of the database, and keys of the transaction's organization by id, the destroyed ones too."""
    rows = list(await connection.execute(text(_FIND), {"ids": list(key_ids)}))
    found = [replace(_key(row), erasure_id=row.erasure_id) for row in rows if row.key_id is not None]
    return rows[0].generation, {key.key_id: key for key in found}


async def read_generation(connection: AsyncConnection) -> UUID:
    """What changes with each destruction."""
    return UUID(str((await connection.execute(text("SELECT generation FROM subjects.generation"))).scalar_one()))


def _subjects(subjects: Sequence[Subject]) -> Mapping[str, Any]:
    return {"organizations": [subject[0] for subject in subjects], "hashes": [subject[1] for subject in subjects]}


def _key(row: Any) -> KeyRow:
    return KeyRow(row.organization_id, bytes(row.subject_hash), row.key_id, bytes(row.wrapped_key))


_ALIVE = """
SELECT k.organization_id, k.subject_hash, k.key_id, k.wrapped_key FROM subjects.keys k
JOIN unnest(CAST(:organizations AS uuid[]), CAST(:hashes AS bytea[])) AS s(organization_id, subject_hash)
  ON k.organization_id = s.organization_id AND k.subject_hash = s.subject_hash
WHERE k.destroyed_at IS NULL
"""
_INSERT = """
INSERT INTO subjects.keys (organization_id, subject_hash, key_id, wrapped_key, created_at)
SELECT k.*, CAST(:created_at AS timestamptz) FROM unnest(CAST(:organizations AS uuid[]), CAST(:hashes AS bytea[]),
  CAST(:ids AS uuid[]), CAST(:wrapped AS bytea[])) AS k
ON CONFLICT (organization_id, subject_hash) WHERE destroyed_at IS NULL DO NOTHING
"""
# One statement, one snapshot: the generation is that of the keys. It has a row even where no key is found.
_FIND = """
SELECT g.generation, k.organization_id, k.subject_hash, k.key_id, k.wrapped_key, k.erasure_id
FROM subjects.generation g
LEFT JOIN subjects.keys k ON k.key_id = ANY(CAST(:ids AS uuid[]))
"""


async def has_alive(connection: AsyncConnection, subject_hash: bytes) -> bool:
    """Whether a subject of the transaction's organization has a key."""
    rows = await connection.execute(
        text("SELECT EXISTS (SELECT FROM subjects.keys WHERE subject_hash = :subject AND destroyed_at IS NULL)"),
        {"subject": subject_hash},
    )
    return bool(rows.scalar_one())


async def list_destroyed(connection: AsyncConnection, erasure_id: UUID) -> list[UUID]:
    """The keys of the transaction's organization that an erasure destroyed: for the eraser's role, as all below."""
    rows = await connection.execute(
        text("SELECT key_id FROM subjects.keys WHERE erasure_id = :erasure AND destroyed_at IS NOT NULL ORDER BY 1"),
        {"erasure": erasure_id},
    )
    return [row.key_id for row in rows]


async def find_begun(connection: AsyncConnection, erasures: Sequence[UUID]) -> set[UUID]:
    """Which erasures destroyed any key of the transaction's organization."""
    rows = await connection.execute(
        text(
            "SELECT DISTINCT erasure_id FROM subjects.keys"
            " WHERE erasure_id = ANY(CAST(:erasures AS uuid[])) AND destroyed_at IS NOT NULL"
        ),
        {"erasures": list(erasures)},
    )
    return {row.erasure_id for row in rows}


async def destroy_subject(connection: AsyncConnection, subject_hash: bytes, erasure_id: UUID, at: datetime) -> int:
    """Destroy whatever key of a subject is alive in the transaction's organization; returns how many were."""
    done = await connection.execute(
        text(f"{_DESTROY} subject_hash = :subject"), {"subject": subject_hash, "erasure": erasure_id, "at": at}
    )
    return int(done.rowcount)


async def destroy_returned(connection: AsyncConnection, erased: Mapping[UUID, UUID], at: datetime) -> list[UUID]:
    """Destroy those of the erased keys that are alive; returns them. `erased`: by which erasure, by key."""
    rows = await connection.execute(
        text(_DESTROY_RETURNED), {"keys": list(erased), "erasures": list(erased.values()), "at": at}
    )
    return [row.key_id for row in rows]


async def change_generation(connection: AsyncConnection, known: UUID | None, to: UUID) -> bool:
    """Say that keys were destroyed; False where another process, or a backup, changed the generation that is known."""
    done = await connection.execute(
        text(
            "UPDATE subjects.generation SET generation = :to"
            " WHERE CAST(:known AS uuid) IS NULL OR generation = CAST(:known AS uuid)"
        ),
        {"known": known, "to": to},
    )
    return bool(done.rowcount)


# The wrapped key goes in the same statement that marks it: there is no moment with one of the two only.
_DESTROY = """
UPDATE subjects.keys SET wrapped_key = '', destroyed_at = :at, erasure_id = :erasure WHERE destroyed_at IS NULL AND
"""
_DESTROY_RETURNED = """
UPDATE subjects.keys k SET wrapped_key = '', destroyed_at = :at, erasure_id = e.erasure_id
FROM unnest(CAST(:keys AS uuid[]), CAST(:erasures AS uuid[])) AS e(key_id, erasure_id)
WHERE k.key_id = e.key_id AND k.destroyed_at IS NULL RETURNING k.key_id
"""
