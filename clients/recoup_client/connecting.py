"""Commands to connect a cloud: what it must be asked to allow, and how a connection stands."""

from __future__ import annotations

import click

from recoup_client.rest import at
from recoup_client.session import Group, Session

_FORMATS = ("json", "terraform", "cloudformation")


@click.group(cls=Group)
def connect() -> None:
    """Connect clouds, read-only first."""


@connect.command("aws")
@click.option("--print-policy", is_flag=True, required=True, help="print the roles that the account must have")
@click.option("--format", "style", type=click.Choice(_FORMATS), default="json", help="how the roles are written")
@click.option("--for", "chosen", multiple=True, metavar="ACTION_TYPE", help="allow this too; may be repeated")
@click.option("--principal", default="", help="the ARN of the base user that assumes the roles")
@click.option("--bill", default="", metavar="BUCKET/PREFIX", help="let the bill export be read from there")
@click.pass_obj
def connect_aws(
    session: Session, print_policy: bool, style: str, chosen: tuple[str, ...], principal: str, bill: str
) -> None:
    """Print the least that Recoup needs in an AWS account: the roles, whom they let in, and what they may do.

    Without --for it is reading only.
    """
    bucket, _, prefix = bill.partition("/")
    body = {
        "format": f"POLICY_FORMAT_{style.upper()}",
        "actionTypes": list(chosen),
        "principalArn": principal,
        "billBucket": bucket,
        "billPrefix": prefix.rstrip("/"),
    }
    found = session.call("POST", "/connectionPlans", body)
    session.say(found, found["document"])


@connect.command("check")
@click.argument("connection_id")
@click.pass_obj
def connect_check(session: Session, connection_id: str) -> None:
    """Start a check of an accepted connection. `recoup connect show` says what came of it."""
    found = session.call("POST", at("/connections/{}:check", connection_id), {})
    checked_at = found["connection"].get("checkedAt") or "never"
    session.show(found, [(connection_id, checked_at[:19])], "connection", "checked before at")


@connect.command("show")
@click.argument("connection_id")
@click.pass_obj
def connect_show(session: Session, connection_id: str) -> None:
    """Show how a connection stood at its last check, permission by permission, with what to do."""
    found = session.call("GET", at("/connections/{}", connection_id))
    connection = found["connection"]
    rows = [(c["roleArn"], c["permission"], c["outcome"], c["fix"]) for c in connection["permissionChecks"]]
    wrong = connection["problem"]
    roles = [(c["roleArn"], "sts:AssumeRole", c["withExternalId"], wrong) for c in connection["roleChecks"]]
    session.show(found, [*roles, *rows], "role", "permission", "outcome", "what to do")


@connect.command("static-keys")
@click.argument("choice", type=click.Choice(("allowed", "forbidden")))
@click.pass_obj
def connect_static_keys(session: Session, choice: str) -> None:
    """Say whether connections may be made with long-lived cloud keys. Those that are there keep theirs."""
    found = session.call("POST", "/staticKeys", {"staticKeys": f"STATIC_KEYS_{choice.upper()}"})
    session.show(found, [(choice,)], "long-lived keys")
