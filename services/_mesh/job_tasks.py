"""Composes what a service with jobs runs: on the API's side the desk and the dispatcher, on the worker's the runner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from google.protobuf.descriptor import ServiceDescriptor

from recoup.mesh.v1 import job_service_pb2
from services._mesh.dispatcher import Dispatcher
from services._mesh.job_rpc import JobServicer
from services._mesh.jobs import JobDesk, OnDead, Planner, Policy
from services._mesh.process import Mesh
from services._mesh.streams import JobMessages, JobStream, Link
from services._mesh.uow import Store
from services._mesh.worker import Handler, JobRunner

JOB_SERVICE: ServiceDescriptor = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]
_DISPATCHER_POOL = 5


@dataclass(frozen=True, slots=True)
class JobOffice:
    """What an API that owns jobs holds: a planner for its use cases, and the servicer for its server."""

    planner: Planner
    servicer: JobServicer

    @property
    def service(self) -> tuple[ServiceDescriptor, JobServicer]:
        """For `Mesh.serve`."""
        return JOB_SERVICE, self.servicer


async def own_jobs(
    mesh: Mesh,
    service: str,
    store: Store,
    policies: Mapping[str, Policy],
    on_dead: OnDead | None = None,
    workers: Mapping[str, str] = MappingProxyType({}),
) -> JobOffice:
    """Start the dispatcher of `service`, and make what plans and leases its jobs.

    `policies` has one for each kind; `workers` names the process that does those which the service's worker doesn't.
    """
    key, database = mesh.signing_key(), mesh.database(mesh.role("dispatcher"), pool_size=_DISPATCHER_POOL)
    link = mesh.nats()
    # Once it was there, it isn't waited for again: the rows are the jobs, and what is planned while it is away is
    # announced when it is back. Refusing reads and changes meanwhile would only widen the outage.
    mesh.health.needs("NATS", link.was_connected)
    stream = JobStream(link.client, service)
    dispatcher = Dispatcher(database, service, mesh.clock, stream, mesh.metrics)
    mesh.task(_connected(link, dispatcher.run), "dispatcher")
    store.on_jobs = dispatcher.wake
    desk = JobDesk(
        store,
        database,
        key,
        mesh.trust,
        mesh.clock,
        policies,
        issuer=mesh.name,
        profile=mesh.profile,
        revocations=mesh.revocations,
        on_dead=on_dead,
        workers=workers,
    )
    return JobOffice(Planner(key, mesh.name, mesh.clock), JobServicer(desk))


async def work_on(
    mesh: Mesh,
    service: str,
    store: Store,
    handlers: Mapping[str, Handler],
    *,
    concurrency: int = 4,
    on_dead: OnDead | None = None,
) -> JobRunner:
    """Run the jobs of `service` in this process, for as long as it runs. `handlers` has one for each kind."""
    link = mesh.nats()
    mesh.health.needs("NATS", link.is_connected)
    messages = JobMessages(link.client, service)
    runner = JobRunner(
        messages,
        mesh.channels.to(service),
        store,
        mesh.name,
        handlers,
        concurrency=concurrency,
        on_dead=on_dead,
        clock=mesh.clock,
        metrics=mesh.metrics,
    )
    mesh.task(_connected(link, runner.run), "job runner")
    return runner


async def _connected(link: Link, run: Callable[[], Awaitable[None]]) -> None:
    """Run what can do nothing before NATS has been there once."""
    await link.connected()
    await run()
