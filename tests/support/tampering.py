"""What somebody does to the log whom nothing stops: a superuser who takes the guards away first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from services.audit.model import merkle
from services.audit.model.leaf import commitment
from services.audit.model.shards import node_offset, split
from tests.support.log import ACME, DIGEST, recorded
from tests.support.postgres import TestDatabase

EVENT_TRIGGERS = tuple(f"recoup_log_refuses_{name}" for name in ("alter", "opening", "drop"))


async def as_superuser(database: TestDatabase, *statements: str) -> None:
    """Change rows as somebody whom nothing stops: without triggers, keys and checks."""
    superuser = await database.superuser()
    await superuser.execute("SET session_replication_role = replica")
    for name in EVENT_TRIGGERS:
        await superuser.execute(f"ALTER EVENT TRIGGER {name} DISABLE")
    tables = await superuser.fetch(
        "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'append_only' AND tgenabled <> 'D'"
    )
    for (table,) in tables:
        await superuser.execute(f"ALTER TABLE {table} DISABLE TRIGGER append_only")
    checks = await superuser.fetch(
        "SELECT conrelid::regclass::text, conname::text FROM pg_constraint"
        " WHERE connamespace = 'audit'::regnamespace AND contype = 'c' AND coninhcount = 0"
    )
    for table, name in checks:
        await superuser.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for statement in statements:
        await superuser.execute(statement)
    await superuser.close()


async def rewrite(database: TestDatabase, place: int) -> None:
    """Say that an event of Acme's was about somebody else, and make the whole log agree, in all shards."""
    (old,) = [each for each in await recorded(database, ACME) if each.place == place]
    superuser = await database.superuser()
    for name in EVENT_TRIGGERS:
        await superuser.execute(f"ALTER EVENT TRIGGER {name} DISABLE")
    for table in ("entries", "payloads", "nodes", "dedup"):
        # Statements on the parent fire its own trigger; those of the partitions stay as they are.
        await superuser.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER append_only")
    raw = orjson.dumps({**orjson.loads(old.payload), "target": "members/2"}, option=orjson.OPT_SORT_KEYS)
    await superuser.execute(
        "UPDATE audit.payloads SET format = 1, key_id = NULL, subject = 'user:1', content = $1 WHERE idx = $2",
        old.salt + raw,
        place,
    )
    await superuser.execute("UPDATE audit.entries SET target = 'members/2' WHERE idx = $1", place)
    await superuser.execute("UPDATE audit.dedup SET payload_sha256 = $1 WHERE idx = $2", DIGEST(raw), place)
    await _chain_anew(superuser, place, commitment(raw, old.salt))
    for name in EVENT_TRIGGERS:
        await superuser.execute(f"ALTER EVENT TRIGGER {name} ENABLE")
    await superuser.close()


async def _chain_anew(superuser: asyncpg.Connection, changed: int, committed: str) -> None:
    """Leaves, chains and nodes as they follow from the changed event."""
    frontiers: defaultdict[int, merkle.Frontier] = defaultdict(merkle.Frontier)
    previous: dict[UUID, str] = {}
    for row in await superuser.fetch("SELECT idx, organization_id, leaf FROM audit.entries ORDER BY idx"):
        leaf: dict[str, Any] = orjson.loads(row["leaf"])
        leaf["prev_leaf"] = previous.get(row["organization_id"], "")
        if row["idx"] == changed:
            leaf["payload_commitment"] = committed
        encoded = orjson.dumps(leaf, option=orjson.OPT_SORT_KEYS)
        digest = merkle.leaf_hash(encoded)
        previous[row["organization_id"]] = digest.hex()
        await superuser.execute("UPDATE audit.entries SET leaf = $1 WHERE idx = $2", encoded, row["idx"])
        shard = split(row["idx"])[0]
        for height, position, each in frontiers[shard].append(digest):
            await superuser.execute(
                "UPDATE audit.nodes SET hash = $1 WHERE height = $2 AND position = $3",
                each,
                height,
                position + node_offset(shard, height),
            )
    for organization, last in previous.items():
        await superuser.execute(
            "UPDATE audit.chains SET leaf_hash = $1 WHERE organization_id = $2", bytes.fromhex(last), organization
        )


def flipped(value: Any, column: str) -> Any:
    """The value with one bit changed."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value ^ 64
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    if isinstance(value, UUID):
        return UUID(int=value.int ^ (1 << 70))
    if isinstance(value, datetime):
        return value + (timedelta(days=-20) if column == "signed_at" else timedelta(microseconds=1))
    if isinstance(value, str):
        return value[:-2] + chr(ord(value[-2]) ^ 1) + value[-1:] if len(value) > 1 else value + "x"
    assert value is None, f"{column}: how is a {type(value)} changed?"
    return UUID(int=1) if column == "key_id" else 1


async def columns(superuser: asyncpg.Connection, tables: Sequence[str]) -> list[str]:
    """The columns of some tables of the log, as the catalog has them."""
    rows = await superuser.fetch(
        "SELECT c.relname || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relnamespace = 'audit'::regnamespace AND c.relname = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped"
        " ORDER BY 1",
        list(tables),
    )
    return [row[0] for row in rows]
