"""Brings an installation up and down on one machine: embedded parts first, then the processes, each awaited.

Owns the child processes and ends them all, however it ends. It must not know what a process does.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path

import asyncpg
import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from recoup_local import issuer as people
from recoup_local import otlp
from recoup_local.cloud.launch import Cloud, CloudEndpoints, CloudStartError, start_cloud
from recoup_local.cloud.simclock import SimClock
from recoup_local.dns import LocalDns
from recoup_local.embedded import child
from recoup_local.embedded.nats import EmbeddedNats, NatsError
from recoup_local.embedded.postgres import (
    EmbeddedPostgres,
    PostgresError,
    PostgresHandle,
    connect,
    create_database,
)
from recoup_local.installation import Installation, Surroundings
from recoup_local.layout import KEYS_DATABASE, LOGINS, PROCESSES, ProcessSpec
from services._mesh.migrate import migrate

READY_SECONDS = 90.0
STOP_SECONDS = 15.0
_ROOT = Path(__file__).resolve().parents[2]
Tell = Callable[[str], None]


class StartError(Exception):
    """A part didn't start: which, its last words, and where the rest of them are, or what to do."""


@dataclass(frozen=True)
class Facts:
    """What others need to use a running mesh; every value is text."""

    gateway: str
    ca: str
    aws: str
    proxy_log: str
    log_vkey: str
    state: str


class LocalMesh:
    """One installation, running. `start` brings all of it up, `stop` takes all of it down.

    Raises StartError where the folder `state` can't hold it.
    """

    def __init__(
        self,
        state: Path,
        *,
        cloud: bool = True,
        only: Sequence[str] = (),
        fsync: bool = True,
        failpoints: bool = False,
        trace_ratio: float = 1.0,
    ) -> None:
        self.state = state
        try:
            self.installation = Installation(state)
            self.installation.trace_ratio = trace_ratio
            if failpoints:
                self.installation.failpoints = state / "failpoints"
                self.installation.failpoints.mkdir(mode=0o700)
        except OSError as error:
            raise _unusable(state, error) from error
        self.clock = SimClock(self.installation.clock_file)
        self.spans = otlp.Spans(state / otlp.SPANS_FILE)
        self.logs = state / "logs"
        self._postgres = EmbeddedPostgres(state, fsync=fsync)
        self._nats = EmbeddedNats(state, self.installation.nats_users(), self.installation.nats_tls())
        self._servers: list[ThreadingHTTPServer | LocalDns] = []
        self.dns = LocalDns()
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._with_cloud = cloud
        self._cloud: Cloud | None = None
        self.specs = [spec for spec in PROCESSES if (not only or spec.name in only) and _exists(spec)]
        self.postgres: PostgresHandle | None = None

    async def start(self, tell: Tell = lambda _: None) -> None:
        """Start everything; returns when every process serves. Raises StartError, and then nothing is left running."""
        try:
            await self._start(tell)
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(self.stop))
            if isinstance(error, (PostgresError, NatsError, CloudStartError)):
                raise StartError(str(error)) from error
            if isinstance(error, OSError) and error.filename:
                raise _unusable(self.state, error) from error
            raise

    async def _start(self, tell: Tell) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        tell("starting PostgreSQL and NATS")
        # From this thread and no other: children end when the thread that started them does (embedded/child.py).
        self.postgres = self._postgres.start()
        nats = self._nats.start()
        jwks_server, jwks = people.serve_jwks(self.installation.issuer)
        otlp_server, endpoint = otlp.serve(self.spans)
        dns = self.dns.start()
        self._servers += [jwks_server, otlp_server, self.dns]
        aws = await asyncio.to_thread(self._start_cloud) if self._with_cloud else ""
        self.installation.write_configs(Surroundings(self.postgres, nats.url, jwks, endpoint, aws, dns))
        tell("creating roles and schemas")
        await self._prepare_database(self.postgres)
        await self._create_people()
        tell(f"starting {len(self.specs)} processes")
        for spec in self.specs:
            self._spawn(spec)
        await self._await_all()

    def _start_cloud(self) -> str:
        self._cloud = start_cloud(self.state / "cloud", self.installation.clock_file)
        return str(self._cloud.endpoints.url)

    @property
    def cloud(self) -> CloudEndpoints:
        """The emulated cloud's endpoints. Raises RuntimeError without one."""
        if self._cloud is None:
            raise RuntimeError("this mesh runs without an emulated cloud")
        return self._cloud.endpoints

    async def _prepare_database(self, handle: PostgresHandle) -> None:
        keys = {role: word for role, word in self.installation.passwords.items() if role.startswith("subjects_")}
        rest = {role: word for role, word in self.installation.passwords.items() if role not in keys}
        await create_database(handle, KEYS_DATABASE)
        await self._bootstrap(handle, handle.dbname, "bootstrap.sql", rest)
        await self._bootstrap(handle, KEYS_DATABASE, "bootstrap_keys.sql", keys)
        for service in filter(_has_migrations, LOGINS):  # One by one: Alembic keeps its context in a global.
            await self._migrate(service, handle, handle.dbname)
        await self._migrate("subjects", handle, KEYS_DATABASE, _ROOT / "services" / "audit" / "keys_migrations")

    async def _bootstrap(self, handle: PostgresHandle, dbname: str, script: str, roles: Mapping[str, str]) -> None:
        connection = await connect(handle, dbname)
        try:
            await connection.execute((_ROOT / "deploy" / script).read_text())
            for role, password in roles.items():
                # Passwords are our own, url-safe and without quotes; ALTER ROLE takes no parameters.
                await connection.execute(f"ALTER ROLE {role} PASSWORD '{password}'")
        finally:
            await connection.close()

    async def _migrate(self, service: str, handle: PostgresHandle, dbname: str, folder: Path | None = None) -> None:
        role = f"{service}_migrate"
        dsn = f"postgresql+asyncpg://{role}@/{dbname}?host={handle.socket_dir}&port={handle.port}"
        await migrate(service, dsn, self.installation.passwords[role], folder)

    async def _create_people(self) -> None:
        if not _exists(PROCESSES[2]):
            return
        command = [sys.executable, "-m", "services.identity.bootstrap"]
        command += ["--config", str(self.installation.config_file("identity"))]
        command += ["--file", str(self.installation.people())]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise StartError(f"identity's bootstrap failed:\n{done.stderr[-2000:]}")

    def _spawn(self, spec: ProcessSpec) -> None:
        config = self.installation.config_file(spec.name)
        with (self.logs / f"{spec.name}.log").open("ab") as log:
            self._children[spec.name] = child.start([sys.executable, "-m", spec.module, "--config", config], log)

    async def _await_all(self) -> None:
        await asyncio.gather(*(self.await_ready(spec.name) for spec in self.specs))

    async def await_ready(self, name: str) -> None:
        """Wait until a process says that it serves. Raises StartError with its last words."""
        deadline = time.monotonic() + READY_SECONDS
        credentials = self._client_credentials()
        address = f"127.0.0.1:{self.installation.ports[name]}"
        options = [("grpc.ssl_target_name_override", name), ("grpc.max_reconnect_backoff_ms", 200)]
        options += [("grpc.initial_reconnect_backoff_ms", 50)]
        async with grpc.aio.secure_channel(address, credentials, options) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                process = self._children[name]
                if process.poll() is not None:
                    raise StartError(
                        f"{name} ended with {process.returncode}. Its last words:\n{self.last_words(name)}"
                    )
                with contextlib.suppress(grpc.aio.AioRpcError):
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0, wait_for_ready=True)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                if time.monotonic() > deadline:
                    raise StartError(f"{name} isn't ready in time. Its last words:\n{self.last_words(name)}")
                await asyncio.sleep(0.05)

    async def health(self, name: str) -> str:
        """What a process says of itself: "SERVING", "NOT_SERVING", or nothing where it doesn't answer."""
        options = [("grpc.ssl_target_name_override", name)]
        address = f"127.0.0.1:{self.installation.ports[name]}"
        async with grpc.aio.secure_channel(address, self._client_credentials(), options) as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2.0)
            except grpc.aio.AioRpcError:
                return ""
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def _client_credentials(self) -> grpc.ChannelCredentials:
        folder = self.state / "clients" / "tests"
        return grpc.ssl_channel_credentials(
            self.installation.ca.cert_file.read_bytes(),
            (folder / "tls.key").read_bytes(),
            (folder / "tls.pem").read_bytes(),
        )

    def last_words(self, name: str, lines: int = 20) -> str:
        """The end of a process's log."""
        path = self.logs / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"

    def pid(self, name: str) -> int:
        """The process id of a part."""
        return self._children[name].pid

    def exit_code(self, name: str) -> int | None:
        """What a process ended with; None while it runs."""
        return self._children[name].poll()

    def kill(self, name: str) -> None:
        """End a process at once (SIGKILL), as a crash would."""
        self._children[name].kill()
        self._children[name].wait()

    def launch(self, name: str) -> None:
        """Start a process again, without waiting for it."""
        self._spawn(next(spec for spec in self.specs if spec.name == name))

    async def restart(self, name: str) -> None:
        """Start a process again and wait until it serves."""
        self.launch(name)
        await self.await_ready(name)

    def stop_postgres(self) -> None:
        """Stop PostgreSQL, as for a planned restart; the processes stay."""
        self._postgres.halt()

    def crash_postgres(self) -> None:
        """End PostgreSQL and all of its processes at once (SIGKILL), as a crash would."""
        self._postgres.crash()

    def crash_nats(self) -> None:
        """End NATS at once (SIGKILL); what it had synced stays."""
        self._nats.stop(signal.SIGKILL)

    def start_postgres(self) -> None:
        """Start PostgreSQL again, on the data that it had."""
        assert self.postgres is not None
        self.postgres = self._postgres.resume(self.postgres)

    def stop_nats(self) -> None:
        """Stop NATS; JetStream's store and the processes stay."""
        self._nats.stop()

    def start_nats(self) -> None:
        """Start NATS again, on the same port."""
        self._nats.start()

    def lose_jetstream(self) -> None:
        """Stop NATS, delete JetStream's whole store, and start NATS again."""
        self._nats.stop()
        self._nats.delete_store()
        self._nats.start()

    @property
    def nats_port(self) -> int:
        """Where NATS listens, on loopback."""
        return self._nats.port

    def token(self, organization: str, role: str, *, aal: int = 2) -> str:
        """A session token of whoever has `role` in `organization`."""
        return self.installation.issuer.token(people.find_person(organization, role), aal=aal)

    @property
    def gateway_url(self) -> str:
        """Where REST is served."""
        return f"https://localhost:{self.installation.ports['gateway-rest']}"

    def facts(self) -> Facts:
        """What others need to use this mesh."""
        return Facts(
            self.gateway_url,
            str(self.installation.ca.cert_file),
            self._cloud.endpoints.url if self._cloud else "",
            str(self._cloud.endpoints.log_path) if self._cloud else "",
            str(self.state / "log.vkey"),
            str(self.state),
        )

    def write_facts(self) -> Path:
        """Leave the facts where `recoup local status` finds them."""
        path = self.state / "facts.json"
        path.write_text(json.dumps(asdict(self.facts())))
        return path

    def stop(self) -> None:
        """Take everything down: processes asked first, all at once, then what they stand on."""
        running = [process for process in self._children.values() if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            if process.poll() is None:
                process.kill()
                process.wait()
        self._children.clear()
        if self._cloud is not None:
            self._cloud.stop()
            self._cloud = None
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers.clear()
        self._nats.stop()
        self._postgres.stop()


def _unusable(state: Path, error: OSError) -> StartError:
    """Why an installation can't be kept in the folder `state`, and the way out."""
    return StartError(f"{state} can't hold the mesh: {error.strerror} ({error.filename}). Choose another folder.")


def _exists(spec: ProcessSpec) -> bool:
    """Whether the process's module is in this image."""
    module = (
        spec.module if spec.module.rpartition(".")[2] in ("worker", "signer", "witness") else f"{spec.module}.__main__"
    )
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _has_migrations(service: str) -> bool:
    return (_ROOT / "services" / service / "migrations" / "env.py").exists()


async def query(handle: PostgresHandle, statement: str) -> list[asyncpg.Record]:
    """Rows of a statement as the superuser: for tests that look behind the services."""
    connection = await connect(handle)
    try:
        rows: list[asyncpg.Record] = await connection.fetch(statement)
        return rows
    finally:
        await connection.close()
