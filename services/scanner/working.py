"""What the scanner's worker does to scan a scope. It may run again after any line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services._mesh.aws_settings import AwsCredentials, AwsSettings
from services._mesh.claimed import ClaimedJob
from services._mesh.credentials import CredentialDesk
from services._mesh.errors import Problem, Reason
from services._mesh.threads import BoundedThreads
from services._mesh.uow import UnitOfWork
from services.scanner.clients.aws import RegionReader
from services.scanner.clients.clouds import CloudReader
from services.scanner.clients.peers import Broker, Pricing, Registry
from services.scanner.detections.judging import judge_all, skus_of
from services.scanner.model import ledger
from services.scanner.model.cloud import Provider
from services.scanner.model.connection import Connection
from services.scanner.model.estate import resources_of
from services.scanner.model.ledger import Entry
from services.scanner.model.reading import APIS, Coverage, Outcome, RegionReading, Unit, UnitReading
from services.scanner.model.resource import Resource
from services.scanner.store import connections, scans

Record = Callable[[UnitReading], Awaitable[None]]
# What is signed with, and the actions that it may do.
Session = tuple[AwsCredentials, frozenset[str]]
# The cloud's own refusals of a whole account: the scan goes on with the others, and says so.
_ACCOUNT_PROBLEMS = {
    Reason.ERROR_REASON_CLOUD_REFUSED: Outcome.DENIED,
    Reason.ERROR_REASON_CLOUD_THROTTLED: Outcome.THROTTLED,
    Reason.ERROR_REASON_CLOUD_UNREACHABLE: Outcome.UNREACHABLE,
}


@dataclass(frozen=True)
class Tools:
    """What the worker works with."""

    desk: CredentialDesk
    broker: Broker
    pricing: Pricing
    threads: BoundedThreads
    aws: AwsSettings
    registry: Registry
    check_hours: float = 24.0
    clouds: Mapping[Provider, CloudReader] = field(default_factory=dict)


async def scan(tools: Tools, job: ClaimedJob) -> None:
    """Read a connection's whole scope, judge it, and leave findings with a completeness record."""
    async with job.begin() as work:
        row = await scans.get_scan(work.connection, job.subject_id)
        connection = await connections.get_connection(work.connection, row.connection_id)
        if row.state != "RUNNING":  # What is tried again, maybe for hours, began once.
            await scans.mark_scan(work.connection, job.subject_id, state="RUNNING", started_at=work.now)
            work.emit("scanner.scan.run", f"scans/{job.subject_id}", {"attempt": str(job.attempt)})
        started_at = work.now
    readings = await _read_all(tools, job, connection)
    seen = await _remember(job, connection, readings, started_at)
    books = await tools.pricing.books(connection.regions, skus_of([resource for resource, _ in seen]))
    found, undetermined = judge_all(connection.connection_id, job.subject_id, seen, books, started_at)
    async with job.begin() as work:
        await scans.upsert_findings(work.connection, job.organization_id, found)
        for reading in readings:
            await scans.resolve_findings(
                work.connection,
                connection.connection_id,
                job.subject_id,
                reading.account,
                reading.region,
                sorted(reading.complete_types()),
            )
        await _complete(job, work, connection, readings, len(seen), undetermined)


async def _read_all(tools: Tools, job: ClaimedJob, connection: Connection) -> list[RegionReading]:
    """Read all accounts and regions; each unit's record is committed as it finishes, so that progress is real."""

    async def record(reading: UnitReading) -> None:
        async with job.begin() as work:
            await scans.insert_unit(work.connection, job.organization_id, job.subject_id, reading)

    async def region(sessions: Sequence[Session], account: str, name: str) -> RegionReading:
        units = await read_units(tools, sessions, account, name, record)
        return RegionReading(account, name, units, resources_of(account, name, units))

    async def account(account_id: str) -> list[RegionReading]:
        try:
            sessions = await open_sessions(tools, job, account_id)
        except Problem as problem:
            return [await _closed(account_id, name, problem, record) for name in connection.regions]
        return list(await asyncio.gather(*(region(sessions, account_id, name) for name in connection.regions)))

    found = await asyncio.gather(*(account(each.account_id) for each in connection.accounts))
    return [reading for each in found for reading in each]


async def open_sessions(tools: Tools, job: ClaimedJob, account: str) -> list[Session]:
    """The sessions to scan an account with: one, or several where the policy of one would be too long.

    Raises Problem.
    """
    grants = job.credentials_for("scan", account)
    return [(await tools.desk.open(each.grant, each.credential_id), each.actions) for each in grants]


async def read_units(
    tools: Tools, sessions: Sequence[Session], account: str, region: str, record: Record
) -> list[UnitReading]:
    """All units of a region, each with the session that allows its API."""
    readers = [
        RegionReader(tools.threads, tools.aws, opened, account, region).read(
            record, [api for api in APIS if api in actions]
        )
        for opened, actions in sessions
    ]
    return [unit for units in await asyncio.gather(*readers) for unit in units]


async def _closed(account: str, region: str, problem: Problem, record: Record) -> RegionReading:
    """The record of a region whose account can't be entered. Raises the problem when it isn't the cloud's."""
    outcome = _ACCOUNT_PROBLEMS.get(problem.reason)
    if outcome is None:
        raise problem
    code = str(problem.metadata.get("code", problem.reason_name))
    units = [UnitReading(Coverage(Unit(account, region, api), outcome, error_code=code)) for api in APIS]
    for unit in units:
        await record(unit)
    return RegionReading(account, region, units, ())


async def _remember(
    job: ClaimedJob, connection: Connection, readings: Sequence[RegionReading], now: datetime
) -> list[tuple[Resource, Entry]]:
    """Write the inventory and move the first-seen ledger on, a region at a time."""
    everything: list[tuple[Resource, Entry]] = []
    for reading in readings:
        async with job.begin() as work:
            before = await scans.read_ledger(work.connection, connection.connection_id, reading.account, reading.region)
            seen = [
                (resource, ledger.advance(before.get((resource.key.type, resource.key.id)), resource, now))
                for resource in reading.resources
            ]
            await scans.upsert_resources(work.connection, job.organization_id, connection.connection_id, seen, now)
            await scans.mark_gone(
                work.connection,
                connection.connection_id,
                reading.account,
                reading.region,
                sorted(reading.complete_types()),
                now,
            )
        everything += seen
    return everything


async def _complete(
    job: ClaimedJob,
    work: UnitOfWork,
    connection: Connection,
    readings: Sequence[RegionReading],
    seen: int,
    undetermined: int,
) -> None:
    coverages = [unit.coverage for reading in readings for unit in reading.units]
    missing = [c for c in coverages if c.outcome is not Outcome.COMPLETE]
    state = "PARTIAL" if missing else "COMPLETE"
    problem = f"{len(missing)} of {len(coverages)} listings couldn't be read; see the coverage" if missing else ""
    open_findings = await scans.count_open(work.connection, connection.connection_id)
    await scans.mark_scan(
        work.connection,
        job.subject_id,
        state=state,
        resources_seen=seen,
        findings_open=open_findings,
        problem=problem,
        finished_at=work.now,
    )
    metadata = {
        "state": state,
        "resources": str(seen),
        "findings_open": str(open_findings),
        "undetermined": str(undetermined),
        "listings_missing": [f"{c.unit.account}/{c.unit.region}/{c.unit.api}: {c.outcome.value}" for c in missing][:50],
    }
    work.emit("scanner.scan.complete", f"scans/{job.subject_id}", metadata)
    await job.finish(work)
