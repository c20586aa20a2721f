"""Commands about the organization's own keys, for webhooks and AI providers. What is generated is shown once."""

from __future__ import annotations

from typing import Any

import click

from recoup_client.given import secret_text
from recoup_client.rest import WrongUse, at
from recoup_client.session import Group, Session

_PURPOSES = ("webhook", "ai")
_COLUMNS = ("key", "purpose", "name", "state", "since", "ends at")
MOST_OVERLAP_HOURS = 168


@click.group(cls=Group)
def key() -> None:
    """The organization's own keys, for webhooks and AI providers, which nobody reads again."""


@key.command("create")
@click.argument("purpose", type=click.Choice(_PURPOSES))
@click.argument("name")
@click.option("--given", is_flag=True, help="read the key from stdin; always so with ai")
@click.pass_obj
def key_create(session: Session, purpose: str, name: str, given: bool) -> None:
    """Keep a key called NAME. A webhook key is generated and printed: this once, on stdout alone."""
    secret = _from_stdin() if given or purpose == "ai" else ""
    body = {"purpose": f"KEY_PURPOSE_{purpose.upper()}", "name": name, "secret": secret}
    _show(session, session.call("POST", "/keys", body))


@key.command("list")
@click.pass_obj
def key_list(session: Session) -> None:
    """List the organization's own keys."""
    found = session.all("/keys", "keys")
    session.show(found, [_row(each) for each in found["keys"]], *_COLUMNS)


@key.command("rotate")
@click.argument("key_id")
@click.option(
    "--overlap-hours",
    type=click.IntRange(0, MOST_OVERLAP_HOURS),
    default=24,
    show_default=True,
    help="how long the old one goes on",
)
@click.option("--given", is_flag=True, help="read the new key from stdin; needed for an AI provider's")
@click.pass_obj
def key_rotate(session: Session, key_id: str, overlap_hours: int, given: bool) -> None:
    """Keep the successor of KEY_ID. Webhooks are signed with both until the old one ends."""
    body = {"overlapHours": overlap_hours, "secret": _from_stdin() if given else ""}
    found = session.call("POST", at("/keys/{}:rotate", key_id), body)
    _show(session, found)
    click.echo(f"recoup: the old one ends at {found['replaced']['endsAt'][:19]}", err=True)


@key.command("revoke")
@click.argument("key_id")
@click.pass_obj
def key_revoke(session: Session, key_id: str) -> None:
    """End a key at once, for good."""
    found = session.call("POST", at("/keys/{}:revoke", key_id), {})
    session.show(found, [_row(found["key"])], *_COLUMNS)


def _from_stdin() -> str:
    """A key, never an argument: those are seen by whoever lists processes."""
    text = secret_text("-", "the key").removesuffix("\n")
    if not text:
        raise WrongUse("nothing came on stdin: give the key there")
    return text


def _show(session: Session, found: dict[str, Any]) -> None:
    """A new key and what was generated: with --json in the answer, without it on a line of its own."""
    secret = found.get("secret", "")
    if session.as_json or not secret:
        session.show(found, [_row(found["key"])], *_COLUMNS)
        return
    click.echo(secret)
    click.echo(f"recoup: keep it now, it isn't shown again; this is key {found['key']['keyId']}", err=True)


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    purpose, state = (found[name].rpartition("_")[2].lower() for name in ("purpose", "state"))
    ends_at = (found.get("endsAt") or "")[:19]
    return found["keyId"], purpose, found["name"], state, found["createdAt"][:19], ends_at
