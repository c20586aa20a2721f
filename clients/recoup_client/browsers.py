"""Commands about one's own browser sessions: where one is signed in to the dashboard."""

from __future__ import annotations

import click

from recoup_client.rest import at
from recoup_client.session import Group, Session


@click.group(cls=Group)
def browser() -> None:
    """Browser sessions: where you are signed in to the dashboard."""


@browser.command("list")
@click.pass_obj
def browser_list(session: Session) -> None:
    """List your browser sessions that were made in the organization and are alive, the newest first."""
    found = session.call("GET", "/browserSessions")
    rows = [
        (each["sessionId"], each["createdAt"][:19], each["usedAt"][:19], each["expiresAt"][:19], f"aal{each['aal']}")
        for each in found["sessions"]
    ]
    session.show(found, rows, "session", "made at", "last used at", "ends at", "assurance")


@browser.command("end")
@click.argument("session_id")
@click.pass_obj
def browser_end(session: Session, session_id: str) -> None:
    """End SESSION_ID of yours, and the sign-in that it was made of."""
    found = session.call("DELETE", at("/browserSessions/{}", session_id))
    session.show(found, [(session_id, "ended")], "session", "")
