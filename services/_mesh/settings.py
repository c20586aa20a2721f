"""The sections that every process's settings share. A service adds its own by subclassing `MeshSettings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from services._mesh.config import (
    Address,
    Between,
    ExistingFolder,
    Matches,
    PlainFile,
    Seconds,
    SecretFile,
)

Profile = Literal["local", "production"]
ProcessName = Annotated[str, Matches(r"[a-z][a-z-]{1,40}", 'a process name such as "scanner-worker"')]
Caller = Annotated[
    str,
    Matches(r"[a-z][a-z-]{1,40}|client/(\*|[a-z][a-z0-9-]{0,60})", 'a process, "client/<team>" or "client/*"'),
]
_Count = Annotated[int, Between(1, 1_000_000)]


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """Who this process is. `listen` is None for a process that serves no RPC; `metrics` must be loopback."""

    name: ProcessName
    profile: Profile
    listen: Address | None = None
    metrics: Annotated[str, Matches(r"(127\.0\.0\.1|\[::1\]):\d{1,5}", "a loopback address")] | None = None
    static_folder: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, kw_only=True)
class TlsSettings:
    """The process's own certificate and the installation's CA; reloaded when the files change."""

    ca: PlainFile
    cert: PlainFile
    key: SecretFile
    check_seconds: Seconds = 2.0


@dataclass(frozen=True, kw_only=True)
class DatabaseRole:
    """A login of its own for one task of the process."""

    user: str
    password_file: SecretFile


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """Where the database is, and as whom this process reads it. `host` is a name, or the folder of the
    socket.
    """

    host: str
    port: Annotated[int, Between(1, 65535)] = 5432
    dbname: str = "recoup"
    user: str
    password_file: SecretFile
    ca: PlainFile | None = None
    pool_size: Annotated[int, Between(1, 200)] = 10
    statement_seconds: Seconds = 15.0
    relay: DatabaseRole | None = None
    dispatcher: DatabaseRole | None = None
    migrate: DatabaseRole | None = None


@dataclass(frozen=True, kw_only=True)
class OutboxSettings:
    """For how many days after the log took an event its payload stays in the outbox, to be appended again if the log
    is restored to an older state. What is erased goes at once.
    """

    payload_days: Annotated[int, Between(1, 366)] = 30


@dataclass(frozen=True, kw_only=True)
class NatsSettings:
    """Where JetStream is, and as whom this process speaks to it."""

    url: str
    user: str
    password_file: SecretFile


@dataclass(frozen=True, kw_only=True)
class TrustSettings:
    """The folder with `<process>.jwks.json` of every process that signs; read again when a file changes.

    `grant_issuers` says which process may grant which kinds of work to whoever calls us with a grant.
    """

    dir: ExistingFolder
    grant_issuers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SigningSettings:
    """The process's own Ed25519 private key (PEM, PKCS #8), for what it alone may sign."""

    key: SecretFile


@dataclass(frozen=True, kw_only=True)
class OtlpSettings:
    """Where traces go, and which: `endpoint` is the base address of an OTLP/HTTP receiver, `ca` whom to believe there.

    `ratio` of all traces are sent, and whatever failed or took as long as a slow request or job, or longer.
    """

    endpoint: Annotated[str, Matches(r"https?://\S+", "an http(s) address")]
    ca: PlainFile | None = None
    ratio: Annotated[float, Between(0, 1)] = 0.1
    slow_seconds: Seconds = 1.0
    slow_job_seconds: Seconds = 60.0
    every_seconds: Annotated[float, Between(0.1, 60)] = 5.0


@dataclass(frozen=True, kw_only=True)
class ClockSettings:
    """The movable clock's file; refused outside the local profile."""

    file: Path


@dataclass(frozen=True, kw_only=True)
class FailpointsSettings:
    """Where a test leaves what is to happen at a failpoint; refused outside the local profile."""

    folder: ExistingFolder


@dataclass(frozen=True, kw_only=True)
class LimitsSettings:
    """What bounds a process: sizes in bytes, times in seconds."""

    message_bytes: Annotated[int, Between(1024, 64 * 1024 * 1024)] = 4 * 1024 * 1024
    concurrent_calls: _Count = 512
    default_deadline_seconds: Seconds = 30.0
    max_deadline_seconds: Seconds = 120.0
    drain_seconds: Seconds = 10.0
    denial_keys: _Count = 1024
    denial_window_seconds: Seconds = 60.0


@dataclass(frozen=True, kw_only=True)
class CallersSettings:
    """Who may call. `default` holds for RPCs that carry a passport; an RPC of PEER scope has no default.

    `rpc` names exceptions as "package.Service/Method"; it replaces the default and never adds to it.
    """

    default: tuple[Caller, ...] = ("gateway", "client/*")
    rpc: Mapping[str, tuple[Caller, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MeshSettings:
    """All that the mesh itself needs to know; a section that a process doesn't use is left out."""

    process: ProcessSettings
    tls: TlsSettings
    trust: TrustSettings
    peers: Mapping[str, Address] = field(default_factory=dict)
    callers: CallersSettings = field(default_factory=CallersSettings)
    limits: LimitsSettings = field(default_factory=LimitsSettings)
    database: DatabaseSettings | None = None
    outbox: OutboxSettings = field(default_factory=OutboxSettings)
    nats: NatsSettings | None = None
    signing: SigningSettings | None = None
    otlp: OtlpSettings | None = None
    clock: ClockSettings | None = None
    failpoints: FailpointsSettings | None = None

    def __post_init__(self) -> None:
        if self.clock is not None and self.process.profile != "local":
            raise ValueError("[clock] moves time, which only the local profile may")
        if self.failpoints is not None and self.process.profile != "local":
            raise ValueError("[failpoints] ends processes, which only the local profile may")
