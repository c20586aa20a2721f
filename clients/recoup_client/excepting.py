"""Commands for exceptions: what a rule would forbid or show, left alone for a while, for a reason."""

from __future__ import annotations

from typing import Any

import click

from recoup_client.auditing import Moment
from recoup_client.rest import at
from recoup_client.session import Command, Group, Session

_KINDS = ("suppression", "policy-override", "access")
_STATES = ("active", "due", "expired", "overdue", "ended")


@click.group(cls=Group)
def exception() -> None:
    """Exceptions. Each expires; before that somebody else than its owner reviews it (recoup review)."""


@exception.command("create")
@click.argument("target")
@click.option("--kind", type=click.Choice(_KINDS), required=True, help="what it is from")
@click.option("--reason", required=True, help="why, without anybody's name: it stands in the log")
@click.option("--until", type=Moment(), required=True, help="when it expires (UTC), a year ahead at most")
@click.option("--reviewer", multiple=True, help="who is asked to review it: a member's user id; may be repeated")
@click.pass_obj
def exception_create(
    session: Session, target: str, kind: str, reason: str, until: str, reviewer: tuple[str, ...]
) -> None:
    """Make an exception about TARGET, such as policies/<id>."""
    body = {
        "kind": f"EXCEPTION_KIND_{kind.upper().replace('-', '_')}",
        "target": target,
        "reason": reason,
        "expiresAt": until,
        "reviewers": list(reviewer),
    }
    _show(session, session.call("POST", "/exceptions", body))


@exception.command("list")
@click.option("--state", type=click.Choice(_STATES), default=None, help="only those in this state")
@click.option("--target", default="", help="only those about this")
@click.pass_obj
def exception_list(session: Session, state: str | None, target: str) -> None:
    """List exceptions, newest first."""
    chosen = f"EXCEPTION_STATE_{state.upper()}" if state else ""
    found = session.all("/exceptions", "exceptions", state=chosen, target=target)
    session.show(found, [_row(each) for each in found["exceptions"]], *_COLUMNS)


@exception.command("show")
@click.argument("exception_id")
@click.pass_obj
def exception_show(session: Session, exception_id: str) -> None:
    """Show one exception."""
    _show(session, session.call("GET", at("/exceptions/{}", exception_id)))


@exception.command("end")
@click.argument("exception_id")
@click.option("--reason", required=True, help="why, without anybody's name: it stands in the log")
@click.pass_obj
def exception_end(session: Session, exception_id: str, reason: str) -> None:
    """End an exception at once, yours or anybody's."""
    _show(session, session.call("POST", at("/exceptions/{}:end", exception_id), {"reason": reason}))


@click.command(cls=Command)
@click.argument("finding_id")
@click.option("--reason", required=True, help="why, without anybody's name: it stands in the log")
@click.option("--until", type=Moment(), required=True, help="when it is open again (UTC), a year ahead at most")
@click.option("--reviewer", multiple=True, help="who is asked to review it: a member's user id; may be repeated")
@click.pass_obj
def suppress(session: Session, finding_id: str, reason: str, until: str, reviewer: tuple[str, ...]) -> None:
    """Leave a finding alone until a date, by an exception. To take it back, end that: recoup exception end."""
    body = {"reason": reason, "expiresAt": until, "reviewers": list(reviewer)}
    found = session.call("POST", at("/findings/{}:suppress", finding_id), body)
    finding = found["finding"]
    rows = [(finding_id, finding["exceptionId"], finding["suppressedUntil"][:19])]
    session.show(found, rows, "finding", "exception", "until")


_COLUMNS = ("exception", "kind", "about", "state", "until", "owner", "reason")


def _show(session: Session, found: dict[str, Any]) -> None:
    session.show(found, [_row(found["exception"])], *_COLUMNS)


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    return (
        found["exceptionId"],
        found["kind"].removeprefix("EXCEPTION_KIND_").lower().replace("_", "-"),
        found["target"],
        found["state"].removeprefix("EXCEPTION_STATE_").lower(),
        (found.get("endedAt") or found["expiresAt"])[:19],
        found["owner"],
        found["reason"],
    )
