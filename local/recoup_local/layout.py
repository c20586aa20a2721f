"""What an installation on one machine consists of: its processes, and what each of them is given.

Each process gets a folder with its own certificate, its own passwords and the keys that it may hold, and nothing of
any other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services._mesh.streams import api_permissions, stream_name, worker_permissions
from services.gateway import bucket

LOGINS: Mapping[str, tuple[str, ...]] = {
    "identity": ("migrate", "api", "relay", "dispatcher"),
    "scanner": ("migrate", "api", "relay", "dispatcher", "worker", "backup"),
    "pricing": ("migrate", "api", "relay", "dispatcher", "worker"),
    "actions": ("migrate", "api", "relay", "dispatcher", "worker"),
    "audit": ("migrate", "api", "relay", "dispatcher", "worker", "sequencer", "checker", "archiver"),
}
# The keys that payloads are sealed under stand in a database of their own, which only audit's logins reach.
KEYS_DATABASE = "recoup_keys"
KEYS_LOGINS = ("migrate", "api", "sealer", "eraser")


@dataclass(frozen=True)
class ProcessSpec:
    """A process: its module, whose schema and logins it uses, whom it calls, and what it may hold."""

    name: str
    module: str
    schema: str = ""
    login: str = ""
    tasks: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    nats: bool = False
    signs: bool = False
    publishes: tuple[str, ...] = field(default=())
    subscribes: tuple[str, ...] = field(default=())


def _api_with_jobs(name: str, peers: tuple[str, ...]) -> ProcessSpec:
    """An API process that owns jobs: it declares its own stream and consumer, and announces jobs there."""
    return ProcessSpec(
        name,
        f"services.{name}",
        name,
        "api",
        tasks=("relay", "dispatcher"),
        peers=peers,
        nats=True,
        signs=True,
        publishes=api_permissions(name),
    )


def _worker(service: str, peers: tuple[str, ...]) -> ProcessSpec:
    """A worker: it fetches from its service's consumer, and acknowledges."""
    name, module = f"{service}-worker", f"services.{service}.worker"
    permissions = worker_permissions(service) + (f"$JS.API.CONSUMER.INFO.{stream_name(service)}.{name}",)
    return ProcessSpec(name, module, service, "worker", peers=peers, nats=True, publishes=permissions)


# What has an identity and isn't a process yet: so that what is kept for it alone is tried.
PLANNED = ("notifier",)
PROCESSES: tuple[ProcessSpec, ...] = (
    ProcessSpec("audit-signer", "services.audit.signer"),
    _api_with_jobs("audit", peers=("audit-signer", "identity")),
    ProcessSpec(
        "identity", "services.identity", "identity", "api", tasks=("relay", "dispatcher"), peers=("audit",), signs=True
    ),
    _api_with_jobs("scanner", peers=("identity", "audit", "broker")),
    _api_with_jobs("pricing", peers=("identity", "audit", "scanner")),
    _api_with_jobs("actions", peers=("identity", "audit", "scanner", "pricing")),
    ProcessSpec("broker", "services.broker", peers=("identity",)),
    _worker("scanner", peers=("scanner", "broker", "pricing", "identity")),
    _worker("pricing", peers=("pricing", "scanner", "broker")),
    _worker("actions", peers=("actions", "pricing", "scanner", "broker")),
    _worker("audit", peers=("audit", "actions", "scanner")),
    ProcessSpec(
        "gateway",
        "services.gateway",
        peers=("identity", "scanner", "pricing", "actions", "audit"),
        nats=True,
        publishes=bucket.permissions(),
    ),
    ProcessSpec("audit-witness", "services.audit.witness"),
)
