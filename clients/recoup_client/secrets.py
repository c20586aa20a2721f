"""Commands about how an organization's sealed credentials stand."""

from __future__ import annotations

import click

from recoup_client.session import Group, Session


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
            str(each.get("ageDays", 0)),
            each["createdAt"][:10],
            (each.get("rewrappedAt") or "")[:10],
            each["kek"],
            each.get("problem", ""),
        )
        for each in found.get("credentials", [])
    ]
    for each in found.get("keks", []):
        counted = f"{each.get('credentials', 0)} credentials, {each.get('backups', 0)} backups"
        rows.append(("(all)", "", "", "", "", each["kek"], counted))
    session.show(found, rows, "connection", "purpose", "days old", "since", "moved", "key", "problem, or uses")
