"""What every service that changes state runs beside its RPCs: the relay, the reconciler, and its recorded denials."""

from __future__ import annotations

from collections.abc import Sequence

from services._mesh.appending import Reconciler, append_to
from services._mesh.denials import Denial, Sink
from services._mesh.process import Mesh
from services._mesh.relay import Relay
from services._mesh.uow import Store


def produce(mesh: Mesh, schema: str, store: Store) -> Relay:
    """Start the relay and the reconciler, and have denials recorded as events."""
    settings = mesh.settings.database
    if settings is None or settings.relay is None:
        raise RuntimeError(f"{mesh.name} needs [database.relay]")
    database = mesh.database(settings.relay, pool_size=3)
    channel = mesh.channels.to("audit")
    relay = Relay(database, schema, append_to(channel))
    mesh.task(relay.run(), "relay")
    mesh.task(Reconciler(database, schema, channel).run(), "reconciler")
    behind = mesh.metrics.gauge("recoup_outbox_organizations_behind", "Organizations whose events wait to be relayed.")
    mesh.denials.sink = _recorder(schema, store)
    relay.observe = behind.set
    return relay


def _recorder(schema: str, store: Store) -> Sink:
    async def record(denials: Sequence[Denial]) -> None:
        """One event for each kind of denial, with its count; those of nobody's organization stay in the metrics."""
        for denial in denials:
            if denial.organization_id is None:
                continue
            async with store.begin(denial.organization_id) as work:
                metadata = {
                    "actor": denial.actor,
                    "peer": denial.peer,
                    "rpc": denial.rpc,
                    "reason": denial.reason,
                    "count": str(denial.count),
                    "trace_id": denial.trace_id,
                }
                work.emit(f"{schema}.access.deny", f"rpcs/{denial.rpc}", metadata, "DENIED")

    return record
