"""Parts that are missing when others start, and parts that go away and come back: said clearly, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from click.testing import CliRunner
from cryptography import x509

from recoup.identity.v1 import identity_service_pb2
from recoup.scanner.v1 import scanner_service_pb2
from recoup.scanner.v1.scanner_pb2 import AwsAccount
from recoup.scanner.v1.scanner_service_pb2 import CreateConnectionRequest
from recoup_client.errors import NotAvailable
from recoup_client.mesh import Certificate, MeshClient
from recoup_local.cli import local
from recoup_local.embedded.nats import free_port
from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh, query
from services._mesh.config import ConfigError, load_settings
from services._mesh.tls import CertificateFiles
from services._mesh.tokens import SigningKey
from services.scanner.config import ScannerSettings
from tests.support.mesh import Person, small_mesh, until

pytestmark = pytest.mark.xdist_group("starting")

PROCESSES = ("audit-signer", "audit", "identity", "scanner", "scanner-worker", "gateway")
ACME = str(organization_id("acme"))
EXIT_OK, EXIT_CONFIG, EXIT_ADDRESS, EXIT_NOT_RUNNING = 0, 2, 3, 3


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    """A small mesh without a cloud, which every test leaves as it found it: complete and serving."""
    with small_mesh(*PROCESSES) as made:
        yield made


@pytest.fixture
def admin(mesh: LocalMesh) -> Iterator[Person]:
    yield from person(mesh, "Admin")


@pytest.fixture
def finops(mesh: LocalMesh) -> Iterator[Person]:
    yield from person(mesh, "FinOps")


def person(mesh: LocalMesh, role: str) -> Iterator[Person]:
    """Somebody who is let in, also where the test before had a part restarted that the gateway finds again first."""
    made = Person(mesh, "acme", mesh.token("acme", role))
    until(lambda: True if made.call("GET", "").status_code == 200 else None)
    yield made
    made.client.close()


class Log:
    """What a process has logged from now on."""

    def __init__(self, mesh: LocalMesh, name: str) -> None:
        self._file = mesh.logs / f"{name}.log"
        self._from = self._file.stat().st_size

    def text(self) -> str:
        return self._file.read_bytes()[self._from :].decode()

    def says(self, *words: str) -> bool | None:
        """Whether a whole line has all these words; None where none has, for `until`."""
        lines = [line for line in self.text().splitlines() if line.endswith("}")]
        return True if any(all(word in json.loads(line)["message"] for word in words) for line in lines) else None


def await_health(mesh: LocalMesh, *names: str, status: str) -> None:
    for name in names:
        until(lambda name=name: True if asyncio.run(mesh.health(name)) == status else None)  # type: ignore[misc]


def probed(mesh: LocalMesh, name: str) -> tuple[int, str]:
    """What a probe beside the process is told, without a certificate."""
    url = f"http://127.0.0.1:{mesh.installation.metrics_ports[name]}"
    assert httpx.get(f"{url}/healthz").text == "ok\n"
    answer = httpx.get(f"{url}/readyz")
    return answer.status_code, answer.text


def rows(mesh: LocalMesh, statement: str) -> list[Any]:
    assert mesh.postgres is not None
    return asyncio.run(query(mesh.postgres, statement))


def restarted(mesh: LocalMesh, *names: str) -> dict[str, Log]:
    """Kill these processes and start them again, without waiting; returns what they log from then on."""
    for name in names:
        mesh.kill(name)
    logs = {name: Log(mesh, name) for name in names}
    for name in names:
        mesh.launch(name)
    return logs


def ended(mesh: LocalMesh, name: str) -> int:
    """The exit code of a process, once it has ended."""
    until(lambda: None if mesh.exit_code(name) is None else True)
    return int(mesh.exit_code(name) or 0)


def pids(mesh: LocalMesh) -> dict[str, int]:
    return {name: mesh.pid(name) for name in PROCESSES}


def client(mesh: LocalMesh, role: str, **others: str) -> MeshClient:
    """A typed client; `others` are addresses in the place of a service's own."""
    folder = mesh.state / "clients" / "tests"
    addresses = {name: f"127.0.0.1:{port}" for name, port in mesh.installation.ports.items()} | others
    certificate = Certificate(mesh.installation.ca.cert_file, folder / "tls.pem", folder / "tls.key")
    return MeshClient(addresses, certificate, mesh.token("acme", role), ACME)


def new_member() -> dict[str, str]:
    return {"userId": str(uuid4()), "email": "new@acme.example.com", "role": "ROLE_VIEWER", "requestId": str(uuid4())}


def members(person: Person) -> list[str]:
    return [member["userId"] for member in person.get("/members", pageSize=500)["members"]]


def connection_id(finops: Person) -> str:
    body = {
        "displayName": f"nobody's {uuid4()}",
        "awsAccessKeyId": "AKIAABCDEFGHIJKLMNOP",
        "awsSecretAccessKey": "a" * 40,
        "awsAccounts": [
            {
                "accountId": "111111111111",
                "scanRoleArn": "arn:aws:iam::111111111111:role/RecoupScan",
                "actRoleArn": "arn:aws:iam::111111111111:role/RecoupAct",
            }
        ],
        "regions": ["us-east-1"],
    }
    return str(finops.post("/connections", body)["connection"]["connectionId"])


def test_processes_started_without_postgresql_say_so_and_serve_once_it_is_there(mesh: LocalMesh) -> None:
    names = ("audit", "identity", "scanner", "scanner-worker")
    mesh.stop_postgres()
    try:
        logs = restarted(mesh, *names)
        await_health(mesh, *names, status="NOT_SERVING")
        for log in logs.values():
            until(lambda log=log: log.says("not serving", "PostgreSQL"))  # type: ignore[misc]
        started = pids(mesh)
    finally:
        mesh.start_postgres()
    await_health(mesh, *PROCESSES, status="SERVING")
    assert pids(mesh) == started
    assert not [name for name in names if mesh.exit_code(name) is not None or "Traceback" in logs[name].text()]


def test_processes_started_without_nats_say_so_and_serve_once_it_is_there(mesh: LocalMesh) -> None:
    names = ("scanner", "scanner-worker")
    mesh.stop_nats()
    try:
        logs = restarted(mesh, *names)
        await_health(mesh, *names, status="NOT_SERVING")
        for log in logs.values():
            until(lambda log=log: log.says("not serving", "NATS"))  # type: ignore[misc]
        started = pids(mesh)
    finally:
        mesh.start_nats()
    await_health(mesh, *names, status="SERVING")
    assert pids(mesh) == started


def test_a_process_started_without_identity_waits_for_the_revocation_feed(mesh: LocalMesh) -> None:
    mesh.kill("identity")
    log = restarted(mesh, "scanner")["scanner"]
    await_health(mesh, "scanner", status="NOT_SERVING")
    until(lambda: log.says("not serving", "revocation feed"))
    mesh.launch("identity")
    await_health(mesh, *PROCESSES, status="SERVING")
    assert mesh.exit_code("scanner") is None


def test_postgresql_lost_in_mid_flight_is_a_503_and_loses_nothing(mesh: LocalMesh, admin: Person) -> None:
    admin.get("/members")  # The passport is there, so that it is the service itself that answers.
    mesh.kill("audit")  # What is acknowledged now stays in the outbox until after the outage.
    acknowledged, refused = new_member(), new_member()
    admin.post("/members", acknowledged)
    assert rows(mesh, "SELECT 1 FROM identity.outbox WHERE log_index IS NULL")
    running = {name: pid for name, pid in pids(mesh).items() if name != "audit"}
    mesh.stop_postgres()
    try:
        trace_id = _is_503(admin.call("GET", "/members"), {"DEPENDENCY_UNAVAILABLE"})
        # After five seconds nothing is known of revocations either, which is the reason then.
        _is_503(admin.call("POST", "/members", json=refused), {"DEPENDENCY_UNAVAILABLE", "REVOCATION_FEED_STALE"})
        mesh.launch("audit")
        await_health(mesh, "audit", "identity", "scanner", "scanner-worker", status="NOT_SERVING")
    finally:
        mesh.start_postgres()
    await_health(mesh, *PROCESSES, status="SERVING")
    assert {name: mesh.pid(name) for name in running} == running
    assert acknowledged["userId"] in members(admin)
    assert refused["userId"] not in members(admin)
    # Both are repeated as a caller who got no answer would: one has its answer already, the other is done now.
    for body in (acknowledged, refused):
        admin.post("/members", body)
    assert [members(admin).count(body["userId"]) for body in (acknowledged, refused)] == [1, 1]
    _every_event_is_in_the_log_once(mesh)
    assert set(until(lambda: _served_spans(mesh, trace_id) or None)) == {True}


def _is_503(answer: Any, reasons: set[str]) -> str:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["reason"] in reasons
    return str(answer.json()["traceId"])


def _served_spans(mesh: LocalMesh, trace_id: str) -> list[bool]:
    """Whether each call that identity served in this trace failed, as its span says."""
    spans = mesh.spans.trace(trace_id)
    return [span.failed for span in spans if span.process == "identity" and span.name.endswith("/ListMembers")]


def _every_event_is_in_the_log_once(mesh: LocalMesh) -> None:
    until(lambda: None if rows(mesh, "SELECT 1 FROM identity.outbox WHERE log_index IS NULL") else True)
    counts = "SELECT count(*) FROM audit.entries e WHERE e.event_id = o.event_id AND e.idx = o.log_index"
    assert {row[0] for row in rows(mesh, f"SELECT ({counts}) FROM identity.outbox o")} == {1}
    assert not rows(mesh, "SELECT event_id FROM audit.entries GROUP BY event_id HAVING count(*) > 1")


def test_a_typed_client_is_told_which_dependency_is_away(mesh: LocalMesh) -> None:
    members_of = identity_service_pb2.ListMembersRequest(organization_id=ACME)
    scans_of = scanner_service_pb2.ListScansRequest(organization_id=ACME)

    async def call_while_it_is_away() -> None:
        async with client(mesh, "Admin") as admin, client(mesh, "FinOps") as finops:
            await admin.identity.ListMembers(members_of)
            await finops.scanner.ListScans(scans_of)
            mesh.stop_postgres()
            try:
                for call in (admin.identity.ListMembers(members_of), finops.scanner.ListScans(scans_of)):
                    with pytest.raises(NotAvailable) as away:
                        await call
                    assert away.value.code is grpc.StatusCode.UNAVAILABLE
                    assert away.value.reason == "DEPENDENCY_UNAVAILABLE"
                    assert away.value.metadata == {"dependency": "database"}
            finally:
                mesh.start_postgres()
            for name in PROCESSES:
                await mesh.await_ready(name)
            assert (await admin.identity.ListMembers(members_of)).members
            await finops.scanner.ListScans(scans_of)

    asyncio.run(call_while_it_is_away())


def test_work_planned_while_nats_is_away_is_done_afterwards(mesh: LocalMesh, finops: Person) -> None:
    connection, started = connection_id(finops), pids(mesh)
    job = f"SELECT status, fence FROM scanner.jobs WHERE subject_id = '{connection}' AND kind = 'verify_connection'"
    mesh.stop_nats()
    try:
        await_health(mesh, "scanner-worker", status="NOT_SERVING")
        # The row is the job: what can be decided and written without NATS goes on.
        finops.post(f"/connections/{connection}:verify")
        assert asyncio.run(mesh.health("scanner")) == "SERVING"
        assert [tuple(row) for row in rows(mesh, job)] == [("READY", 0)]
    finally:
        mesh.start_nats()
    await_health(mesh, *PROCESSES, status="SERVING")
    assert until(lambda: rows(mesh, job)[0]["fence"] or None) >= 1
    assert pids(mesh) == started


def test_a_process_that_waits_for_everything_can_still_be_ended(mesh: LocalMesh) -> None:
    names = ("audit", "identity", "scanner", "scanner-worker")
    mesh.stop_postgres()
    mesh.stop_nats()
    try:
        restarted(mesh, *names)
        await_health(mesh, *names, status="NOT_SERVING")
        for name in names:
            status, said = probed(mesh, name)
            assert (status, said.startswith("not serving: waiting for "), "NATS" in said) == (
                503,
                True,
                name != "identity",
            )
            os.kill(mesh.pid(name), signal.SIGTERM)
        assert [ended(mesh, name) for name in names] == [EXIT_OK] * len(names)
    finally:
        mesh.start_postgres()
        mesh.start_nats()
        for name in names:
            mesh.launch(name)
    await_health(mesh, *PROCESSES, status="SERVING")
    assert {probed(mesh, name) for name in PROCESSES} == {(200, "serving\n")}


@pytest.mark.parametrize(
    ("name", "port", "key"),
    [("scanner", "scanner", "process.listen"), ("gateway", "gateway-rest", "gateway.listen")],
)
def test_a_process_whose_port_is_taken_ends_and_says_which(mesh: LocalMesh, name: str, port: str, key: str) -> None:
    number = mesh.installation.ports[port]
    mesh.kill(name)
    log = Log(mesh, name)
    with socket.create_server(("127.0.0.1", number)):
        mesh.launch(name)
        assert ended(mesh, name) == EXIT_ADDRESS
    asyncio.run(mesh.restart(name))
    critical = [line for line in map(json.loads, log.text().splitlines()) if line["level"] == "critical"]
    assert [line["message"] for line in critical] == [
        f"127.0.0.1:{number} can't be listened at: Address already in use."
        f" End what listens there, or choose another address for {key}."
    ]
    assert "Traceback" not in log.text()


class Callers:
    """A few people who read and change all the time, and come no more once their connection is ended with an answer.

    As often as the limit of one actor lets them: they are all the same Admin.
    """

    def __init__(self, mesh: LocalMesh, count: int) -> None:
        self.statuses: list[int] = []
        self.failures: list[Exception] = []
        self._people = [Person(mesh, "acme", mesh.token("acme", "Admin")) for _ in range(count)]
        self._threads = [threading.Thread(target=self._read, args=[each]) for each in self._people]
        for thread in self._threads:
            thread.start()

    def _read(self, person: Person) -> None:
        try:
            while True:
                for method, path in (("GET", "/members"), ("GET", "/findings"), ("POST", "/members")):
                    answer = person.call(method, path, json=new_member() if method == "POST" else None)
                    self.statuses.append(answer.status_code)
                    if answer.headers.get("connection") == "close":
                        return
                    time.sleep(0.1)
        except Exception as error:
            self.failures.append(error)

    def ended(self) -> None:
        """Wait until all of them were told to go."""
        for thread, person in zip(self._threads, self._people, strict=True):
            thread.join(60)
            assert not thread.is_alive()
            person.client.close()


def shown(mesh: LocalMesh, port: int) -> int:
    """The serial number of the certificate that new connections are shown."""
    folder = mesh.state / "clients" / "tests"
    trust = ssl.create_default_context(cafile=str(mesh.installation.ca.cert_file))
    trust.load_cert_chain(folder / "tls.pem", folder / "tls.key")
    trust.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        found = connection.getpeercert(binary_form=True)
    assert found
    return x509.load_der_x509_certificate(found).serial_number


def test_new_certificates_and_the_end_of_a_gateway_fail_nobodys_call(mesh: LocalMesh) -> None:
    callers, ports = Callers(mesh, 4), mesh.installation.ports
    until(lambda: len(callers.statuses) > 20 or None)
    wanted = {}
    for name in PROCESSES:
        issued = mesh.installation.ca.issue(name, mesh.installation.folder(name), dns=(name,))
        wanted[name] = x509.load_pem_x509_certificate(issued.cert.read_bytes()).serial_number
    wanted["gateway-rest"] = wanted["gateway"]
    until(lambda: all(shown(mesh, ports[port]) == serial for port, serial in wanted.items()) or None)
    before = len(callers.statuses)
    until(lambda: len(callers.statuses) > before + 50 or None)
    os.kill(mesh.pid("gateway"), signal.SIGTERM)
    callers.ended()
    assert (callers.failures, set(callers.statuses)) == ([], {200})
    assert ended(mesh, "gateway") == EXIT_OK
    asyncio.run(mesh.restart("gateway"))


@contextmanager
def second_scanner(mesh: LocalMesh) -> Iterator[int]:
    """Another process of the scanner's beside the first, as in any roll-out; its port."""
    ports, own = (mesh.installation.ports["scanner"], mesh.installation.metrics_ports["scanner"]), free_port()
    folder, metrics = mesh.installation.folder("second"), free_port()
    shutil.copytree(mesh.installation.folder("scanner"), folder)
    config = folder / "config.toml"
    text = config.read_text().replace(f":{ports[0]}", f":{own}").replace(f":{ports[1]}", f":{metrics}")
    config.write_text(text)
    with subprocess.Popen([sys.executable, "-m", "services.scanner", "--config", str(config)]) as process:
        try:
            until(lambda: _is_ready(f"http://127.0.0.1:{metrics}/readyz"))
            yield own
        finally:
            process.terminate()
            assert process.wait(30) == EXIT_OK
    shutil.rmtree(folder)


def _is_ready(url: str) -> bool | None:
    with suppress(httpx.TransportError):
        return True if httpx.get(url).status_code == 200 else None
    return None


def connection() -> CreateConnectionRequest:
    """A change that may be asked for again: a process that ends cancels what comes before its callers know."""
    role = "arn:aws:iam::111111111111:role/Recoup{}"
    account = AwsAccount(account_id="1" * 12, scan_role_arn=role.format("Scan"), act_role_arn=role.format("Act"))
    return CreateConnectionRequest(
        organization_id=ACME,
        request_id=str(uuid4()),
        display_name=f"nobody's {uuid4()}",
        aws_access_key_id="AKIAABCDEFGHIJKLMNOP",
        aws_secret_access_key="a" * 40,
        aws_accounts=[account],
        regions=["us-east-1"],
    )


def test_the_end_of_one_of_two_processes_fails_nobodys_call(mesh: LocalMesh) -> None:
    """What has begun is answered, whatever comes goes to the other one."""
    done, listed = [0], scanner_service_pb2.ListFindingsRequest(organization_id=ACME, page_size=1)

    async def change(finops: MeshClient, is_over: asyncio.Event) -> None:
        while not is_over.is_set():  # One after the other: who connects at the same moment is refused.
            await finops.scanner.CreateConnection(connection())
            done[0] += 1

    async def read(finops: MeshClient, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            await finops.scanner.ListFindings(listed)

    async def end_the_first(second: int) -> None:
        is_over, addresses = asyncio.Event(), f"ipv4:127.0.0.1:{mesh.installation.ports['scanner']},127.0.0.1:{second}"
        async with client(mesh, "FinOps", scanner=addresses) as finops:
            callers = [asyncio.create_task(each(finops, is_over)) for each in (change, read, read)]
            await asyncio.to_thread(until, lambda: done[0] > 8 or None)
            os.kill(mesh.pid("scanner"), signal.SIGTERM)
            assert await asyncio.to_thread(ended, mesh, "scanner") == EXIT_OK
            before = done[0]
            await asyncio.to_thread(until, lambda: done[0] > before + 8 or any(each.done() for each in callers) or None)
            is_over.set()
            await asyncio.gather(*callers)

    with second_scanner(mesh) as port:
        asyncio.run(end_the_first(port))
        asyncio.run(mesh.restart("scanner"))


def _unknown_key(folder: Path) -> None:
    config = folder / "config.toml"
    config.write_text(config.read_text().replace('"listen" =', '"listne" ='))


def _open_secret(folder: Path) -> None:
    (folder / "api.password").chmod(0o644)


def _no_toml(folder: Path) -> None:
    (folder / "config.toml").write_text("[process\n")


def _other_key(folder: Path) -> None:
    (folder / "signing.key").write_text("no key at all")


def _other_certificate(folder: Path) -> None:
    shutil.copyfile(folder.parent / "audit" / "tls.key", folder / "tls.key")


# What is broken -> the words that the one line must have, besides the file.
BROKEN: Mapping[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "unknown key": (_unknown_key, ("config.toml: process.listne: is unknown.", "Did you mean 'listen'?")),
    "no file": (lambda folder: (folder / "config.toml").unlink(), ("can't be read: No such file", "Check the path")),
    "not TOML": (_no_toml, ("isn't TOML", "line 1", "Correct that line.")),
    "secret missing": (lambda folder: (folder / "api.password").unlink(), ("database.password_file", "Create it")),
    "secret open to all": (_open_secret, ("database.password_file", "open to every user", "Run: chmod 600 ")),
    "no signing key": (_other_key, ("signing.key", "must hold an Ed25519 private key", "PKCS #8")),
    "another's key": (_other_certificate, ("tls.key", "isn't the certificate's", "Put the pair there")),
}


@contextmanager
def spoiled(mesh: LocalMesh, broken: str) -> Iterator[Path]:
    """The scanner's folder, with something of it broken."""
    folder = mesh.state / "processes" / "broken"
    shutil.copytree(mesh.installation.folder("scanner"), folder)
    try:
        BROKEN[broken][0](folder)
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_in_a_configuration_is_one_line_that_says_what_to_do(mesh: LocalMesh, broken: str) -> None:
    with spoiled(mesh, broken) as folder, pytest.raises(ConfigError) as refused:
        settings = load_settings(ScannerSettings, folder / "config.toml")
        CertificateFiles(settings.tls)
        assert settings.signing is not None
        SigningKey.load(settings.signing.key, settings.process.profile)
    line = str(refused.value)
    assert "\n" not in line
    assert all(word in line for word in (str(folder), *BROKEN[broken][1])), line


@pytest.mark.parametrize("broken", ["unknown key", "another's key"])  # Before its parts are made, and while they are.
def test_a_process_with_a_broken_configuration_says_that_line_and_ends(mesh: LocalMesh, broken: str) -> None:
    with spoiled(mesh, broken) as folder:
        command = [sys.executable, "-m", "services.scanner", "--config", str(folder / "config.toml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == EXIT_CONFIG, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert all(word in done.stderr for word in (str(folder), *BROKEN[broken][1])), done.stderr


def recoup_local(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recoup_local", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_up_says_what_to_do_about_a_folder_that_cannot_be_used(tmp_path: Path, detach: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()
    state = tmp_path / "file" / "mesh"
    done = recoup_local("up", "--state", str(state), *detach)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"recoup local: {state} can't hold the mesh: Not a directory")
    assert done.stderr.endswith("Choose another folder.\n")


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_up_says_what_to_do_about_a_path_too_long_for_a_socket(tmp_path: Path, detach: tuple[str, ...]) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    done = recoup_local("up", "--state", str(tmp_path / "mesh"), *detach, TMPDIR=str(long))
    assert (done.returncode, done.stdout) == (1, "")
    assert "is too long for a socket's path: set TMPDIR to a shorter folder\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(long.iterdir())


def test_a_second_mesh_in_the_same_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    state = tmp_path / "mesh"
    command = [sys.executable, "-m", "recoup_local", "up", "--state", str(state)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as first:
        until(lambda: True if (state / "ca").exists() else None)
        before = (state / "log.vkey").read_text() if (state / "log.vkey").exists() else None
        second = recoup_local("up", "--state", str(state))
        assert second.returncode == EXIT_NOT_RUNNING, second.stderr
        assert second.stderr == f"recoup local: a mesh runs in {state} already. `recoup local down` ends it.\n"
        assert before in (None, (state / "log.vkey").read_text())
        status = recoup_local("status", "--state", str(state))
        assert (status.returncode, "is being started" in status.stderr) == (EXIT_NOT_RUNNING, True)
        first.send_signal(signal.SIGTERM)
        _, errors = first.communicate(timeout=60)
    assert "stopped while starting" in errors
    assert recoup_local("down", "--state", str(state)).returncode == EXIT_NOT_RUNNING


@pytest.mark.parametrize(
    "command",
    [("status",), ("token", "--org", "acme", "--role", "Admin"), ("clock", "--advance", "7d"), ("clock",), ("down",)],
)
def test_without_a_mesh_every_command_says_so(tmp_path: Path, command: tuple[str, ...]) -> None:
    state = tmp_path / "nothing"
    done = CliRunner().invoke(local, [*command, "--state", str(state)])
    assert done.exit_code == EXIT_NOT_RUNNING
    assert done.stderr == f"recoup local: no mesh runs in {state}. `recoup local up` starts one.\n"
    assert not state.exists()
