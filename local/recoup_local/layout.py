"""What an installation on one machine consists of: its processes, and what each of them is given.

Each process gets a folder with its own certificate, its own passwords and the keys that it may hold, and nothing of
any other's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

APIS = ("identity", "scanner", "pricing", "actions", "audit")
LOGINS: Mapping[str, tuple[str, ...]] = {
    "identity": ("migrate", "api", "relay"),
    "scanner": ("migrate", "api", "relay", "dispatcher", "worker"),
    "pricing": ("migrate", "api", "relay", "dispatcher", "worker"),
    "actions": ("migrate", "api", "relay", "dispatcher", "worker"),
    "audit": ("migrate", "api", "sequencer"),
}


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


def _owner_of_jobs(service: str) -> dict[str, tuple[str, ...]]:
    """What an API may do in NATS: declare its own job stream and consumer, and announce jobs on it."""
    stream = f"JOBS_{service.upper()}"
    return {
        "publishes": (
            f"jobs.{service}.>",
            f"$JS.API.STREAM.CREATE.{stream}",
            f"$JS.API.STREAM.UPDATE.{stream}",
            f"$JS.API.STREAM.INFO.{stream}",
            f"$JS.API.CONSUMER.INFO.{stream}.{service}-worker",
            f"$JS.API.CONSUMER.CREATE.{stream}.>",
            f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.>",
        )
    }


def _taker_of_jobs(service: str) -> dict[str, tuple[str, ...]]:
    """What a worker may do in NATS: fetch from its service's consumer, and acknowledge."""
    stream, consumer = f"JOBS_{service.upper()}", f"{service}-worker"
    return {
        "publishes": (
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
            f"$JS.API.CONSUMER.INFO.{stream}.{consumer}",
            f"$JS.ACK.{stream}.{consumer}.>",
        )
    }


_API = {"login": "api", "signs": True, "nats": True, "tasks": ("relay", "dispatcher")}

PROCESSES: tuple[ProcessSpec, ...] = (
    ProcessSpec("audit-signer", "services.audit.signer"),
    ProcessSpec("audit", "services.audit", "audit", "api", tasks=("sequencer",), peers=("audit-signer", "identity")),
    ProcessSpec("identity", "services.identity", "identity", "api", tasks=("relay",), peers=("audit",), signs=True),
    ProcessSpec(
        "scanner",
        "services.scanner",
        "scanner",
        peers=("identity", "audit"),
        **_API,  # type: ignore[arg-type]
        **_owner_of_jobs("scanner"),
    ),
    ProcessSpec("pricing", "services.pricing", peers=("identity",)),
    ProcessSpec(
        "actions",
        "services.actions",
        "actions",
        peers=("identity", "audit", "scanner", "pricing"),
        **_API,  # type: ignore[arg-type]
        **_owner_of_jobs("actions"),
    ),
    ProcessSpec("broker", "services.broker", peers=("identity",)),
    ProcessSpec(
        "scanner-worker",
        "services.scanner.worker",
        "scanner",
        "worker",
        peers=("scanner", "broker", "pricing"),
        nats=True,
        **_taker_of_jobs("scanner"),
    ),
    ProcessSpec(
        "pricing-worker",
        "services.pricing.worker",
        "pricing",
        "worker",
        peers=("pricing", "scanner", "broker"),
        nats=True,
        **_taker_of_jobs("pricing"),
    ),
    ProcessSpec(
        "actions-worker",
        "services.actions.worker",
        "actions",
        "worker",
        peers=("actions", "scanner", "broker", "pricing"),
        nats=True,
        **_taker_of_jobs("actions"),
    ),
    ProcessSpec(
        "gateway",
        "services.gateway",
        peers=("identity", "scanner", "pricing", "audit"),
    ),
)
