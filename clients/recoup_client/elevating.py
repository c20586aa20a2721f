"""Commands for break-glass access and for reviews of what was granted beyond the rule."""

from __future__ import annotations

from typing import Any

import click

from recoup_client.auditing import Moment
from recoup_client.rest import at
from recoup_client.session import Group, Session


@click.group(cls=Group)
def elevate() -> None:
    """Break-glass: permissions beyond your role's, for an hour at most. Somebody else reviews each use.

    Act under it with --elevation ID (or RECOUP_ELEVATION), in the session that asked for it.
    """


@elevate.command("request")
@click.argument("permissions", nargs=-1, required=True)
@click.option("--reason", required=True, help="why, without anybody's name: it stands in the log")
@click.option("--minutes", type=click.IntRange(1, 60), default=30, show_default=True, help="for how long")
@click.pass_obj
def elevate_request(session: Session, permissions: tuple[str, ...], reason: str, minutes: int) -> None:
    """Take PERMISSIONS, such as audit.hold.release, that your role lacks."""
    body = {"permissions": list(permissions), "reason": reason, "minutes": minutes}
    found = session.call("POST", "/elevations", body)
    _show(session, found)
    click.echo(f"act under it: recoup --elevation {found['elevation']['elevationId']} ...", err=True)


@elevate.command("list")
@click.option(
    "--state", type=click.Choice(("active", "expired", "ended")), default=None, help="only those in this state"
)
@click.pass_obj
def elevate_list(session: Session, state: str | None) -> None:
    """List who took break-glass access, newest first."""
    found = session.all("/elevations", "elevations", state=f"ELEVATION_STATE_{state.upper()}" if state else "")
    session.show(found, [_row(each) for each in found["elevations"]], *_COLUMNS)


@elevate.command("end")
@click.argument("elevation_id")
@click.pass_obj
def elevate_end(session: Session, elevation_id: str) -> None:
    """End break-glass access at once, yours or anybody's."""
    _show(session, session.call("POST", at("/elevations/{}:end", elevation_id), {}))


_COLUMNS = ("elevation", "who", "state", "from", "until", "permissions", "reason", "review")


def _show(session: Session, found: dict[str, Any]) -> None:
    session.show(found, [_row(found["elevation"])], *_COLUMNS)


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    return (
        found["elevationId"],
        found["holder"],
        found["state"].removeprefix("ELEVATION_STATE_").lower(),
        found["beginsAt"][:19],
        (found.get("endedAt") or found["expiresAt"])[:19],
        " ".join(found["permissions"]),
        found["reason"],
        found["reviewId"],
    )


@click.group(cls=Group)
def review() -> None:
    """Reviews of break-glass access and of exceptions. Nobody decides about themselves."""


@review.command("list")
@click.option("--state", type=click.Choice(("open", "overdue", "decided")), default=None, help="only those")
@click.pass_obj
def review_list(session: Session, state: str | None) -> None:
    """List reviews, newest first."""
    found = session.all("/reviews", "reviews", state=f"REVIEW_STATE_{state.upper()}" if state else "")
    session.show(found, [_review_row(each) for each in found["reviews"]], *_REVIEW_COLUMNS)


@review.command("show")
@click.argument("review_id")
@click.pass_obj
def review_show(session: Session, review_id: str) -> None:
    """Show one review."""
    _show_review(session, session.call("GET", at("/reviews/{}", review_id)))


@review.command("decide")
@click.argument("review_id")
@click.argument("verdict", type=click.Choice(("justified", "unjustified", "renew", "end")))
@click.option("--note", required=True, help="what there is to say, without anybody's name: it stands in the log")
@click.option("--until", type=Moment(), default=None, help="with renew: when the exception expires now (UTC)")
@click.pass_obj
def review_decide(session: Session, review_id: str, verdict: str, note: str, until: str | None) -> None:
    """Decide a review, for good: break-glass was justified or not, an exception is renewed or ends."""
    body = {"verdict": f"REVIEW_VERDICT_{verdict.upper()}", "note": note, **({"renewedUntil": until} if until else {})}
    _show_review(session, session.call("POST", at("/reviews/{}:decide", review_id), body))


_REVIEW_COLUMNS = ("review", "of", "about", "state", "due", "verdict", "by", "note")


def _show_review(session: Session, found: dict[str, Any]) -> None:
    session.show(found, [_review_row(found["review"])], *_REVIEW_COLUMNS)


def _review_row(found: dict[str, Any]) -> tuple[str, ...]:
    verdict = found["verdict"].removeprefix("REVIEW_VERDICT_").lower()
    return (
        found["reviewId"],
        found["target"],
        found["subjectPerson"],
        found["state"].removeprefix("REVIEW_STATE_").lower(),
        found["dueAt"][:19],
        "" if verdict == "unspecified" else verdict,
        found["reviewer"],
        found["note"],
    )
