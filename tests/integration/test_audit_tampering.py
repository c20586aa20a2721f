"""A superuser who rewrites the log without leaving a contradiction in it: caught by self-check, signer and verifier.

Everything that is computed from the changed event is computed anew: leaf, chain, tree, deduplication, projection. Only
what was signed before can't be.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from recoup_verify.documents import Disproved
from recoup_verify.event import check_event
from recoup_verify.log import parse_key
from services._mesh.errors import Problem, Reason
from services.audit import usecases
from services.audit.model import merkle
from services.audit.model.note_check import Held
from services.audit.model.progress import Scope
from tests.support.log import ACME, LOG, event, recorded, sequencer
from tests.support.postgres import drop, new_database
from tests.support.signed_log import BATCHES, LEAVES, SignedLog, signed_log
from tests.support.tampering import rewrite

AT = 4  # An event of ACME between the checkpoints of sizes 3 and 6.


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SignedLog]:
    database = await new_database(("audit",))
    async with signed_log(database, tmp_path) as made:
        yield made
    await drop(database)


async def proof(log: SignedLog, size: int) -> bytes:
    """What GetEventProof would answer of the event, from the rows as they are, under a checkpoint."""
    superuser = await log.database.superuser()
    note = await superuser.fetchval("SELECT note FROM audit.checkpoints WHERE size = $1", size)
    root = await superuser.fetchval("SELECT root FROM audit.checkpoints WHERE size = $1", size)
    nodes = {
        (row[0], row[1]): row[2] for row in await superuser.fetch("SELECT height, position, hash FROM audit.nodes")
    }
    await superuser.close()
    (found,) = [each for each in await recorded(log.database, ACME) if each.place == AT]
    path = merkle.hash_ranges(merkle.inclusion_ranges(AT, size), nodes)
    checkpoint = {"note": note, "size": str(size), "root": b64(root), "shard": 0, "origin": LOG}
    document = {
        "event": {
            "checkpoint": checkpoint,
            "leaf": b64(found.leaf),
            "index": str(AT),
            "payload": b64(found.payload),
            "salt": b64(found.salt),
            "proof": [b64(item) for item in path],
            "shard": 0,
        },
        "checkpoint": checkpoint,
    }
    return json.dumps(document).encode()


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


async def test_the_self_check_names_where_a_consistent_rewrite_begins(log: SignedLog) -> None:
    await rewrite(log.database, AT)
    result = await log.checker.check(Scope.FULL, keep=False)
    assert result.leaves == LEAVES
    # Nothing contradicts anything but what was signed: the leaves after size 3, up to that of size 6.
    assert {fault.field for fault in result.faults} == {"nodes"}
    assert (result.faults[0].place, len(result.faults)) == (3, BATCHES - 1)
    assert "aren't the ones that were signed at size" in result.faults[0].detail


async def test_the_signer_signs_nothing_after_a_consistent_rewrite(log: SignedLog) -> None:
    signed = log.state.head
    await rewrite(log.database, AT)
    async with sequencer(log.database) as appending:
        checkpointer = log.checkpointer(appending)
        await usecases.append_events(appending, "identity", [event(2 * BATCHES + 1)])
        with pytest.raises(Problem) as refused:
            await checkpointer.sign_now()
        await checkpointer._database.close()
    assert refused.value.reason == Reason.ERROR_REASON_LOG_INCONSISTENT
    assert f"doesn't continue the signed one of {LEAVES}" in str(refused.value)
    assert log.state.head == signed


async def test_the_verifier_disproves_what_a_rewritten_log_shows(log: SignedLog) -> None:
    key = parse_key(log.signer.verifier_key.text())
    before = {size: await proof(log, size) for size in (6, LEAVES)}
    for raw in before.values():
        check_event(raw, key)
    await rewrite(log.database, AT)
    for size, raw in before.items():
        with pytest.raises(Disproved):
            check_event(await proof(log, size), key)
        check_event(raw, key)  # What was handed out before still stands.


async def held(log: SignedLog) -> Held:
    """The log's keys, without what the signer signed last."""
    return replace(await log.checker.held(0), note="")


async def test_putting_back_an_older_log_is_refused_by_the_signer(log: SignedLog) -> None:
    """What a superuser can do most easily: cut the end off, and let the log grow again from there."""
    superuser = await log.database.superuser()
    await superuser.execute("SET session_replication_role = replica")
    for name in ("alter", "opening", "drop"):
        await superuser.execute(f"ALTER EVENT TRIGGER recoup_log_refuses_{name} DISABLE")
    for table in ("entries", "payloads", "nodes", "dedup", "checkpoints"):
        await superuser.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER append_only")
    for statement in (
        "DELETE FROM audit.checkpoints WHERE size > 12",
        "DELETE FROM audit.entries WHERE idx >= 12",
        "DELETE FROM audit.payloads WHERE idx >= 12",
        "DELETE FROM audit.dedup WHERE idx >= 12",
        "DELETE FROM audit.nodes WHERE (position + 1) << height > 12",
        "UPDATE audit.head SET size = 12",
    ):
        await superuser.execute(statement)
    for row in await superuser.fetch(
        "SELECT organization_id, max(organization_seq) AS seq, (array_agg(leaf ORDER BY idx DESC))[1] AS leaf"
        " FROM audit.entries GROUP BY 1"
    ):
        await superuser.execute(
            "UPDATE audit.chains SET seq = $1, leaf_hash = $2 WHERE organization_id = $3",
            row["seq"],
            merkle.leaf_hash(row["leaf"]),
            row["organization_id"],
        )
    await superuser.execute(
        "UPDATE audit.producers p SET counter = (SELECT max(producer_counter) FROM audit.entries e"
        " WHERE e.organization_id = p.organization_id AND e.producer = p.producer)"
    )
    await superuser.close()
    # By itself the shorter log is whole: only what is held outside of it, at the signer, knows of more.
    alone = replace(log.checker, held=lambda shard: held(log))
    assert (await alone.check(Scope.FULL, keep=False)).faults == ()
    (fault,) = (await log.checker.check(Scope.FULL, keep=False)).faults
    assert (fault.place, fault.field, fault.detail) == (12, "head.size", f"it says 12, but size {LEAVES} was signed")
    with pytest.raises(Problem, match="doesn't continue the signed one"):
        await log.append(1, 4)
    # Grown again to where it was, it is another tree than the signed one.
    assert (await alone.check(Scope.FULL, keep=False)).faults == ()
    (fault,) = (await log.checker.check(Scope.FULL, keep=False)).faults
    assert (fault.place, fault.field) == (12, "nodes")
    assert log.state.head.size == LEAVES
