"""The base user's key goes through connect, scan, act, errors and crashes, and is found nowhere but in the broker.

The key is a random one of forty characters, made for this mesh: what is looked for can't be there by chance.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from recoup_local.embedded.postgres import connect
from recoup_local.layout import KEYS_DATABASE
from tests.support import mesh as support
from tests.support.acting import Acting
from tests.support.canary import Canary
from tests.support.mesh import TestMesh
from tests.support.story import Told

pytestmark = pytest.mark.xdist_group("story")

# Whoever takes a new connection has the key in a request; all others never see it. The broker uses it.
MAY_HAVE_HAD_IT = {"gateway", "scanner", "broker"}
PG_DUMP_SECONDS = 120


@pytest.fixture(scope="module")
def made(told: Told) -> TestMesh:
    return told.made


@pytest.fixture(scope="module")
def canary(made: TestMesh) -> Canary:
    return Canary(made.base_user.secret_access_key)


@pytest.fixture(scope="module")
def _used(made: TestMesh, canary: Canary) -> None:
    """The story connected, scanned, acted and exported evidence; here come what fails, and what is killed at it."""
    finops, whole = made.rest("acme", "FinOps"), support.new_connection(made)
    for wrong in ({"regions": ["nowhere"]}, {"awsAccounts": []}, {"awsSecretAccessKey": f"{canary.secret} "}):
        refused = finops.call("POST", "/connections", json=whole | wrong)
        assert refused.status_code == 400
        assert not canary.writings_in(refused.content + str(refused.headers).encode())
    unknown = finops.call("POST", "/connections", json=whole | {canary.secret: 1, "awsSecretAccessKey": 5})
    assert unknown.status_code == 400
    # Of another organization, whose external id the roles don't know: sealed, opened, tried, refused.
    other = made.rest("globex", "FinOps")
    refused_by_cloud = other.post("/connections", whole)["connection"]
    assert support.verify(other, refused_by_cloud["connectionId"])["state"] == "CONNECTION_STATE_FAILED"
    _kill_in_mid_use(made)


def _kill_in_mid_use(made: TestMesh) -> None:
    """The worker waits for the broker, and the broker, with the key in its hands, for the cloud; both are killed."""
    control, finops = Acting(made).control, made.rest("acme", "FinOps")
    rule = control.add_fault(action="AssumeRole", hold="before")
    try:
        scan_id = finops.post("/scans", {"connectionId": made.connection_id})["scan"]["scanId"]
        control.wait_until_held(rule, 60.0)
        with suppress(PermissionError):  # Only root looks into the broker; the held call is signed by the key anyway.
            assert Canary(made.base_user.secret_access_key).is_in_memory_of(made.mesh.pid("broker"))
        for process in ("broker", "scanner-worker"):
            made.mesh.kill(process)
    finally:
        control.remove_fault(rule)

    async def restart() -> None:
        await asyncio.gather(*(made.mesh.restart(each) for each in ("broker", "scanner-worker")))

    asyncio.run(restart())
    # The killed one's lease would run out after a minute.
    asyncio.run(ask(made, f"UPDATE scanner.jobs SET lease_until = now() WHERE subject_id = '{scan_id}' RETURNING 1"))
    assert support.scan_ended(finops, scan_id)["unitsDone"] > 0


async def ask(made: TestMesh, query: str) -> str:
    """The one value of a query, as a superuser."""
    assert made.mesh.postgres is not None
    connection = await connect(made.mesh.postgres)
    try:
        return str(await connection.fetchval(query))
    finally:
        await connection.close()


def test_a_leak_would_be_found(tmp_path: Path) -> None:
    """In each writing, in a file, and in memory: this process's own, which has the secret in its hands."""
    planted = Canary(os.urandom(15).hex() + "/+" + os.urandom(4).hex())
    assert set(planted.is_in_memory_of(os.getpid())) >= {"raw"}
    for name, written in planted.writings.items():
        (tmp_path / "leak.log").write_bytes(b'{"said": "' + written + b'"}')
        assert name in planted.found_below(tmp_path)[str(tmp_path / "leak.log")]
    assert not planted.found_below(tmp_path, except_in=frozenset({tmp_path / "leak.log"}))


@pytest.mark.usefixtures("_used")
def test_the_key_is_in_no_file_of_the_installation(made: TestMesh, canary: Canary, told: Told) -> None:
    """Logs, spans with all they carry, the database's own files, JetStream's store, evidence, the archive."""
    assert (made.mesh.state / "spans.otlp").stat().st_size > 100_000
    # The emulated AWS made the key, and has to know it.
    assert canary.found_below(made.mesh.state, except_in=frozenset({made.mesh.state / "cloud"})) == {}
    data = Path(asyncio.run(ask(made, "SHOW data_directory")))
    assert any((data / "pg_wal").iterdir())
    assert canary.found_below(data) == {}
    assert not canary.writings_in(told.receipt.encode() + told.printed.encode())


@pytest.mark.usefixtures("_used")
def test_the_key_is_in_no_dump(made: TestMesh, canary: Canary) -> None:
    handle = made.mesh.postgres
    assert handle is not None
    program = asyncio.run(ask(made, "SELECT setting FROM pg_config WHERE name = 'BINDIR'")) + "/pg_dump"
    secret = {"PGPASSWORD": handle.superuser_password}
    for database, schema in ((handle.dbname, b"COPY scanner.credentials"), (KEYS_DATABASE, b"COPY subjects.")):
        command = [program, "-h", str(handle.socket_dir), "-p", str(handle.port), "-U", handle.superuser, database]
        dumped = subprocess.run(command, capture_output=True, timeout=PG_DUMP_SECONDS, env=os.environ | secret)
        assert dumped.returncode == 0, dumped.stderr
        assert schema in dumped.stdout
        assert canary.writings_in(dumped.stdout) == []


@pytest.mark.usefixtures("_used")
def test_the_key_is_in_no_metrics(made: TestMesh, canary: Canary) -> None:
    for process, port in made.mesh.installation.metrics_ports.items():
        shown = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5.0)
        assert (shown.status_code, canary.writings_in(shown.content)) == (200, []), process


@pytest.mark.usefixtures("_used")
def test_the_key_is_in_no_worker_s_memory(made: TestMesh, canary: Canary) -> None:
    names = {spec.name for spec in made.mesh.specs} - MAY_HAVE_HAD_IT
    assert {"scanner-worker", "actions-worker", "pricing-worker", "audit-worker"} <= names
    assert {name: canary.is_in_memory_of(made.mesh.pid(name)) for name in names} == {name: [] for name in names}
