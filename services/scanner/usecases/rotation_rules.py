"""What is decided about the age of credentials: the rules, who is told, and that nothing is begun with one too old."""

from __future__ import annotations

from datetime import datetime, timedelta

from services._mesh.errors import Reason, WrongState, invalid_field
from services._mesh.uow import Store, UnitOfWork
from services.scanner.model.connection import Connection
from services.scanner.model.rotation_rules import Deadlines, RotationRules, RulesInvalid
from services.scanner.store import connections
from services.scanner.store import rotation_rules as store

_WAY_OUT = "Give the connection another key: recoup credential rotate."


async def set_rotation_rules(
    work: UnitOfWork, remind_after_days: int, rotate_within_days: int
) -> tuple[RotationRules, int]:
    """Keep other rules; returns them, and how many connections are too old by them now. Raises Invalid."""
    before = await store.find_rules(work.connection)
    try:
        rules = before.changed(remind_after_days, rotate_within_days, work.now)
    except RulesInvalid as error:
        raise invalid_field(error.field, error.rule) from None
    await store.set_rules(work.connection, work.organization_id, rules, work.now)
    said = {"before": _said(before), "after": _said(rules)}
    work.emit("scanner.rotation_rules.set", f"organizations/{work.organization_id}", said)
    within = timedelta(days=rules.rotate_within_days)
    late = await store.count_older(work.connection, work.now - within) if within else 0
    return rules, late


def _said(rules: RotationRules) -> str:
    enforced = f", enforced from {rules.enforced_from:%FT%TZ}" if rules.enforced_from else ""
    return f"remind after {rules.remind_after_days} days, rotate within {rules.rotate_within_days}{enforced}"


async def get_rotation_rules(reader: Store) -> RotationRules:
    """The organization's rules."""
    async with reader.read() as connection:
        return await store.find_rules(connection)


async def require_young(work: UnitOfWork, found: Connection) -> None:
    """Raises WrongState (CREDENTIAL_TOO_OLD) where the broker would refuse a connection's credential."""
    deadlines = await store.find_deadlines(work.connection, found)
    if deadlines.refused_from is not None and work.now >= deadlines.refused_from:
        raise WrongState(
            Reason.ERROR_REASON_CREDENTIAL_TOO_OLD,
            f"The connection's key is older than the organization allows. {_WAY_OUT}",
            {"credential_id": str(found.credential_id), "refused_from": f"{deadlines.refused_from:%FT%TZ}"},
        )


async def tell_age(work: UnitOfWork, found: Connection) -> tuple[Deadlines, bool]:
    """Leave the events that are due of a credential's age, each once; returns its deadlines, and whether it is refused.

    The connection is locked. A deadline that was put off is told of again when it comes.
    """
    deadlines = await store.find_deadlines(work.connection, found)
    told = await store.find_told(work.connection, found.credential_id)
    is_refused, is_late = _is_due(deadlines.refused_from, work.now), _is_due(deadlines.remind_at, work.now)
    if is_refused and not _is_told(told.refusal_told_at, deadlines.refused_from):
        await store.mark_told(work.connection, found.credential_id, refusal_told_at=work.now, reminded_at=work.now)
        problem = f"Its key is older than the organization allows, and the broker refuses it. {_WAY_OUT}"
        await connections.mark_connection(work.connection, found.connection_id, problem=problem)
        _emit(work, "expire", found, deadlines, told.created_at)
    elif is_late and not is_refused and not _is_told(told.reminded_at, deadlines.remind_at):
        await store.mark_told(work.connection, found.credential_id, reminded_at=work.now)
        _emit(work, "remind", found, deadlines, told.created_at)
    return deadlines, is_refused


def _is_due(moment: datetime | None, now: datetime) -> bool:
    return moment is not None and now >= moment


def _is_told(told_at: datetime | None, moment: datetime | None) -> bool:
    return told_at is not None and moment is not None and told_at >= moment


def _emit(work: UnitOfWork, verb: str, found: Connection, deadlines: Deadlines, given_at: datetime) -> None:
    said = {
        "credential_id": str(found.credential_id),
        "access_key_id": found.access_key_id,
        "given_at": f"{given_at:%FT%TZ}",
        "refused_from": f"{deadlines.refused_from:%FT%TZ}" if deadlines.refused_from else "",
        "way_out": _WAY_OUT,
    }
    result = "FAILED" if verb == "expire" else "OK"
    work.emit(f"scanner.credential.{verb}", f"connections/{found.connection_id}", said, result)
