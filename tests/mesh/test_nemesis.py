"""The nemesis: everything that may end, hang or be lost does, while events go the whole way into the log.

Seeded and bounded: every kind of fault comes once, which takes about seventy seconds on two cores; `--nemesis-seconds`
makes it last longer, and `--nemesis-seed` repeats the order. What is recorded meanwhile goes to the checker
(tests/support/nemesis/checker.py), whose own tests plant bugs for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from random import Random, SystemRandom

import grpc.aio
import pytest

from recoup.audit.v1 import signer_service_pb2, signer_service_pb2_grpc
from recoup_local.embedded.postgres import connect
from recoup_local.supervisor import LocalMesh
from recoup_verify.log import parse_key
from services._mesh.clock import Clock
from services._mesh.config import load_settings
from services._mesh.database import Database
from services._mesh.uow import Store
from services.pricing.config import PricingSettings
from tests.support.mesh import channel_of, small_mesh, soon
from tests.support.nemesis.checker import check
from tests.support.nemesis.collecting import collect
from tests.support.nemesis.faults import Nemesis, twin_port
from tests.support.nemesis.history import History
from tests.support.nemesis.load import Administrator, Load, Producer, Replayer, Transactions

pytestmark = pytest.mark.xdist_group("nemesis")

PROCESSES = ("audit-signer", "audit-witness", "audit", "identity", "scanner", "pricing", "gateway")
PRODUCERS = ("identity", "scanner", "pricing", "audit")
SETTLE_SECONDS = 60.0


@pytest.fixture
def mesh() -> Iterator[LocalMesh]:
    """The processes that an event goes through, on a disk that is written to, and with failpoints."""
    with small_mesh(*PROCESSES, fsync=True, failpoints=True) as made:
        yield made


def test_whatever_ends_hangs_or_is_lost_the_log_keeps_its_word(
    mesh: LocalMesh, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = pytestconfig.getoption("--nemesis-seed") or SystemRandom().randrange(10**9)
    with capsys.disabled():
        print(f"\nnemesis: --nemesis-seed={seed}")
    load, nemesis = asyncio.run(_run(mesh, seed, pytestconfig.getoption("--nemesis-seconds")))
    history, did = load.history, nemesis.did
    wrong = check(history, parse_key((mesh.state / "log.vkey").read_text()))
    told = (
        f"seed {seed}: {len(did)} faults of {len(nemesis.faults)} kinds, {load.tried} calls of which {load.failed}"
        f" failed, {len(history.log)} events,"
        f" {len(history.acknowledged)} acknowledgements, {len(history.committed)} transactions,"
        f" {len(history.answered)} requests, {len(history.checkpoints)} checkpoints"
    )
    ran = " | ".join(f"{name} ({seconds:.1f} s)" for name, seconds in did)
    with capsys.disabled():
        print(f"nemesis: {told}: {ran}")
    assert wrong == [], f"{told}; {ran}"
    # The whole deck was dealt before anything came twice.
    assert {name for name, _ in did[: len(nemesis.faults)]} == set(nemesis.faults), ran
    # Each kind of history was there to be wrong.
    assert min(len(history.acknowledged), len(history.committed), len(history.answered), load.failed) > 0, told
    assert len(set(history.checkpoints)) > 1, told


async def _run(mesh: LocalMesh, seed: int, seconds: float) -> tuple[Load, Nemesis]:
    load = Load(History(), Random(seed + 1))
    nemesis = Nemesis(mesh, Random(seed), twin_port())
    async with contextlib.AsyncExitStack() as stack:
        own = await stack.enter_async_context(channel_of(mesh, "audit", "scanner"))
        twin = await stack.enter_async_context(channel_of(mesh, "audit", "scanner", nemesis.twin_port))
        replayed = await stack.enter_async_context(channel_of(mesh, "audit", "identity"))
        signer = await stack.enter_async_context(channel_of(mesh, "audit-signer", "audit"))
        store, database = _transactions(mesh)
        stack.push_async_callback(database.close)
        assert mesh.postgres is not None
        tasks = load.start(
            Producer(load, "scanner", [own, own, own, twin]).run,
            Producer(load, "scanner", [own]).run,
            *(Transactions(load, store).run for _ in range(3)),
            Administrator(load, mesh, "acme").run,
            Administrator(load, mesh, "globex").run,
            Replayer(load, "identity", replayed, mesh.postgres).run,
            lambda: _watch(load, signer),
        )
        try:
            await nemesis.run(seconds)
        finally:
            load.stopping.set()
        async with asyncio.timeout(SETTLE_SECONDS):
            await asyncio.gather(*tasks)
        await soon(lambda: _settled(mesh, load, signer), SETTLE_SECONDS)
    return load, nemesis


def _transactions(mesh: LocalMesh) -> tuple[Store, Database]:
    """Units of work as pricing has them; pricing's own process relays their events."""
    settings = load_settings(PricingSettings, mesh.installation.config_file("pricing")).database
    assert settings is not None
    database = Database(settings, settings.user, settings.password_file, pool_size=4)
    return Store(database, "pricing", Clock()), database


async def _signed(load: Load, signer: grpc.aio.Channel) -> None:
    """Keep the note that the signer gave out last, also where the log never got it."""
    stub = signer_service_pb2_grpc.SignerServiceStub(signer)
    with contextlib.suppress(grpc.aio.AioRpcError):
        head = await stub.GetSignedHead(signer_service_pb2.GetSignedHeadRequest(), timeout=2.0)
        if head.note:
            load.history.checkpoints.append(head.note)


async def _watch(load: Load, signer: grpc.aio.Channel) -> None:
    while not load.stopping.is_set():
        await _signed(load, signer)
        await asyncio.sleep(0.2)


async def _settled(mesh: LocalMesh, load: Load, signer: grpc.aio.Channel) -> bool | None:
    """Whether all was relayed and signed; the history then holds the end."""
    assert mesh.postgres is not None
    await _signed(load, signer)
    connection = await connect(mesh.postgres)
    try:
        notes = await connection.fetch("SELECT note FROM audit.checkpoints ORDER BY size")
        newest, kept = load.history.checkpoints[-1], load.history.checkpoints
        load.history.checkpoints = [row["note"] for row in notes] + [*kept, newest]
        await collect(connection, PRODUCERS, load.history)
        if any(row.index is None for row in load.history.outbox) or f"\n{len(load.history.log)}\n" not in newest:
            load.history.checkpoints = kept
            return None
        return True
    finally:
        await connection.close()
