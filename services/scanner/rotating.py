"""What the scanner's worker does to rotate a credential: one step at each lease, each of which may run again.

Where it stands is in the rotation's row, and each step moves it on in the transaction of its result. Nothing that the
credential before does is held up: it goes on until no grant for it can be alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

from services._mesh.claimed import ClaimedJob
from services._mesh.errors import Problem, Reason
from services._mesh.failpoints import reach
from services._mesh.grants import read_own_grant
from services._mesh.jobs import Job
from services._mesh.uow import UnitOfWork
from services.scanner import checking
from services.scanner.clients.feed import Feed
from services.scanner.model.cloud import Provider
from services.scanner.model.connection import Account, Connection, ConnectionState, PermissionCheck, RoleCheck
from services.scanner.model.health import Health
from services.scanner.model.reading import Coverage, Outcome, Unit, UnitReading
from services.scanner.model.rotation import (
    DRAIN,
    PATIENCE,
    PAUSE,
    ROTATE,
    TRYING,
    Rotation,
    RotationState,
    Verdict,
    judge_probe,
    judge_reading,
)
from services.scanner.store import connections
from services.scanner.store import rotations as store
from services.scanner.usecases.credentials import end_rotation, names_of
from services.scanner.working import Tools, open_sessions, read_units

# Accounts that are read at once.
_AT_ONCE = 4


class Trying(Protocol):
    """Tries a credential that isn't in use, under the grants of its rotation."""

    async def look(self, job: ClaimedJob, of: Connection) -> tuple[Sequence[RoleCheck], Sequence[PermissionCheck]]:
        """Ask every role, and probe every permission. Raises Problem."""

    async def read(self, job: ClaimedJob, of: Connection) -> list[Coverage]:
        """Read a part of the cloud for good, and throw it away. Raises Problem."""


async def rotate(cloud: Trying, feed: Feed, job: ClaimedJob) -> None:
    """Do the next step of a rotation. Raises Problem where what it needs is away; it comes again then."""
    async with job.begin() as work:
        of, found = await _locked(work, job.subject_id)
        if found.state is RotationState.DRAINING and not _is_drained(found, work):
            await job.postpone(work, work.now + _left(found, work))
            return
        if found.state in TRYING and of.state is ConnectionState.DISABLED:
            await _fail(work, job, found, "The connection was disabled.")
            return
    if found.state is RotationState.PROBING:
        await _probe(cloud, job, of)
    elif found.state is RotationState.READING:
        await _read(cloud, job, of)
    else:
        await _tell(feed, job, found)


async def _probe(cloud: Trying, job: ClaimedJob, of: Connection) -> None:
    """Ask every role and permission with the new credential, as a verification does."""
    roles, seen = await cloud.look(job, of)
    reach("rotate.probed")
    async with job.begin() as work:
        before, found = await _locked(work, job.subject_id)
        if found.state is RotationState.PROBING:
            health = Health.of(before, roles, seen)
            checks = {"role_checks": roles, "permission_checks": health.permissions}
            if not await _goes_on(work, job, found, judge_probe(health, seen), **checks):
                return
            values = {"state": RotationState.READING.value, "problem": "", **checks}
            await store.mark_rotation(work.connection, found.rotation_id, **values)
            said = {**names_of(found), "permissions": str(len(seen))}
            work.emit("scanner.credential.probe", f"connections/{found.connection_id}", said)
        await job.postpone(work, work.now)
    reach("rotate.accepted")


async def _read(cloud: Trying, job: ClaimedJob, of: Connection) -> None:
    """Read the first region of every account with the new credential, and put it into use."""
    coverages = await cloud.read(job, of)
    reach("rotate.read")
    async with job.begin() as work:
        before, found = await _locked(work, job.subject_id)
        if found.state is RotationState.READING:
            verdict = judge_reading(coverages, found.permission_checks)
            if not await _goes_on(work, job, found, verdict):
                return
            health = Health.of(before, found.role_checks, found.permission_checks, before.discovered)
            if not await store.promote(work.connection, found, health, work.now):
                await _fail(work, job, found, "The connection got another credential meanwhile. Look, then repeat.")
                return
            values = {"promoted_at": work.now, "drains_until": work.wall_now + DRAIN, "problem": ""}
            found = await store.mark_rotation(
                work.connection, found.rotation_id, state=RotationState.DRAINING.value, **values
            )
            said = {
                "connection": f"{before.state.value} to {health.state.value}",
                "apis": str(len(coverages)),
                "drains_until": f"{found.drains_until}",
            }
            work.emit("scanner.credential.promote", f"connections/{found.connection_id}", {**names_of(found), **said})
            await job.postpone(work, work.now + DRAIN)
        else:
            await job.postpone(work, work.now)
    reach("rotate.promoted")


async def _tell(feed: Feed, job: ClaimedJob, found: Rotation) -> None:
    """Have the credential that came to its end revoked, so that nobody keeps a key of it, and destroy it."""
    if "identity" not in read_own_grant(job.grant).audience:  # It came to its end since the lease.
        async with job.begin() as work:
            await job.postpone(work, work.now)
        return
    await feed.revoked(job.grant, found.ended_credential)
    reach("rotate.told")
    async with job.begin() as work:
        _, found = await _locked(work, job.subject_id)
        values: dict[str, Any] = {"told": True}
        if found.state is RotationState.DRAINING:
            values |= {"state": RotationState.DONE.value, "ended_at": work.now}
        told = await store.mark_rotation(work.connection, found.rotation_id, **values)
        await store.destroy_credential(work.connection, told.ended_credential)
        said = {"revoked": str(told.ended_credential), "advice": told.advice, "state": told.state.value}
        work.emit("scanner.credential.revoke", f"connections/{told.connection_id}", {**names_of(told), **said})
        await job.finish(work)
    reach("rotate.done")


async def _locked(work: UnitOfWork, rotation_id: UUID) -> tuple[Connection, Rotation]:
    """The connection and the rotation, locked in the order that everybody keeps."""
    found = await store.get_rotation(work.connection, rotation_id)
    of = await connections.get_connection(work.connection, found.connection_id, lock=True)
    return of, await store.get_rotation(work.connection, rotation_id, lock=True)


async def _goes_on(work: UnitOfWork, job: ClaimedJob, found: Rotation, verdict: Verdict, **checks: Any) -> bool:
    """Whether a step went well. Where it didn't, it is tried again for a while, or the rotation has failed."""
    if verdict.is_certain and not verdict.problem:
        return True
    if verdict.is_certain:
        await _fail(work, job, found, verdict.problem, **checks)
    elif work.now >= found.started_at + PATIENCE:
        await _fail(work, job, found, f"{found.provider.brand} didn't answer for a day. {verdict.problem}", **checks)
    else:
        if verdict.problem != found.problem:  # Told once.
            await store.mark_rotation(work.connection, found.rotation_id, problem=verdict.problem)
            said = {**names_of(found), "problem": verdict.problem}
            work.emit("scanner.credential.wait", f"connections/{found.connection_id}", said, "FAILED")
        await job.postpone(work, work.now + PAUSE)
    return False


async def _fail(work: UnitOfWork, job: ClaimedJob, found: Rotation, problem: str, **checks: Any) -> None:
    if checks:
        await store.mark_rotation(work.connection, found.rotation_id, **checks)
    said = f"{problem} The credential before stays in use."
    await end_rotation(work, found, RotationState.FAILED, said, "scanner.credential.fail")
    await job.postpone(work, work.now)


def _is_drained(found: Rotation, work: UnitOfWork) -> bool:
    return found.drains_until is not None and work.wall_now >= found.drains_until


def _left(found: Rotation, work: UnitOfWork) -> timedelta:
    until = found.drains_until or work.wall_now + DRAIN
    return max(until - work.wall_now, timedelta(seconds=1))


async def give_up(work: UnitOfWork, job: Job, error: str) -> None:
    """Leave nothing waiting for a job that is dead: a rotation ends. Its grants are over by then."""
    if job.kind != ROTATE:
        await checking.give_up(work, job, error)
        return
    _, found = await _locked(work, job.subject_id)
    if found.state in TRYING:
        problem = f"The rotation was given up after several attempts ({error}). The credential before stays in use."
        await end_rotation(work, found, RotationState.FAILED, problem, "scanner.credential.fail")
    elif found.state is RotationState.DRAINING:
        problem = f"The revocation feed couldn't be told ({error}); the credential before is destroyed all the same."
        values = {"state": RotationState.DONE.value, "problem": problem, "ended_at": work.now}
        await store.mark_rotation(work.connection, found.rotation_id, **values)
        await store.destroy_credential(work.connection, found.replaced_id)
        said = {**names_of(found), "problem": problem}
        work.emit("scanner.credential.revoke", f"connections/{found.connection_id}", said, "FAILED")


class TryingClouds:
    """Tries a credential as a verification does, and reads the first region of every account."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def look(self, job: ClaimedJob, of: Connection) -> tuple[Sequence[RoleCheck], Sequence[PermissionCheck]]:
        """See Trying."""
        seen = await checking.see(self._tools, job, of)
        return seen.roles, seen.permissions

    async def read(self, job: ClaimedJob, of: Connection) -> list[Coverage]:
        """See Trying. Of other clouds than AWS it is what a check reads, once more."""
        if of.provider is not Provider.AWS:
            return [_listed(each) for each in (await checking.see(self._tools, job, of)).roles]
        places = asyncio.Semaphore(_AT_ONCE)

        async def account(each: Account) -> list[Coverage]:
            async with places:
                return await self._account(job, each, of.regions[0])

        return [c for found in await asyncio.gather(*(account(each) for each in of.accounts)) for c in found]

    async def _account(self, job: ClaimedJob, account: Account, region: str) -> list[Coverage]:
        try:
            sessions = await open_sessions(self._tools, job, account.account_id)
        except Problem as problem:
            if problem.reason != Reason.ERROR_REASON_CLOUD_REFUSED:
                raise
            unit = Unit(account.account_id, region, "sts:AssumeRole")
            return [Coverage(unit, Outcome.DENIED, error_code=str(problem.metadata.get("code", "")))]
        units = await read_units(self._tools, sessions, account.account_id, region, _unrecorded)
        return [unit.coverage for unit in units]


def _listed(entry: RoleCheck) -> Coverage:
    """What a check's entry says of reading."""
    outcomes = {"ALLOWED": Outcome.COMPLETE, "UNREACHABLE": Outcome.UNREACHABLE}
    outcome = outcomes.get(entry.with_external_id, Outcome.DENIED)
    return Coverage(Unit(entry.role_arn, "all", "list"), outcome, error_code=entry.error_code)


async def _unrecorded(_: UnitReading) -> None:
    """What is read here is thrown away."""
