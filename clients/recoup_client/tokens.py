"""Commands about API tokens and service accounts. A token's text is printed once, when it is made."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from recoup_client.rest import WrongUse, at
from recoup_client.session import Group, Session

MOST_DAYS, MOST_OVERLAP_HOURS = 365, 72
_TOKEN_COLUMNS = ("token", "name", "begins with", "acts as", "state", "expires at", "last used at", "permissions")
_ACCOUNT_COLUMNS = ("service account", "name", "owner", "state")


@click.group(cls=Group)
def token() -> None:
    """API tokens: what programs sign in with, instead of a person's session."""


@token.command("create")
@click.argument("name")
@click.option("--permission", "permissions", multiple=True, required=True, help="what it may do; may be repeated")
@click.option("--days", type=click.IntRange(1, MOST_DAYS), default=90, show_default=True, help="when it ends")
@click.option("--connection", "connections", multiple=True, help="limit it to a connection; may be repeated")
@click.option("--service-account", default="", help="the service account that acts with it; without it, you do")
@click.pass_obj
def token_create(
    session: Session,
    name: str,
    permissions: tuple[str, ...],
    days: int,
    connections: tuple[str, ...],
    service_account: str,
) -> None:
    """Create an API token called NAME, and print its text: this once, on stdout alone."""
    body = {
        "displayName": name,
        "permissions": list(permissions),
        "connectionIds": list(connections),
        "serviceAccountId": service_account,
        "expiresAt": _in_days(days),
    }
    _show_secret(session, session.call("POST", "/tokens", body))


@token.command("list")
@click.option("--service-account", default="", help="only those of this service account")
@click.pass_obj
def token_list(session: Session, service_account: str) -> None:
    """List API tokens: your own, or everybody's if you may see them."""
    found = session.all("/tokens", "tokens", serviceAccountId=service_account)
    session.show(found, [_token_row(each) for each in found["tokens"]], *_TOKEN_COLUMNS)


@token.command("rotate")
@click.argument("token_id")
@click.option(
    "--overlap-hours",
    type=click.IntRange(0, MOST_OVERLAP_HOURS),
    default=24,
    show_default=True,
    help="how long the old one goes on",
)
@click.option("--days", type=click.IntRange(1, MOST_DAYS), help="when the new one ends; without it, it lives as long")
@click.pass_obj
def token_rotate(session: Session, token_id: str, overlap_hours: int, days: int | None) -> None:
    """Create the successor of TOKEN_ID, and print its text: this once, on stdout alone."""
    body: dict[str, Any] = {"overlapHours": overlap_hours}
    if days is not None:
        body["expiresAt"] = _in_days(days)
    found = session.call("POST", at("/tokens/{}:rotate", token_id), body)
    _show_secret(session, found)
    click.echo(f"recoup: the old one ends at {found['replaced']['expiresAt'][:19]}", err=True)


@token.command("revoke")
@click.argument("token_id")
@click.pass_obj
def token_revoke(session: Session, token_id: str) -> None:
    """End an API token at once."""
    found = session.call("POST", at("/tokens/{}:revoke", token_id), {})
    session.show(found, [_token_row(found["token"])], *_TOKEN_COLUMNS)


@click.group("service-account", cls=Group)
def service_account() -> None:
    """Service accounts: machines, each with a member who answers for it."""


@service_account.command("create")
@click.argument("name")
@click.option("--owner", default="", help="the member who answers for it, by their user id; without it, you do")
@click.pass_obj
def account_create(session: Session, name: str, owner: str) -> None:
    """Create a service account called NAME."""
    _show_account(session, session.call("POST", "/serviceAccounts", {"displayName": name, "ownerUserId": owner}))


@service_account.command("list")
@click.pass_obj
def account_list(session: Session) -> None:
    """List service accounts."""
    found = session.all("/serviceAccounts", "serviceAccounts")
    session.show(found, [_account_row(each) for each in found["serviceAccounts"]], *_ACCOUNT_COLUMNS)


@service_account.command("update")
@click.argument("service_account_id")
@click.option("--name", default="", help="what people shall call it")
@click.option("--owner", default="", help="the member who shall answer for it, by their user id")
@click.pass_obj
def account_update(session: Session, service_account_id: str, name: str, owner: str) -> None:
    """Rename a service account, or have another member answer for it."""
    found = session.all("/serviceAccounts", "serviceAccounts")["serviceAccounts"]
    known = next((each for each in found if each["serviceAccountId"] == service_account_id), None)
    if known is None:
        raise WrongUse(f"there is no service account {service_account_id}; `recoup service-account list` shows them")
    body = {"displayName": name, "ownerUserId": owner, "etag": known["etag"]}
    _show_account(session, session.call("PATCH", at("/serviceAccounts/{}", service_account_id), body))


@service_account.command("disable")
@click.argument("service_account_id")
@click.pass_obj
def account_disable(session: Session, service_account_id: str) -> None:
    """End a service account and all its tokens, for good."""
    _show_account(session, session.call("POST", at("/serviceAccounts/{}:disable", service_account_id), {}))


COMMANDS = (token, service_account)


def _in_days(days: int) -> str:
    # A minute less than the most that is allowed: the gateway's clock isn't ours.
    return f"{datetime.now(UTC) + timedelta(days=days) - timedelta(minutes=1):%Y-%m-%dT%H:%M:%SZ}"


def _show_secret(session: Session, found: dict[str, Any]) -> None:
    """The text on stdout, where a program takes it from; the rest, with the warning, on stderr."""
    text, made = found["secret"], found["token"]
    session.say({"token": text, **{k: v for k, v in made.items() if k != "hint"}}, f"{text}\n")
    click.echo(
        f"recoup: token {made['tokenId']} ends at {made['expiresAt'][:19]}. Its text is shown this once: keep it where"
        " secrets are kept. Whoever has it can do what it may.",
        err=True,
    )


def _show_account(session: Session, found: dict[str, Any]) -> None:
    session.show(found, [_account_row(found["serviceAccount"])], *_ACCOUNT_COLUMNS)


def _token_row(found: dict[str, Any]) -> tuple[str, ...]:
    machine = found["serviceAccountId"]
    return (
        found["tokenId"],
        found["displayName"],
        found["hint"],
        f"service:{machine}" if machine else f"token of {found['creatorUserId']}",
        found["state"].removeprefix("TOKEN_STATE_").lower(),
        found["expiresAt"][:19],
        (found.get("lastUsedAt") or "never")[:19],
        " ".join(found["permissions"]),
    )


def _account_row(found: dict[str, Any]) -> tuple[str, ...]:
    state = found["state"].removeprefix("SERVICE_ACCOUNT_STATE_").lower()
    return found["serviceAccountId"], found["displayName"], found["ownerUserId"], state
