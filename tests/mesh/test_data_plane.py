"""The data plane: each process's own identity against every schema, subject and key, what is its own and what isn't."""

from __future__ import annotations

import asyncio
import ssl
import stat
import subprocess
import sys

import asyncpg
import grpc
import grpc.aio
import nats
import nats.errors
import pytest

from recoup.audit.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc
from recoup_local.layout import PROCESSES
from tests.mesh.test_faults import rows
from tests.support.log import event
from tests.support.mesh import TestMesh, until
from tests.support.story import Told

pytestmark = pytest.mark.xdist_group("story")

OWNERS_OF_JOBS = ("scanner", "pricing", "actions", "audit")
LOGINS = (
    "identity_api",
    "identity_relay",
    *(f"{service}_{task}" for service in OWNERS_OF_JOBS for task in ("api", "relay", "dispatcher", "worker")),
    "audit_sequencer",
    "audit_archiver",
)
# A table of each schema that only its own API may read as a whole.
PRIVATE = (
    ("identity", "members"),
    ("scanner", "credentials"),
    ("pricing", "idempotency"),
    ("actions", "idempotency"),
    ("audit", "entries"),
)
# What lies in each process's folder, beyond its certificate and its configuration: written out by hand, so that a key
# that appears anywhere else is noticed.
_JOBS = {"api.password", "relay.password", "dispatcher.password", "nats.password", "signing.key", "page.key"}
_WORKER = {"worker.password", "nats.password"}
HELD = {
    "gateway": {"nats.password"},
    "identity": {"api.password", "relay.password", "dispatcher.password", "signing.key", "page.key"},
    "scanner": _JOBS | {"kek.public.json"},
    "pricing": _JOBS,
    "actions": _JOBS | {"receipt.key"},
    "audit": _JOBS
    | {
        "sequencer.password",
        "archiver.password",
        "checker.password",
        "evidence.key",
        "actor.key",
        "subjects.kek.json",
        "subjects_api.password",
        "subjects_sealer.password",
        "subjects_eraser.password",
    },
    "audit-signer": {"log.key", "keys", "manifest.txt", "signed.json", "signed.lock"},
    "audit-witness": {"witness.key", "logs.vkeys", "state"},
    "broker": {"kek.private.json"},
    "scanner-worker": _WORKER,
    "pricing-worker": _WORKER,
    "actions-worker": _WORKER,
    "audit-worker": _WORKER,
}
EVERYBODY = {"ca.pem", "tls.pem", "tls.key", "config.toml"}


@pytest.fixture(scope="module")
def made(told: Told) -> TestMesh:
    return told.made


@pytest.mark.parametrize("login", LOGINS)
def test_a_database_role_reaches_its_own_schema_and_no_other(made: TestMesh, login: str) -> None:
    own = login.partition("_")[0]
    reached = asyncio.run(attempt_all(made, login, [f"SELECT * FROM {s}.{table}" for s, table in PRIVATE]))
    expected = [schema == own and login.endswith("_api") for schema, _ in PRIVATE]
    assert reached == expected


FORBIDDEN_TO_WORKERS = (
    ("scanner", "UPDATE scanner.credentials SET envelope = ''"),
    ("scanner", "INSERT INTO scanner.jobs (organization_id) VALUES (gen_random_uuid())"),
    ("pricing", "UPDATE pricing.bill_sources SET bucket = 'x'"),
    ("pricing", "INSERT INTO pricing.jobs (organization_id) VALUES (gen_random_uuid())"),
    ("actions", "UPDATE actions.actions SET plan_hash = 'x'"),
    ("actions", "UPDATE actions.actions SET requester_person = gen_random_uuid()"),
    ("actions", "INSERT INTO actions.approvals (organization_id) VALUES (gen_random_uuid())"),
    ("actions", "INSERT INTO actions.receipts (organization_id) VALUES (gen_random_uuid())"),
    ("actions", "INSERT INTO actions.jobs (organization_id) VALUES (gen_random_uuid())"),
    ("actions", "UPDATE actions.jobs SET warrant = 'x'"),
    ("actions", "UPDATE actions.checkpoints SET receipt_id = gen_random_uuid()"),
    ("actions", "UPDATE actions.steps SET intent_event_id = gen_random_uuid()"),
    ("audit", "INSERT INTO audit.jobs (organization_id) VALUES (gen_random_uuid())"),
    ("audit", "INSERT INTO audit.evidence_exports (organization_id) VALUES (gen_random_uuid())"),
    ("audit", "UPDATE audit.evidence_exports SET ends_at = begins_at"),
    ("audit", "UPDATE audit.evidence_exports SET seal_event_id = gen_random_uuid()"),
    ("audit", "SELECT leaf FROM audit.entries"),
    ("audit", "SELECT content FROM audit.payloads"),
)


@pytest.mark.parametrize(("service", "statement"), FORBIDDEN_TO_WORKERS, ids=[s for _, s in FORBIDDEN_TO_WORKERS])
def test_a_worker_can_neither_decide_nor_make_work(made: TestMesh, service: str, statement: str) -> None:
    assert asyncio.run(attempt_all(made, f"{service}_worker", [statement])) == [False]


FORBIDDEN_TO_APIS = (
    ("actions", "UPDATE actions.actions SET plan_hash = 'x'"),
    ("actions", "UPDATE actions.approvals SET decision = 'APPROVED'"),
    ("actions", "INSERT INTO actions.steps (organization_id) VALUES (gen_random_uuid())"),
    ("actions", "UPDATE actions.steps SET state = 'CONFIRMED'"),
    ("actions", "UPDATE actions.checkpoints SET decision = 'VERIFIED'"),
    ("actions", "UPDATE actions.checkpoints SET measurement = ''"),
    ("actions", "UPDATE actions.receipts SET document = ''"),
    ("actions", "DELETE FROM actions.receipts"),
    ("pricing", "INSERT INTO pricing.bill_batches (organization_id) VALUES (gen_random_uuid())"),
    ("pricing", "UPDATE pricing.daily_costs SET effective_cost = 0"),
)


@pytest.mark.parametrize(("service", "statement"), FORBIDDEN_TO_APIS, ids=[s for _, s in FORBIDDEN_TO_APIS])
def test_an_api_can_neither_do_a_worker_s_part_nor_rewrite(made: TestMesh, service: str, statement: str) -> None:
    assert asyncio.run(attempt_all(made, f"{service}_api", [statement])) == [False]


async def attempt_all(made: TestMesh, login: str, statements: list[str]) -> list[bool]:
    """Which statements a login may make; each in a transaction that is rolled back."""
    handle = made.mesh.postgres
    assert handle is not None
    connection = await asyncpg.connect(
        host=str(handle.socket_dir),
        port=handle.port,
        user=login,
        password=made.mesh.installation.passwords[login],
        database=handle.dbname,
    )
    allowed = []
    try:
        for statement in statements:
            transaction = connection.transaction()
            await transaction.start()
            try:
                await connection.execute(statement)
                allowed.append(True)
            except asyncpg.InsufficientPrivilegeError:
                allowed.append(False)
            finally:
                await transaction.rollback()
    finally:
        await connection.close()
    return allowed


def subjects_of(user: str) -> dict[str, bool]:
    """Subjects with whether a user may publish to them: its own, and all others of the same kind."""
    service, worker = user.removesuffix("-worker"), user.endswith("-worker")
    found = {
        "$KV.gateway-limits.key": user == "gateway",
        "$JS.API.STREAM.CREATE.KV_gateway-limits": user == "gateway",
        "$JS.API.STREAM.DELETE.KV_gateway-limits": False,
        "$JS.API.STREAM.PURGE.KV_gateway-limits": False,
        "$KV.others.key": False,
    }
    for other in OWNERS_OF_JOBS:
        own = other == service
        found[f"jobs.{other}.kind.id"] = own and not worker
        found[f"$JS.API.STREAM.CREATE.JOBS_{other.upper()}"] = own and not worker
        found[f"$JS.API.CONSUMER.MSG.NEXT.JOBS_{other.upper()}.{other}-worker"] = own and worker
        found[f"$JS.API.STREAM.DELETE.JOBS_{other.upper()}"] = False
        found[f"$JS.API.STREAM.PURGE.JOBS_{other.upper()}"] = False
    return found


@pytest.mark.parametrize("user", [spec.name for spec in PROCESSES if spec.nats])
def test_a_nats_user_may_use_its_own_subjects_and_no_others(made: TestMesh, user: str) -> None:
    expected = subjects_of(user)
    assert asyncio.run(publish_all(made, user, list(expected))) == expected


def test_nobody_hears_what_others_are_told(made: TestMesh) -> None:
    async def subscribe() -> list[str]:
        refusals = Refusals()
        client = await connect_nats(made, "scanner-worker", refusals)
        for subject in EAVESDROPPING:
            await client.subscribe(subject)
        await refusals.all_told(client)
        await client.close()
        return [subject for subject in EAVESDROPPING if refusals.name(subject)]

    assert asyncio.run(subscribe()) == list(EAVESDROPPING)


EAVESDROPPING = ("_INBOX.>", "jobs.>", "_INBOX_scanner.>", ">")


class Refusals:
    """What the server refuses a client, in the order in which the client asked."""

    LAST = "nobody.may.say.this"

    def __init__(self) -> None:
        self._told: list[str] = []
        self._last = asyncio.Event()

    async def notice(self, error: Exception) -> None:
        self._told.append(str(error).lower())
        if self.LAST in str(error).lower():
            self._last.set()

    async def all_told(self, client: nats.NATS) -> None:
        """Wait for the refusal of something that is asked last: all before it are known then."""
        await client.publish(self.LAST, b"{}")
        async with asyncio.timeout(10):
            await self._last.wait()

    def name(self, subject: str) -> bool:
        return any(f'"{subject.lower()}"' in told for told in self._told)


async def publish_all(made: TestMesh, user: str, subjects: list[str]) -> dict[str, bool]:
    refusals = Refusals()
    client = await connect_nats(made, user, refusals)
    for subject in subjects:
        await client.publish(subject, b"{}")
    await refusals.all_told(client)
    await client.close()
    return {subject: not refusals.name(subject) for subject in subjects}


async def connect_nats(made: TestMesh, user: str, refusals: Refusals) -> nats.NATS:
    installation = made.mesh.installation
    context = ssl.create_default_context(cafile=str(installation.ca.cert_file))
    folder = installation.folder(user)
    context.load_cert_chain(str(folder / "tls.pem"), str(folder / "tls.key"))
    return await nats.connect(
        f"tls://127.0.0.1:{made.mesh.nats_port}",
        user=user,
        password=installation.nats_passwords[user],
        tls=context,
        tls_hostname="localhost",
        error_cb=refusals.notice,
        allow_reconnect=False,
    )


@pytest.mark.parametrize("process", [spec.name for spec in PROCESSES])
def test_a_process_holds_its_own_keys_and_no_others(made: TestMesh, process: str) -> None:
    folder = made.mesh.installation.folder(process)
    assert {path.name for path in folder.iterdir()} == EVERYBODY | HELD[process]
    for path in folder.iterdir():
        if path.suffix in (".key", ".password") or "private" in path.name or path.name == "config.toml":
            assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path
    # Nor is it told where anybody else's are.
    told = (folder / "config.toml").read_text()
    assert not [other.name for other in PROCESSES if f"processes/{other.name}/" in told and other.name != process]


def test_the_api_that_seals_cannot_open(made: TestMesh) -> None:
    """With all that the scanner's API process holds: its files, its certificate, its database role."""
    envelope = bytes(rows(made, "SELECT envelope FROM scanner.credentials LIMIT 1")[0]["envelope"])
    folder = made.mesh.installation.folder("scanner")
    held = {path.name for path in folder.iterdir()}
    assert "kek.public.json" in held
    assert "kek.private.json" not in held
    script = (
        "import json, sys; from pathlib import Path; from uuid import UUID\n"
        "import asyncio; from recoup_local.kms import FileKms\n"
        "from services._mesh.envelope import open_envelope\n"
        "from services._mesh.kms.interface import SecretContext\n"
        "from services._mesh.threads import BoundedThreads\n"
        "folder, sealed = Path(sys.argv[1]), bytes.fromhex(sys.argv[2])\n"
        "context = SecretContext(UUID(int=1), UUID(int=2), 'aws.base_key')\n"
        "for path in folder.iterdir():\n"
        "    try:\n"
        "        kms = FileKms(path, BoundedThreads(1, 'kms'), 5.0)\n"
        "        asyncio.run(open_envelope(sealed, context, kms)); print('OPENED')\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(folder), envelope.hex()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "OPENED" not in done.stdout
    assert done.stdout.count("\n") == len(held)


def test_a_compromised_scanner_can_t_append_an_approval(made: TestMesh) -> None:
    """With the scanner's own certificate and key, over mTLS: refused, and the alarm stands in the log."""
    forged = event(1, action="actions.action.approve")
    produced = audit_pb2.ProducedEvent(
        event_id=str(forged.event_id),
        organization_id=str(forged.organization_id),
        producer_counter=1,
        payload=forged.payload,
    )

    async def append() -> grpc.aio.AioRpcError:
        async with made.channel("audit", "scanner") as channel:
            stub = audit_service_pb2_grpc.AuditServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.AppendEvents(audit_service_pb2.AppendEventsRequest(events=[produced]), timeout=20)
            return refused.value

    error = asyncio.run(append())
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "scanner may not append events of actions.action.approve" in str(error.details())
    # What the alarm says is sealed; that it is one, and about what, stands in the projection.
    alarms = (
        "SELECT target FROM audit.entries WHERE action = 'audit.alarm.raise'"
        f" AND organization_id = '{forged.organization_id}'"
    )
    assert until(lambda: rows(made, alarms) or None)[0][0] == "alarms/PREFIX_NOT_OWNED"
    assert not rows(made, f"SELECT 1 FROM audit.dedup WHERE event_id = '{forged.event_id}'")
