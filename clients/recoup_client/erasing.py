"""Commands that make what a person did unreadable, and legal holds that keep it from happening."""

from __future__ import annotations

from typing import Any

import click

from recoup_client.rest import at
from recoup_client.session import Group, Session

_SUBJECT = "whose events: their actor, such as user:<id>"


@click.group(cls=Group)
def erase() -> None:
    """Make a person's events unreadable for good. It takes two people."""


@erase.command("request")
@click.argument("subject")
@click.option("--reason", required=True, help="why, without the person's name: it stands in the log")
@click.pass_obj
def erase_request(session: Session, subject: str, reason: str) -> None:
    """Ask that the events of SUBJECT, such as user:<id>, be made unreadable."""
    _show(session, session.call("POST", "/erasures", {"subject": subject, "reason": reason}))


@erase.command("approve")
@click.argument("erasure_id")
@click.option("--subject", required=True, help=_SUBJECT)
@click.option("--comment", default="", help="what there is to say about it")
@click.pass_obj
def erase_approve(session: Session, erasure_id: str, subject: str, comment: str) -> None:
    """Approve what somebody else asked for. It can't be taken back."""
    body = {"subject": subject, "comment": comment}
    _show(session, session.call("POST", at("/erasures/{}:approve", erasure_id), body))


@erase.command("reject")
@click.argument("erasure_id")
@click.option("--comment", required=True, help="why")
@click.pass_obj
def erase_reject(session: Session, erasure_id: str, comment: str) -> None:
    """Reject an erasure, or take one back."""
    _show(session, session.call("POST", at("/erasures/{}:reject", erasure_id), {"comment": comment}))


@erase.command("list")
@click.pass_obj
def erase_list(session: Session) -> None:
    """List erasures, newest first."""
    found = session.all("/erasures", "erasures")
    session.show(found, [_row(each) for each in found["erasures"]], *_COLUMNS)


@click.group(cls=Group)
def hold() -> None:
    """Legal holds: nothing that one covers is erased."""


@hold.command("place")
@click.option("--subject", default="", help=f"{_SUBJECT}; everybody's without it")
@click.option("--reason", required=True, help="why, without the person's name: it stands in the log")
@click.pass_obj
def hold_place(session: Session, subject: str, reason: str) -> None:
    """Place a legal hold on one subject, or on everybody."""
    found = session.call("POST", "/legalHolds", {"subject": subject, "reason": reason})
    session.show(found, [(found["legalHold"]["holdId"], subject or "everybody")], "hold", "covers")


@hold.command("release")
@click.argument("hold_id")
@click.option("--reason", required=True, help="why")
@click.pass_obj
def hold_release(session: Session, hold_id: str, reason: str) -> None:
    """Release a legal hold."""
    found = session.call("POST", at("/legalHolds/{}:release", hold_id), {"reason": reason})
    session.show(found, [(hold_id, found["legalHold"]["releasedAt"][:19])], "hold", "released at")


@hold.command("list")
@click.pass_obj
def hold_list(session: Session) -> None:
    """List legal holds, newest first."""
    found = session.all("/legalHolds", "legalHolds")
    rows = [
        (h["holdId"], h["subjectHash"][:16] or "everybody", (h.get("releasedAt") or "")[:19] or "stands", h["reason"])
        for h in found["legalHolds"]
    ]
    session.show(found, rows, "hold", "covers", "released at", "reason")


_COLUMNS = ("erasure", "subject", "state", "keys destroyed", "events", "reason")


def _show(session: Session, found: dict[str, Any]) -> None:
    session.show(found, [_row(found["erasure"])], *_COLUMNS)


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    state = found["state"].removeprefix("ERASURE_STATE_").lower() + (" (held)" if found["held"] else "")
    counts = (str(found["keysDestroyed"]), str(found["eventsErased"]))
    return found["erasureId"], found["subjectHash"][:16], state, *counts, found["reason"]
