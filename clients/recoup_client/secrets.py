"""Commands about how an organization's sealed credentials stand."""

from __future__ import annotations

from typing import Any

import click

from recoup_client.session import Group, Session

_DAYS = ("since", "last used", "rotated", "refused from", "moved")
_COLUMNS = ("connection", "purpose", "standing", "days old", *_DAYS, "key", "problem, or uses")


@click.group(cls=Group)
def secrets() -> None:
    """The organization's sealed credentials, of which nobody sees more than how they stand."""


@secrets.command("posture")
@click.pass_obj
def secrets_posture(session: Session) -> None:
    """Show the oldest credentials, the keys that they are under, and what couldn't be moved."""
    found = session.call("GET", "/secretsPosture")
    rows = [
        (
            each.get("connectionId") or "the organization's",
            each.get("purpose", ""),
            (each.get("standing") or "").removeprefix("CREDENTIAL_STANDING_").replace("_", " ").lower(),
            str(each.get("ageDays", 0)),
            *(_day(each.get(name)) for name in ("createdAt", "lastUsedAt", "rotatedAt", "refusedFrom", "rewrappedAt")),
            each["kek"],
            each.get("problem", ""),
        )
        for each in found.get("credentials", [])
    ]
    rows += [_of_kek(each) for each in found.get("keks", [])]
    for each in found.get("decryptFailures", []):
        rows.append(
            ("(broker)", *[""] * 4, _day(each["lastAt"]), *[""] * 4, f"{each['reason']}: {each['count']} times")
        )
    session.show(found, rows, *_COLUMNS)


def _of_kek(each: dict[str, Any]) -> tuple[str, ...]:
    counted = f"{each.get('credentials', 0)} credentials, {each.get('backups', 0)} backups"
    state = (each.get("state") or "").removeprefix("KEK_STATE_").replace("UNSPECIFIED", "").lower()
    days = (_day(each.get("registeredAt")), _day(each.get("lastUsedAt")))
    return ("(key)", "", state, "", *days, "", "", "", each["kek"], counted)


def _day(moment: str | None) -> str:
    return (moment or "")[:10]
