"""A leak would be seen wherever one can end up: the secret, planted into what each real sink writes, is found there.

`tests/mesh/test_canary.py` looks for a secret that isn't there; this shows that looking finds one that is.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from recoup_local import otlp
from services._mesh import logs, streams, telemetry
from services._mesh.errors import Reason, WrongState, to_status
from services._mesh.metrics import Metrics
from services._mesh.settings import OtlpSettings
from services._mesh.uow import Store
from services.gateway.problems import render
from tests.support.canary import Canary
from tests.support.nats import TestNats
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, MovableClock, context, install

BINARIES_SECONDS = 60


@pytest.fixture
def planted() -> Canary:
    """Forty characters that nothing made but this test, with what encodings change among them."""
    return Canary(os.urandom(15).hex() + "/+" + os.urandom(4).hex())


@pytest.mark.parametrize("how", ["message", "field", "traceback", "base64"])
def test_in_a_log_line(planted: Canary, tmp_path: Path, how: str) -> None:
    log, handler = logging.getLogger("canary"), logging.FileHandler(tmp_path / "broker.log")
    handler.setFormatter(logs.JsonFormatter("broker"))
    log.addHandler(handler)
    try:
        if how == "message":
            log.warning("opened %s", {"secret_access_key": planted.secret})
        elif how == "field":
            log.warning("opened", extra={"opened": planted.secret})
        elif how == "base64":
            log.warning("opened %s", planted.writings["base64+1"].decode())
        else:
            try:
                raise ValueError(planted.secret)
            except ValueError:
                log.warning("it broke", exc_info=True)
    finally:
        log.removeHandler(handler)
        handler.close()
    assert list(planted.found_below(tmp_path)) == [str(tmp_path / "broker.log")]


@pytest.mark.parametrize("how", ["attribute", "name", "status"])
def test_in_a_span(planted: Canary, tmp_path: Path, how: str) -> None:
    spans = otlp.Spans(tmp_path / "spans.jsonl")
    spans.whole = tmp_path / "spans.otlp"
    server, endpoint = otlp.serve(spans)
    tracing = telemetry.Telemetry("broker", OtlpSettings(endpoint=endpoint, ratio=1.0))
    span = tracing.start_span(planted.secret if how == "name" else "open")
    if how == "attribute":
        span.set_attribute("request", json.dumps({"key": planted.secret}))
    elif how == "status":
        span.record_exception(ValueError(planted.secret))
    span.end()
    tracing.close()
    server.shutdown()
    server.server_close()
    assert str(tmp_path / "spans.otlp") in planted.found_below(tmp_path)


def test_in_an_error_s_body_and_details(planted: Canary) -> None:
    for problem in (
        WrongState(Reason.ERROR_REASON_CREDENTIAL_UNOPENABLE, f"It doesn't open: {planted.secret}"),
        WrongState(Reason.ERROR_REASON_CREDENTIAL_UNOPENABLE, "It doesn't open.", {"content": planted.secret}),
    ):
        assert planted.writings_in(render(problem, "r", "t")[1])
        assert planted.writings_in(to_status(problem).SerializeToString())


def test_in_a_metric(planted: Canary) -> None:
    metrics = Metrics()
    metrics.counter("recoup_opened", "Opened.", key=planted.secret).add()
    assert planted.writings_in(metrics.render().encode())


def test_in_a_bundle(planted: Canary, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evidence.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("events.jsonl", json.dumps({"said": planted.secret}))
    assert list(planted.found_below(tmp_path)) == [f"{tmp_path / 'evidence.zip'}:events.jsonl"]


@pytest.fixture
async def store(database: TestDatabase) -> AsyncIterator[Store]:
    await install(database)
    role = database.role("pricing_api")
    yield Store(role, "pricing", MovableClock())
    await role.close()


async def test_in_an_event_its_dump_and_the_database_s_own_files(
    planted: Canary, store: Store, database: TestDatabase
) -> None:
    superuser = await database.superuser()
    segment = "SELECT 'pg_wal/' || pg_walfile_name(pg_current_wal_insert_lsn())"
    before = await superuser.fetchval(segment)
    async with store.begin(ACME, context(ACME)) as work:
        for _ in range(3):  # A page's end in the log of writes may go through one of them, with a header between.
            work.emit("pricing.thing.add", "things/1", {"key": planted.secret})
    segments = {before, await superuser.fetchval(segment)}
    await superuser.execute("CHECKPOINT")
    data = Path(await superuser.fetchval("SHOW data_directory"))
    file = await superuser.fetchval("SELECT pg_relation_filepath('pricing.outbox')")
    binaries = await superuser.fetchval("SELECT setting FROM pg_config WHERE name = 'BINDIR'")
    await superuser.close()
    assert planted.writings_in((data / file).read_bytes())
    assert any(planted.writings_in((data / each).read_bytes()) for each in segments)
    handle = database.handle
    command = [f"{binaries}/pg_dump", "-h", str(handle.socket_dir), "-p", str(handle.port), "-U", handle.superuser]
    environment = os.environ | {"PGPASSWORD": handle.superuser_password}
    dumped = await asyncio.to_thread(
        subprocess.run, [*command, database.name], capture_output=True, timeout=BINARIES_SECONDS, env=environment
    )
    assert dumped.returncode == 0, dumped.stderr
    assert planted.writings_in(dumped.stdout)


async def test_in_jetstream_s_store(planted: Canary) -> None:
    nats = TestNats("pricing")
    try:
        client = await nats.connect("pricing")
        await streams.JobStream(client, "pricing").ensure()
        await client.jetstream().publish(streams.subject("pricing", "weigh", uuid4()), planted.secret.encode())
        assert planted.found_below(nats._server.store_dir)
    finally:
        await nats.close()


def test_in_the_memory_of_another_process(planted: Canary) -> None:
    script = "import sys; kept = sys.stdin.readline(); print('kept', flush=True); sys.stdin.readline()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{planted.secret}\n".encode())
        process.stdin.flush()
        assert process.stdout.readline() == b"kept\n"
        assert "raw" in planted.is_in_memory_of(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
