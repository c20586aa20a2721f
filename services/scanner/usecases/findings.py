"""What is decided about findings: read, and left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from services._mesh.context import current
from services._mesh.errors import AlreadyExists, Reason, WrongState
from services._mesh.uow import Store, UnitOfWork
from services.scanner.clients.peers import Exceptions
from services.scanner.model.suppression import Suppression, target_of
from services.scanner.store import scans

InForce = Mapping[UUID, datetime]


async def get_finding(reader: Store, exceptions: Exceptions, finding_id: UUID) -> tuple[Any, InForce]:
    """One finding, and the exceptions in force that could leave it alone. Raises NotFound, Unavailable."""
    async with reader.read() as connection:
        row = await scans.get_finding(connection, finding_id)
    return row, {} if row.exception_id is None else await _in_force(exceptions)


async def list_findings(
    reader: Store,
    exceptions: Exceptions,
    after: tuple[Decimal, UUID] | None,
    limit: int,
    narrowed: Mapping[str, Any],
) -> tuple[Sequence[Any], InForce]:
    """Findings, the largest saving first, and the exceptions in force; one more than `limit` shows that there are more.

    Identity is asked each time, where any finding carries an exception: none outlives its end here. Raises Unavailable.
    """
    async with reader.read() as connection:
        is_asked = await scans.has_excepted(connection)
    in_force = await _in_force(exceptions) if is_asked else {}
    async with reader.read() as connection:
        return await scans.list_findings(connection, after, limit + 1, narrowed, in_force.keys()), in_force


async def _in_force(exceptions: Exceptions) -> InForce:
    found = await exceptions.in_force(current().organization())
    return {exception_id: until for exception_id, (_, until) in found.items()}


async def except_finding(reader: Store, exceptions: Exceptions, wanted: Suppression) -> tuple[UUID, datetime]:
    """Have identity make the exception that is to leave a finding alone, on behalf of the caller; its id and its end.

    One that was made before, and that the finding doesn't carry because we failed in between, is taken. Raises
    NotFound, WrongState where the finding isn't open, AlreadyExists where it is left alone, and what identity raises.
    """
    async with reader.read() as connection:
        row = await scans.get_finding(connection, wanted.finding_id)
    if row.state != "OPEN":
        raise WrongState(
            Reason.ERROR_REASON_STATE_WRONG,
            f"A finding that is {row.state} needs no exception.",
            {"state": row.state, "allowed": "OPEN"},
        )
    try:
        return await exceptions.create(current().organization(), wanted)
    except AlreadyExists:
        found = await exceptions.in_force(current().organization())
        about = target_of(wanted.finding_id)
        made = {exception_id: until for exception_id, (target, until) in found.items() if target == about}
        if not made or row.exception_id in made:
            raise
        return next(iter(made.items()))


async def suppress_finding(work: UnitOfWork, finding_id: UUID, exception_id: UUID, until: datetime, reason: str) -> Any:
    """Leave a finding alone for as long as an exception is in force. Raises NotFound."""
    before = await scans.get_finding(work.connection, finding_id)
    await scans.mark_excepted(work.connection, finding_id, exception_id)
    said = {"exception_id": str(exception_id), "expires_at": until.isoformat(), "reason": reason}
    work.emit(
        "scanner.finding.suppress",
        target_of(finding_id),
        {**said, "before": str(before.exception_id or ""), "resource": before.id, "detection": before.detection_id},
    )
    return await scans.get_finding(work.connection, finding_id)
