"""Commands about the installation: its first Admin, and operators in customers' organizations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from recoup_client.rest import WrongUse, at
from recoup_client.session import Command, Group, Session

_COLUMNS = ("access", "operator", "as", "state", "until", "reason")


@click.command(cls=Command)
@click.option("--email", required=True, help="the address that you sign in with")
@click.option("--init-token-file", type=click.Path(path_type=Path), help="where the operator's command wrote the token")
@click.pass_obj
def init(session: Session, email: str, init_token_file: Path | None) -> None:
    """Become the first Admin of a new installation, once.

    Its operator makes the token with `python -m services.identity.initialize`. It comes from --init-token-file or from
    the environment variable RECOUP_INIT_TOKEN, and holds for 15 minutes. Your session needs a second factor.
    """
    body = {"token": _init_token(init_token_file), "email": email}
    with session.rest() as rest:
        found = rest.call("POST", "/v1/installation:claim", body)
    made = found["organization"]
    session.show(found, [(made["slug"], made["organizationId"], "ADMIN")], "organization", "id", "your role")


def _init_token(file: Path | None) -> str:
    try:
        token = file.read_text("ascii").strip() if file else os.environ.get("RECOUP_INIT_TOKEN", "")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"the token file {file} can't be read") from error
    if not token:
        raise click.UsageError("give the operator's token: --init-token-file or RECOUP_INIT_TOKEN")
    return token


@click.group(cls=Group)
def operator() -> None:
    """Operators' access to an organization: only with its consent, for a time, in its own log."""


@operator.command("request")
@click.argument("organization_id")
@click.option(
    "--as", "role", type=click.Choice(["viewer", "auditor"]), default="viewer", show_default=True, help="the role there"
)
@click.option("--reason", required=True, help="why, for the customer to read: it stands in their log")
@click.option("--hours", type=click.IntRange(1, 24), default=4, show_default=True, help="for how long, once let in")
@click.pass_obj
def operator_request(session: Session, organization_id: str, role: str, reason: str, hours: int) -> None:
    """Ask ORGANIZATION_ID, a customer's, for access to it. For members of the platform."""
    path = at("/v1/platform/organizations/{}/operatorAccesses", organization_id)
    with session.rest() as rest:
        found = rest.call("POST", path, {"role": f"ROLE_{role.upper()}", "reason": reason, "hours": hours})
    _show(session, found)


@operator.command("list")
@click.pass_obj
def operator_list(session: Session) -> None:
    """List what operators asked for and got, newest first."""
    found = session.all("/operatorAccesses", "accesses")
    session.show(found, [_row(each) for each in found["accesses"]], *_COLUMNS)


@operator.command("grant")
@click.argument("access_id")
@click.option("--hours", type=click.IntRange(1, 24), help="for how long; as asked for without it")
@click.pass_obj
def operator_grant(session: Session, access_id: str, hours: int | None) -> None:
    """Let an operator in, from now on."""
    _show(session, session.call("POST", at("/operatorAccesses/{}:grant", access_id), {"hours": hours or 0}))


@operator.command("refuse")
@click.argument("access_id")
@click.pass_obj
def operator_refuse(session: Session, access_id: str) -> None:
    """Refuse what an operator asked for."""
    _show(session, session.call("POST", at("/operatorAccesses/{}:refuse", access_id), {}))


@operator.command("revoke")
@click.argument("access_id")
@click.pass_obj
def operator_revoke(session: Session, access_id: str) -> None:
    """End an operator's access at once."""
    _show(session, session.call("POST", at("/operatorAccesses/{}:revoke", access_id), {}))


def _show(session: Session, found: dict[str, Any]) -> None:
    session.show(found, [_row(found["access"])], *_COLUMNS)


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    state = found["state"].removeprefix("OPERATOR_ACCESS_STATE_").lower()
    role = found["role"].removeprefix("ROLE_").lower()
    until = (found.get("expiresAt") or "")[:19] or f"{found['hours']} h"
    return found["accessId"], found["operatorId"], role, state, until, found["reason"]
