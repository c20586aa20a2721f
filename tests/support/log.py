"""The log for tests: its one sequencer on a real database, and events as producers make them."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.clock import Clock
from services._mesh.uow import Store
from services.audit import store
from services.audit.checkpointer import Checkpointer
from services.audit.kek import FileKek
from services.audit.model.actors import actor_hash
from services.audit.model.alarms import Note, only_log
from services.audit.model.digests import keyed_digest
from services.audit.model.events import EventFilter, Produced, Recorded
from services.audit.model.notes import Signer, TreeHead, VerifierKey
from services.audit.model.signing import OfferedHead, Opening, SignedHead
from services.audit.opener import Opener
from services.audit.sealer import Sealer
from services.audit.sequencer import Sequencer
from services.audit.serving import Serving
from services.audit.shard_signing import ShardSigner
from services.audit.signer_memory import SignerMemory
from services.audit.store import keys as key_store
from services.audit.turning import Turning, shown
from tests.support.postgres import TestDatabase, new_keys_database

LOG = "recoup-test.local.invalid/log"
KEY = Ed25519PrivateKey.generate()
_KEY = bytes(range(32))
ACTORS, DIGEST = actor_hash(_KEY), keyed_digest(_KEY)
# A log has its keys beside it for as long as its database is there.
_keys: dict[str, TestDatabase] = {}
ACME, GLOBEX = UUID(int=1), UUID(int=2)


def event(counter: int, organization: UUID = ACME, action: str = "identity.member.add", **changes: object) -> Produced:
    """An event of identity, but for what is changed in its payload."""
    event_id = uuid4()
    content: dict[str, Any] = {
        "v": 1,
        "event_id": str(event_id),
        "organization_id": str(organization),
        "action": action,
        "target": "members/1",
        "result": "OK",
        "actor": "user:1",
        "responsible_person": "",
        "role": "ADMIN",
        "occurred_at": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "request_id": "r",
        "trace_id": "",
        "authority": f"passport:{uuid4()}",
        "metadata": {},
        **changes,
    }
    return Produced(event_id, organization, counter, rfc8785.dumps(content))


async def keys_of(database: TestDatabase) -> TestDatabase:
    """The database of keys that belongs to a log's database."""
    if database.name not in _keys:
        _keys[database.name] = await new_keys_database()
    return _keys[database.name]


def kek() -> FileKek:
    """The KEK of all logs of this test process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "subjects.kek.json"
        path.write_text(json.dumps({"kek_id": "file:tests", "key": _KEY.hex()}))
        return FileKek(path)


async def serving_of(keys: TestDatabase) -> Serving:
    """The database of keys, taken for good as it is."""
    role, serving = keys.role("subjects_api", 1), Serving()
    async with role.unscoped() as connection:
        serving.trust(await key_store.read_generation(connection))
    await role.close()
    return serving


@asynccontextmanager
async def opener(database: TestDatabase, note: Note = only_log) -> AsyncIterator[Opener]:
    """Opens the payloads of a log."""
    keys = await keys_of(database)
    role, erasures = keys.role("subjects_api"), database.role("audit_api", 2)
    try:
        yield Opener(role, erasures, kek(), await serving_of(keys), note)
    finally:
        for each in (role, erasures):
            await each.close()


async def destroy_key(database: TestDatabase, key_id: UUID, *, erased: bool = True) -> None:
    """Destroy a subject's key past every control: within an approved erasure that isn't done yet, or without any."""
    erasure_id, keys = uuid4(), await (await keys_of(database)).superuser()
    await keys.execute("ALTER TABLE subjects.keys DISABLE TRIGGER only_destroyed")
    subject = await keys.fetchrow(
        "UPDATE subjects.keys SET wrapped_key = '', destroyed_at = now(), erasure_id = $2 WHERE key_id = $1"
        " RETURNING organization_id, subject_hash",
        key_id,
        erasure_id,
    )
    await keys.execute("ALTER TABLE subjects.keys ENABLE ALWAYS TRIGGER only_destroyed")
    await keys.close()
    assert subject is not None
    if erased:
        superuser = await database.superuser()
        await superuser.execute("SET session_replication_role = replica")
        await superuser.execute(
            "INSERT INTO audit.erasures (organization_id, erasure_id, subject_hash, reason, state, requester_hash,"
            " requested_at, decider_hash, decided_at) VALUES ($1, $3, $2, 'case 9', 'APPROVED', sha256('one'), now(),"
            " sha256('two'), now())",
            *subject,
            erasure_id,
        )
        await superuser.close()


async def recorded(database: TestDatabase, organization: UUID = ACME, action: str = "") -> list[Recorded]:
    """An organization's events in the order of the log, with their payloads opened."""
    role = database.role("audit_api", 1)
    async with role.scoped(organization, read_only=True) as connection:
        found = await store.list_events(connection, EventFilter(), [action] if action else None, None, None, 10_000)
    await role.close()
    async with opener(database) as opening:
        return (await opening.open(found))[::-1]


@asynccontextmanager
async def sealer(
    database: TestDatabase, serving: Serving | None = None, keys: TestDatabase | None = None
) -> AsyncIterator[Sealer]:
    """Seals what is appended to a log."""
    keys = keys or await keys_of(database)
    role = keys.role("subjects_sealer", 2)
    try:
        yield Sealer(role, kek(), ACTORS, DIGEST, serving or await serving_of(keys), Clock())
    finally:
        await role.close()


@asynccontextmanager
async def sequencer(
    database: TestDatabase,
    note: Note = only_log,
    clock: Clock | None = None,
    serving: Serving | None = None,
    keys: TestDatabase | None = None,
) -> AsyncIterator[Sequencer]:
    """A sequencer in force, and its task."""
    async with (
        sealer(database, serving, keys) as sealing,
        _sequencer(database, sealing, note, clock or Clock()) as made,
    ):
        yield made


@asynccontextmanager
async def _sequencer(database: TestDatabase, sealing: Sealer, note: Note, clock: Clock) -> AsyncIterator[Sequencer]:
    role = database.role("audit_sequencer")
    made = Sequencer(role, clock, LOG, ACTORS, sealing, note)
    await made.take_over()
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await role.close()


async def one_shard(shard: int, proof: Sequence[bytes]) -> Opening:
    """For a log that stays in its first shard: there is no other's first leaf to show."""
    raise AssertionError(f"shard {shard} was opened")


class OriginSigner:
    """Signs each checkpoint under its own origin, as the log's keys do."""

    def sign(self, body: str) -> str:
        """The signed note."""
        return Signer(TreeHead.parse(body).origin, KEY).sign(body)


@asynccontextmanager
async def checkpointer(
    database: TestDatabase, log: Sequencer, folder: Path, root_key: VerifierKey | None = None
) -> AsyncIterator[Checkpointer]:
    """A checkpointer and its task, with a signer of its own (its memory lies in `folder`), without the call between.

    The sequencer turns its shards with it.
    """
    role, api = database.role("audit_sequencer"), database.role("audit_api")
    memory = SignerMemory(folder / "signed.json")
    memory.of(0).opened = memory.of(0).opened or log._clock.now().year  # As it is at set-up.
    signer = ShardSigner(LOG, OriginSigner(), memory, root_key, log._clock)
    store = Store(api, "audit", Clock())

    async def sign(head: OfferedHead) -> str:
        return signer.sign(head)

    async def last_signed(shard: int) -> SignedHead:
        return signer.memory.of(shard).head

    async with opener(database) as opening:
        made = Checkpointer(role, log, Clock(), sign, last_signed, 0.01, partial(shown, store, opening))
        log.turning = Turning(store, LOG, made.sign_last)
        task = asyncio.create_task(made.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for each in (role, api):
                await each.close()
