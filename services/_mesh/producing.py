"""What every service that changes state runs beside its RPCs: relay, reconciler, clearing, watch on state, denials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services._mesh.clearing import Clearing, Kept, OnErased
from services._mesh.denials import Denial, Sink
from services._mesh.log_client import LogClient
from services._mesh.process import Mesh
from services._mesh.reconcile import Difference, Reconciler, Summarizer, Tell
from services._mesh.relay import PendingEvent, Relay
from services._mesh.state_watch import StateWatch
from services._mesh.uow import PLATFORM, Store

# Relays of several organizations at once, the look for more, the reconciler, and the clearing.
_POOL = 7


class Log(Summarizer, Kept, Protocol):
    """Where events go, and what is known there about them: a `LogClient`, but for the log itself."""

    async def append(self, events: Sequence[PendingEvent]) -> list[int]:
        """Append, all or none; returns where each stands once they are durable."""


def produce(mesh: Mesh, schema: str, store: Store, to: Log | None = None, on_erased: OnErased | None = None) -> Relay:
    """Start relay, reconciler, clearing and the watch on state; record denials. `to`: the log, if not the process.

    `on_erased` takes erased events out of what the service keeps of them beside its outbox.
    """
    database = mesh.database(mesh.role("relay"), pool_size=_POOL)
    to = to or LogClient(mesh.channels.to("audit"))
    relay = Relay(database, schema, to.append, mesh.clock, mesh.metrics)
    mesh.task(relay.run(), "relay")
    days = mesh.settings.outbox.payload_days
    mesh.task(Clearing(database, schema, to, mesh.clock, days, mesh.metrics, on_erased).run(), "clearing of payloads")
    tell = difference_recorder(schema, store)
    mesh.task(Reconciler(database, schema, to, mesh.metrics, tell, mesh.clock).run(), "reconciler")
    mesh.task(StateWatch(database, store, mesh.clock, mesh.metrics).run(), "watch on state")
    mesh.denials.sink = denial_recorder(schema, store)
    store.on_events = relay.wake
    return relay


def difference_recorder(schema: str, store: Store) -> Tell:
    """Records what the reconciler finds as an event of the organization whose events differ."""

    async def record(difference: Difference) -> None:
        async with store.begin(difference.organization_id) as work:
            work.emit(f"{schema}.outbox.differ", f"outboxes/{schema}", difference.metadata(), "FAILED")

    return record


def denial_recorder(schema: str, store: Store) -> Sink:
    """Records denials as events, all of an organization's or none; those of nobody's under the installation's own."""

    async def record(denials: Sequence[Denial]) -> None:
        for organization_id in dict.fromkeys(denial.organization_id for denial in denials):
            async with store.begin(organization_id or PLATFORM) as work:
                for denial in denials:
                    if denial.organization_id == organization_id:
                        work.emit(f"{schema}.access.deny", f"rpcs/{denial.rpc}", _of_denial(denial), "DENIED")

    return record


def _of_denial(denial: Denial) -> dict[str, str]:
    return {
        "actor": denial.actor,
        "peer": denial.peer,
        "rpc": denial.rpc,
        "reason": denial.reason,
        "count": str(denial.count),
        "first_at": denial.first_at.isoformat(),
        "last_at": denial.last_at.isoformat(),
        "trace_id": denial.trace_id,
    }
