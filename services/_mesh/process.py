"""The composition of a process: what every `__main__` starts with, in one order, and how it ends.

Settings, logs, telemetry, TLS, trust, channels, database, then the service's own parts; health last. At SIGTERM the
same in reverse, without losing a running call.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from google.protobuf.descriptor import ServiceDescriptor

from services._mesh import logs, metrics, telemetry
from services._mesh.access import Checks
from services._mesh.build import this_build
from services._mesh.channel import Channels
from services._mesh.clock import open_clock
from services._mesh.config import ConfigError, Missing, load_settings
from services._mesh.denials import DenialLedger
from services._mesh.exchange import Exchange
from services._mesh.failpoints import open_failpoints
from services._mesh.feed import follow
from services._mesh.grants import GrantVerifier
from services._mesh.health import Health
from services._mesh.listening import Unlistenable, listening_socket
from services._mesh.passport_verifier import PassportVerifier
from services._mesh.peers import PeerReader
from services._mesh.revocations import Revocations
from services._mesh.server import MeshServer, Refused, Service
from services._mesh.settings import DatabaseRole, DatabaseSettings, MeshSettings
from services._mesh.tls import CertificateFiles
from services._mesh.tokens import SigningKey
from services._mesh.trust import TrustStore
from services._mesh.validation import RequestValidator

if TYPE_CHECKING:  # Of drivers a process loads what it uses: the edge, the broker and the signer have no database.
    from services._mesh.database import Database
    from services._mesh.streams import Link
    from services._mesh.uow import Store

log = logging.getLogger(__name__)
S = TypeVar("S", bound=MeshSettings)
BUILD = this_build()

EXIT_OK, EXIT_FAILED, EXIT_CONFIG, EXIT_ADDRESS = 0, 1, 2, 3


class Mesh:
    """What the mesh gives a process. Made by `run`; closed by it."""

    # Whether its parts are only made, for `--check` (rehearsal.py): what changes something by being made asks.
    is_rehearsal = False

    def __init__(self, settings: MeshSettings) -> None:
        self.settings = settings
        self.name, self.profile = settings.process.name, settings.process.profile
        self.clock = open_clock(self.profile, settings.clock.file if settings.clock else None)
        open_failpoints(self.profile, settings.failpoints.folder if settings.failpoints else None, self.name)
        self.metrics = metrics.Metrics()
        self.metrics.gauge(
            "recoup_build_info",
            "Which build of which process runs; always 1.",
            process=self.name,
            version=BUILD.version,
            revision=BUILD.revision,
            python=BUILD.python,
        ).set(1)
        self.telemetry = telemetry.start(self.name, settings.otlp, self.metrics)
        self.files = CertificateFiles(settings.tls)
        ends = self.metrics.gauge(
            "recoup_certificate_end_timestamp_seconds",
            "When the process's own certificate ends, by the wall clock.",
            process=self.name,
        )
        self.files.tell_end(ends.set)
        self.trust = TrustStore(settings.trust.dir)
        self.revocations = Revocations(self.clock)
        self.denials = DenialLedger(
            self.clock,
            max_keys=settings.limits.denial_keys,
            window_seconds=settings.limits.denial_window_seconds,
        )
        self.channels = Channels(self.files, settings.peers, _known_services())
        self.key = SigningKey.load(settings.signing.key, self.profile) if settings.signing else None
        self.health = Health(self.clock)
        self._nats: Link | None = None
        self._databases: list[Database] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._stop = asyncio.Event()

    def database(
        self,
        role: DatabaseRole | None = None,
        pool_size: int | None = None,
        settings: DatabaseSettings | None = None,
    ) -> Database:
        """A pool under the process's own role, or under one of its tasks'; `settings` are another database's."""
        from services._mesh.database import Database

        settings = settings or self.settings.database
        if settings is None:
            raise Missing("database", "Say where it is, and as whom it is read.")
        user, password_file = (role.user, role.password_file) if role else (settings.user, settings.password_file)
        made = Database(settings, user, password_file, pool_size)
        self._databases.append(made)
        self.health.needs_database(made)
        return made

    def role(self, task: Literal["relay", "dispatcher"]) -> DatabaseRole:
        """The login of one of the process's tasks. Raises Missing."""
        database = self.settings.database
        found = getattr(database, task) if database else None
        if found is None:
            raise Missing(f"database.{task}", f"Name the login of the {task}, and its file.")
        return cast(DatabaseRole, found)

    def signing_key(self) -> SigningKey:
        """The process's own key. Raises Missing."""
        if self.key is None:
            raise Missing("signing", "Name the file of the process's own key.")
        return self.key

    def store(self, schema: str) -> Store:
        """Units of work for a schema, under the process's own role."""
        from services._mesh.uow import Store

        return Store(self.database(), schema, self.clock)

    def exchange(self) -> Exchange:
        """Passports for calls on behalf of the caller."""
        return Exchange(self.channels.to("identity"), self.revocations, self.clock, self.files.refresh)

    def nats(self) -> Link:
        """The process's NATS connection. It is made in the background: a server that is away holds up nothing."""
        from services._mesh.streams import Link

        if self.settings.nats is None:
            raise Missing("nats", "Say where it is, and as whom.")
        if self._nats is None:
            self._nats = Link(self.settings.nats, self.name, self.settings.tls)
            self.task(self._nats.run(), "NATS")
        return self._nats

    def listen(self, address: str, key: str) -> socket.socket:
        """A socket that listens at "host:port", which the setting `key` says. Raises Unlistenable."""
        return listening_socket(address, key)

    def follow_revocations(self) -> None:
        """Keep the revocation feed open, and be unready while it is stale."""
        self.task(follow(self.channels.to("identity"), self.revocations), "revocation feed")
        self.health.needs("the revocation feed", self.revocations.is_fresh)

    def task(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Run `work` for as long as the process runs. A task that ends by itself ends the process: fail closed."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def checks(self) -> Checks:
        """What all RPCs of this process are checked with."""
        return Checks(
            peers=PeerReader(self.clock, self.profile),
            passports=PassportVerifier(
                self.trust, self.revocations, self.clock, audience=self.name, profile=self.profile
            ),
            grants=GrantVerifier(
                self.trust,
                self.revocations,
                self.clock,
                audience=self.name,
                profile=self.profile,
                issuers=self.settings.trust.grant_issuers,
            ),
            revocations=self.revocations,
            validator=RequestValidator(),
            denials=self.denials,
            limits=self.settings.limits,
            metrics=self.metrics,
            clock=self.clock,
        )

    async def serve(self, services: Sequence[Service]) -> None:
        """Serve until SIGTERM or SIGINT, then drain."""
        assert self.settings.process.listen is not None
        server = MeshServer(services, self.checks(), self.settings.callers, self.files, self.profile)
        await server.start(self.settings.process.listen)
        self.task(self.health.watch(server.set_serving), "health")
        try:
            await self.until_stopped()
        finally:
            await server.stop(self.settings.limits.drain_seconds)

    async def until_stopped(self) -> None:
        """Wait for SIGTERM, SIGINT, or a task that failed."""
        # What was loaded by now stays: a look through all of it holds calls up for 0.1 s and more.
        gc.collect()
        gc.freeze()
        # A request makes hundreds of objects that go with it: looked through after each 700, that is 3 % of its cost.
        gc.set_threshold(10_000, 20, 20)
        await self._stop.wait()

    async def close(self) -> None:
        """End tasks, then connections; spans last."""
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._nats is not None:
            await self._nats.close()
        await self.channels.close()
        for database in self._databases:
            await database.close()
        await asyncio.to_thread(self.telemetry.close)

    def failed(self) -> bool:
        """Whether a task ended that should have run for ever."""
        return any(t.done() and not t.cancelled() for t in self._tasks)

    def stop(self) -> None:
        """Begin to end."""
        self.health.leave()
        self._stop.set()

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            log.critical("the task %s ended", task.get_name(), exc_info=task.exception())
            self._stop.set()


Compose = Callable[[Mesh, S], Awaitable[None]]


def run(settings_class: type[S], compose: Compose[S], description: str) -> int:
    """The `main` of a process: read the settings, compose, serve, end. Returns the exit code.

    0 ended as asked, 1 a part of it failed, 2 the configuration can't be used, 3 an address can't be listened at.
    What is merely missing when it starts isn't a failure: it is waited for, unready.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="the installation's configuration of this process")
    parser.add_argument("--check", action="store_true", help="check the configuration and all files of it, and end")
    parser.add_argument("--version", action="version", version=str(BUILD), help="say which build this is, and end")
    given = parser.parse_args()
    try:
        settings = load_settings(settings_class, given.config)
    except ConfigError as error:
        return _unusable(error)
    if given.check:
        return _check(settings, compose, given.config)
    logs.start(settings.process.name, settings.process.log_level)
    return _run_loop(_main(settings, compose, given.config))


def _check(settings: S, compose: Compose[S], file: Path) -> int:
    from services._mesh.rehearsal import rehearse

    try:
        ends_at = asyncio.run(rehearse(settings, compose, file))
    except ConfigError as error:
        return _unusable(error)
    print(f"{file}: ok (its certificate ends {ends_at:%Y-%m-%d %H:%M} UTC)")
    return EXIT_OK


def _run_loop(main: Coroutine[Any, Any, int]) -> int:
    # A thread that only computes (spans being exported) keeps the loop waiting for this long each time the loop lets go
    # of the interpreter's lock; the default of 5 ms, met a few times in one call, is most of what its caller waits.
    sys.setswitchinterval(0.0005)
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def _main(settings: S, compose: Compose[S], file: Path) -> int:
    try:
        mesh = Mesh(settings)
    except ConfigError as error:
        return _unusable(error)
    log.info("starting: %s", BUILD)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, mesh.stop)
    try:
        return await _composed(mesh, settings, compose)
    except ConfigError as error:
        return _unusable(error)
    except Missing as missing:
        return _unusable(ConfigError(file, missing.key, "is missing", missing.way_out))
    except Refused as refused:
        log.critical("refusing to start: %s", refused)
        return EXIT_CONFIG
    except Unlistenable as error:
        log.critical("%s", error)
        return EXIT_ADDRESS
    except Exception as error:
        log.critical("the process can't go on", exc_info=error)
        return EXIT_FAILED
    finally:
        await mesh.close()


async def _composed(mesh: Mesh, settings: S, compose: Compose[S]) -> int:
    exposed = None
    try:
        if settings.process.metrics:
            exposed = await metrics.serve(mesh.metrics, settings.process.metrics, mesh.health.told)
        mesh.task(mesh.denials.run(), "denials")
        await compose(mesh, settings)
        return EXIT_FAILED if mesh.failed() else EXIT_OK
    finally:
        if exposed is not None:
            exposed.close()


def _unusable(error: ConfigError) -> int:
    print(f"configuration: {error}", file=sys.stderr)
    return EXIT_CONFIG


def _known_services() -> list[ServiceDescriptor]:
    """The services of the mesh's own protos that this process has loaded: for the retry rules of its channels."""
    from google.protobuf import descriptor_pool

    found = []
    pool = descriptor_pool.Default()
    for name in _SERVICES:
        try:
            found.append(pool.FindServiceByName(name))
        except KeyError:
            continue
    return found


_SERVICES = (
    "recoup.identity.v1.IdentityService",
    "recoup.identity.v1.RoleService",
    "recoup.scanner.v1.ScannerService",
    "recoup.pricing.v1.PricingService",
    "recoup.pricing.v1.BillService",
    "recoup.actions.v1.ActionsService",
    "recoup.audit.v1.AuditService",
    "recoup.audit.v1.ErasureService",
    "recoup.audit.v1.EvidenceService",
    "recoup.audit.v1.SignerService",
)
