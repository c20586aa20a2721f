"""Commands of an auditor: asking the log for events."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import click

from recoup_client.session import Group, Session

_PAGE, _MOST = 500, 100_000


class Moment(click.ParamType[str]):
    """A day or a moment: 2026-03-01, 2026-03-01T08:30:00, or with an offset. UTC where it has none."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The moment as RFC 3339 in UTC."""
        try:
            at = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no moment such as 2026-03-01 or 2026-03-01T08:30:00Z", param, ctx)
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


@click.group(cls=Group)
def audit() -> None:
    """Ask the log what was done, by whom; erase what it must not say any more."""


@audit.command("events")
@click.option("--action", default="", help="this audit action, or all that start with it if it ends in a dot")
@click.option("--target", default="", help="what it was done to, such as actions/<id>")
@click.option("--actor", default="", help="who did it, such as user:<id> or spiffe://recoup/scanner-worker")
@click.option("--role", default="", help="under which role, such as FINOPS; SYSTEM for the mesh itself")
@click.option("--result", type=click.Choice(["OK", "DENIED", "FAILED"]), default=None, help="how it ended")
@click.option("--request", "request_id", default="", help="the request that caused it")
@click.option("--trace", "trace_id", default="", help="the trace that it belongs to, 32 hexadecimal digits")
@click.option("--from", "begins", type=Moment(), default=None, help="what happened at this moment or later (UTC)")
@click.option("--to", "ends", type=Moment(), default=None, help="what happened before this moment (UTC)")
@click.option("--limit", type=click.IntRange(1, _MOST), default=100, show_default=True, help="so many at most")
@click.option("--all", "everything", is_flag=True, help=f"all of them, up to {_MOST:,}")
@click.pass_obj
def audit_events(session: Session, /, limit: int, everything: bool, **chosen: Any) -> None:
    """List events, newest first. You see those that your role may see."""
    asked: dict[str, Any] = {
        "action": chosen["action"], "target": chosen["target"], "actor": chosen["actor"], "role": chosen["role"],
        "result": chosen["result"] or "", "requestId": chosen["request_id"], "traceId": chosen["trace_id"],
        "occurredAfter": chosen["begins"] or "", "occurredBefore": chosen["ends"] or "",
    }  # fmt: skip
    most = _MOST if everything else limit
    found, more = _collect(session, asked, most)
    if not found and not session.as_json:
        click.echo("no event that you may see matches")
        return
    rows = [
        (e["occurredAt"][:19].replace("T", " "), *(e[name] for name in ("action", "target", "result")), _actor(e),
         e["role"], e["eventId"])
        for e in found
    ]  # fmt: skip
    session.show({"events": found}, rows, "at (UTC)", "action", "target", "result", "by", "role", "event")
    if more:
        way = "narrow what you ask for" if everything else "ask for more with --limit or --all"
        click.echo(f"recoup: only the newest {len(found):,} are shown; {way}", err=True)


def _collect(session: Session, asked: dict[str, Any], most: int) -> tuple[list[dict[str, Any]], bool]:
    """So many events at most, page by page, and whether there are more."""
    found: list[dict[str, Any]] = []
    token = ""
    while True:
        page = session.call("GET", "/events", pageSize=min(_PAGE, most - len(found)), pageToken=token, **asked)
        found += page["events"]
        token = page["nextPageToken"]
        if not token or len(found) >= most:
            return found, bool(token)


def _actor(event: dict[str, Any]) -> str:
    """Who did it, from the payload; it says nothing any more where it was erased."""
    try:
        payload = json.loads(base64.b64decode(event["payload"]))
        return str(payload["actor"])
    except (ValueError, KeyError, TypeError):
        return "(erased)"
