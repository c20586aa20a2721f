"""Commands about connections that are there: how they stand, permission by permission, and their end."""

from __future__ import annotations

import time
from typing import Any

import click

from recoup_client.rest import GatewayRefused, GatewayUnreachable, at
from recoup_client.session import Group, Session

_COLUMNS = ("scope", "permission", "outcome", "what to do")
# How often is looked, how often is said that it goes on, and how long a check is waited for.
_PAUSE_SECONDS, _SAID_SECONDS, _LONGEST_SECONDS = 1.0, 5.0, 600.0


@click.group(cls=Group)
def connection() -> None:
    """Connected clouds: how they stand, and their end."""


@connection.command("list")
@click.pass_obj
def connection_list(session: Session) -> None:
    """List connected clouds."""
    found = session.all("/connections", "connections")
    rows = [
        (c["connectionId"], c["displayName"], c["provider"], _state(c), (c.get("checkedAt") or "")[:19], c["problem"])
        for c in found["connections"]
    ]
    session.show(found, rows, "id", "name", "cloud", "state", "checked at", "problem")


@connection.command("show")
@click.argument("connection_id")
@click.pass_obj
def connection_show(session: Session, connection_id: str) -> None:
    """Show how a connection stood at its last check, permission by permission, with what to do."""
    show(session, session.call("GET", at("/connections/{}", connection_id)))


@connection.command("check")
@click.argument("connection_id")
@click.option("--no-wait", is_flag=True, help="start the check, and don't wait for it")
@click.pass_obj
def connection_check(session: Session, connection_id: str, no_wait: bool) -> None:
    """Check a connection now: one that isn't accepted yet is verified; of one that is, scans go on meanwhile."""
    before = session.call("GET", at("/connections/{}", connection_id))["connection"]
    found = start(session, before)
    if no_wait:
        show(session, found)
        return
    end(session, wait(session, before))


@connection.command("remove")
@click.argument("connection_id")
@click.pass_obj
def connection_remove(session: Session, connection_id: str) -> None:
    """Switch a connection off for good: no scan and no action uses it, and its credential is revoked."""
    found = remove(session, connection_id)
    session.show(found, [(connection_id, _state(found["connection"]))], "connection", "state")


def start(session: Session, before: dict[str, Any]) -> dict[str, Any]:
    """Have a connection checked: verified, where it isn't accepted yet."""
    verb = "check" if before["state"] == "CONNECTION_STATE_ACTIVE" else "verify"
    return session.call("POST", at("/connections/{}:" + verb, before["connectionId"]), {})


def wait(session: Session, before: dict[str, Any]) -> dict[str, Any]:
    """The connection once the check that was started is over; says on stderr that it goes on.

    Raises click.ClickException where it takes too long: it goes on by itself.
    """
    connection_id, began = before["connectionId"], time.monotonic()
    said = began
    while True:
        found = session.call("GET", at("/connections/{}", connection_id))
        now = found["connection"]
        # A verification that was given up leaves no time; a check of one that is accepted leaves its state.
        is_news = before["state"] != "CONNECTION_STATE_ACTIVE" or now.get("checkedAt") != before.get("checkedAt")
        if now["state"] != "CONNECTION_STATE_VERIFYING" and is_news:
            return found
        seconds = time.monotonic() - began
        if seconds > _LONGEST_SECONDS:
            raise click.ClickException(f"the check goes on; see recoup connection show {connection_id}")
        if time.monotonic() - said >= _SAID_SECONDS:
            said = time.monotonic()
            click.echo(f"recoup: being checked for {seconds:.0f} s", err=True)
        time.sleep(_PAUSE_SECONDS)


def remove(session: Session, connection_id: str) -> dict[str, Any]:
    """Switch a connection off, as it stands now."""
    etag = session.call("GET", at("/connections/{}", connection_id))["connection"]["etag"]
    return session.call("POST", at("/connections/{}:disable", connection_id), {"etag": etag})


def make(session: Session, body: dict[str, Any], *, keep: bool, federated: bool = False) -> None:
    """Connect, check, and show what came of it. What isn't accepted is removed, unless it is to be kept.

    One that the cloud is to trust is shown instead: the trust has to be made first.
    """
    found = session.call("POST", "/connections", body)
    made = found["connection"]
    connection_id = made["connectionId"]
    if federated:
        rows = [(name, made["federation"][name]) for name in ("issuer", "subject", "audience")]
        session.show(found, rows, "to be trusted", "")
        click.echo(f"recoup: make that trust within 7 days, then: recoup connection check {connection_id}", err=True)
        return
    click.echo(f"recoup: connection {connection_id} is made, and being checked", err=True)
    try:
        start(session, made)
        found = wait(session, made)
    except BaseException:
        _take_back(session, connection_id, keep)
        raise
    if found["connection"]["state"] != "CONNECTION_STATE_ACTIVE":
        _take_back(session, connection_id, keep)
    end(session, found)


def _take_back(session: Session, connection_id: str, keep: bool) -> None:
    """Leave no half-made connection behind, and say so; or say what stays, and how it goes on."""
    if keep:
        click.echo(f"recoup: it stays for 7 days: recoup connection check {connection_id}", err=True)
        return
    try:
        remove(session, connection_id)
    except (GatewayRefused, GatewayUnreachable) as error:
        click.echo(f"recoup: it stays ({error}): recoup connection remove {connection_id}", err=True)
    else:
        click.echo("recoup: it isn't accepted, so it was removed with its credential; connect again", err=True)


def end(session: Session, found: dict[str, Any]) -> None:
    """Show a checked connection. Raises click.ClickException where it isn't in order."""
    show(session, found)
    problem = found["connection"]["problem"]
    if problem or found["connection"]["state"] != "CONNECTION_STATE_ACTIVE":
        raise click.ClickException(problem or f"the connection is {_state(found['connection'])}")


def show(session: Session, found: dict[str, Any]) -> None:
    """A connection, permission by permission."""
    connection = found["connection"]
    rows = [(c["roleArn"], c["permission"], c["outcome"], c["fix"]) for c in connection["permissionChecks"]]
    wrong = connection["problem"]
    entry = "sts:AssumeRole" if connection["provider"] == "aws" else "(getting in)"
    roles = [
        (c["roleArn"], entry, c["withExternalId"], "" if c["withExternalId"] == "ALLOWED" else wrong)
        for c in connection["roleChecks"]
    ]
    seen = [(s["scopeId"], "(could be read)", "", s["displayName"]) for s in connection["discovered"]]
    session.show(found, [("", "", _state(connection), wrong), *roles, *rows, *seen], *_COLUMNS)


def _state(connection: dict[str, Any]) -> str:
    return str(connection["state"]).removeprefix("CONNECTION_STATE_")
