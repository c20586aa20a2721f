"""All SQL of the subjects' keys, in their own database. Keys are wrapped here; nothing in this file can open one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# An organization and the keyed hash of one of its subjects.
Subject = tuple[UUID, bytes]


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it stands in the database. `wrapped` is empty once it is destroyed."""

    organization_id: UUID
    subject_hash: bytes
    key_id: UUID
    wrapped: bytes = field(repr=False)

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
    return rows[0].generation, {row.key_id: _key(row) for row in rows if row.key_id is not None}


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
SELECT g.generation, k.organization_id, k.subject_hash, k.key_id, k.wrapped_key FROM subjects.generation g
LEFT JOIN subjects.keys k ON k.key_id = ANY(CAST(:ids AS uuid[]))
"""
