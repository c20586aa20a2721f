"""What the scanner's worker does to check a connection, once or every day. It may run again after any line.

It must not change anything in the cloud: each probe is a dry run, of something that there isn't.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from services._mesh.claimed import ClaimedJob
from services._mesh.errors import Reason, Unavailable
from services._mesh.jobs import Job
from services._mesh.uow import UnitOfWork
from services.scanner.clients.aws_probes import probe
from services.scanner.cloud_checking import see_cloud
from services.scanner.model.cloud import Provider
from services.scanner.model.connection import Account, Connection, ConnectionState, PermissionCheck, RoleCheck
from services.scanner.model.health import Health, Seen
from services.scanner.policies.aws import READS, act_permissions
from services.scanner.store import connections, scans
from services.scanner.usecases.kinds import CHECK, VERIFY, gives_up_at
from services.scanner.usecases.rotation_rules import tell_age
from services.scanner.working import Tools

# Where AWS didn't answer, nothing follows; it is asked again before the next day.
SOON = timedelta(hours=1)
# Accounts that are probed at once.
_AT_ONCE = 4


async def verify(tools: Tools, job: ClaimedJob) -> None:
    """Check a connection because somebody asked, and accept it or say why not.

    Raises Unavailable when AWS doesn't answer for one that is in use: nothing follows, and it is asked again.
    """
    async with job.begin() as work:
        found = await connections.get_connection(work.connection, job.subject_id)
    seen = await see(tools, job, found)
    async with job.begin() as work:
        before = await connections.get_connection(work.connection, job.subject_id, lock=True)
        health = Health.of(before, seen.roles, seen.permissions, seen.discovered)
        if before.state is ConnectionState.ACTIVE and not health.is_certain:
            operation = "sts:AssumeRole" if before.provider is Provider.AWS else "check"
            raise Unavailable(Reason.ERROR_REASON_CLOUD_UNREACHABLE, health.problem, {"operation": operation})
        await _record(work, health)
        await job.finish(work)


async def check(tools: Tools, job: ClaimedJob) -> None:
    """Check a connection because its day has come, and say what it lost. One that was never accepted is given up."""
    async with job.begin() as work:
        before = await connections.get_connection(work.connection, job.subject_id, lock=True)
        if before.state is ConnectionState.DISABLED:
            await job.finish(work)
            return
        deadlines, is_refused = await tell_age(work, before)
        if is_refused:  # The broker opens it for nobody; its check goes on when it was rotated.
            await job.postpone(work, work.now + timedelta(hours=tools.check_hours))
            return
    if before.verified_at is None:
        await _wait_or_expire(tools, job, before)
        return
    seen = await see(tools, job, before)
    async with job.begin() as work:
        before = await connections.get_connection(work.connection, job.subject_id, lock=True)
        health = Health.of(before, seen.roles, seen.permissions, seen.discovered)
        if health.is_certain and before.state is not ConnectionState.VERIFYING:
            await _record(work, health)
            await job.postpone(work, min([work.now + timedelta(hours=tools.check_hours), *deadlines.ahead(work.now)]))
        else:
            await job.postpone(work, work.now + SOON)


async def _wait_or_expire(tools: Tools, job: ClaimedJob, before: Connection) -> None:
    """A connection that was never accepted stays for a while, for its roles to be made. Then the API gives it up."""
    ends_at, is_over = gives_up_at(before), False
    async with job.begin() as work:
        is_over = work.now >= ends_at
        if not is_over:
            await job.postpone(work, min(ends_at, work.now + timedelta(hours=tools.check_hours)))
    if is_over:
        await tools.registry.expire(job.grant)
        async with job.begin() as work:
            await job.finish(work)


async def _record(work: UnitOfWork, health: Health) -> None:
    before, drift = health.before, health.drift
    marked = await connections.mark_checked(work.connection, health, work.now)
    accepted = marked.state is ConnectionState.ACTIVE
    action = "check"
    if before.state is not marked.state:
        action = "activate" if accepted else "fail"
    if before.verified_at is not None and drift:
        action = "drift"
    work.emit(
        f"scanner.connection.{action}",
        f"connections/{before.connection_id}",
        {
            "problem": marked.problem,
            "lost": drift[:20],
            "roles": [check.role_arn for check in health.roles],
            "before": before.state.value,
            "state": marked.state.value,
        },
        "FAILED" if marked.problem else "OK",
    )


async def see(tools: Tools, job: ClaimedJob, found: Connection) -> Seen:
    """Look at a connection's cloud, whichever it is."""
    if found.provider is Provider.AWS:
        return Seen(*await look(tools, job, found))
    return await see_cloud(tools.desk, tools.clouds[found.provider], job, found)


async def look(tools: Tools, job: ClaimedJob, found: Connection) -> tuple[list[RoleCheck], list[PermissionCheck]]:
    """Ask every role, then probe the permissions of those that let us in only with the external id."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def account(each: Account) -> tuple[list[RoleCheck], list[PermissionCheck]]:
        async with places:
            return await _look_at(tools, job, each, found.regions[0])

    looked = await asyncio.gather(*(account(each) for each in found.accounts))
    return [r for roles, _ in looked for r in roles], [p for _, permissions in looked for p in permissions]


async def _look_at(
    tools: Tools, job: ClaimedJob, account: Account, region: str
) -> tuple[list[RoleCheck], list[PermissionCheck]]:
    uses = [("scan", "verify", READS)]
    if account.act_role_arn:
        uses.append(("act", "probe", act_permissions()))
    roles, permissions = [], []
    for use, purpose, wanted in uses:
        credential = job.credential(use, account.account_id)
        sealed = await tools.desk.fetch_sealed(credential.grant, credential.credential_id)
        role = await tools.broker.probe(credential.grant, sealed)
        roles.append(role)
        if role.with_external_id == "ALLOWED":
            permissions += await _probe(tools, job, account, (use, purpose, role.role_arn), region, wanted)
    return roles, permissions


async def _probe(
    tools: Tools, job: ClaimedJob, account: Account, role: tuple[str, str, str], region: str, wanted: Sequence[str]
) -> list[PermissionCheck]:
    use, purpose, role_arn = role
    outcomes: dict[str, tuple[str, str]] = {}
    for credential in job.credentials_for(purpose, account.account_id):
        opened = await tools.desk.open(credential.grant, credential.credential_id)
        left = [each for each in wanted if each in credential.actions and each not in outcomes]
        outcomes |= await probe(tools.threads, tools.aws, opened, region, left)
    return [PermissionCheck(role_arn, use, region, p, outcome, code) for p, (outcome, code) in outcomes.items()]


async def give_up(work: UnitOfWork, job: Job, error: str) -> None:
    """Leave nothing waiting for a job that is dead: what it was for failed, and says why."""
    if job.kind == "scan":
        problem = f"the scan was given up after several attempts ({error}); start another one"
        await scans.mark_scan(work.connection, job.subject_id, state="FAILED", problem=problem, finished_at=work.now)
    elif job.kind == CHECK:
        problem = f"the daily check was given up after several attempts ({error}); verify to have it run again"
        await connections.mark_connection(work.connection, job.subject_id, problem=problem)
    elif job.kind == VERIFY:
        problem = f"the verification was given up after several attempts ({error}); verify again"
        await connections.mark_connection(work.connection, job.subject_id, state="FAILED", problem=problem)
