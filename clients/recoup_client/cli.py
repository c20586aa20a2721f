"""The `recoup` command line: what a person does through the gateway. Other wheels add commands of their own.

Exit codes: 0 done, 1 refused or failed (the reason is on stderr), 2 wrong use, 3 the gateway can't be reached
(or what answers isn't one).
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

import click

from recoup_client import (
    auditing,
    browsers,
    connecting,
    connections,
    elevating,
    erasing,
    evidence,
    excepting,
    keks,
    keys,
    log,
    operating,
    organizations,
    posture,
    roles,
    rotating,
    savings,
    secrets,
    signing_in,
    tokens,
)
from recoup_client.members import member, role_of
from recoup_client.program import Program
from recoup_client.rest import at
from recoup_client.scim import scim
from recoup_client.session import Session


@click.group(cls=Program)
@click.option(
    "--gateway",
    envvar="RECOUP_GATEWAY",
    show_envvar=True,
    help="the gateway's address, such as https://recoup.example.com",
)
@click.option(
    "--ca",
    envvar="RECOUP_CA",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="a CA to trust besides the system's",
)
@click.option(
    "--token-file",
    envvar="RECOUP_TOKEN_FILE",
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="a session token",
)
@click.option("--org", envvar="RECOUP_ORG", show_envvar=True, help="the organization: its id or short name")
@click.option(
    "--elevation", envvar="RECOUP_ELEVATION", show_envvar=True, help="break-glass access to act under: its id"
)
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.version_option(package_name="recoup-client", message="recoup %(version)s", help="print the version")
@click.pass_context
def main(
    context: click.Context,
    gateway: str | None,
    ca: Path | None,
    token_file: Path | None,
    org: str | None,
    elevation: str | None,
    as_json: bool,
) -> None:
    """Recoup: find cloud spend that nobody needs.

    The session token, or an API token, comes from --token-file or the environment variable RECOUP_TOKEN.
    """
    context.obj = Session(gateway, ca, token_file, org, as_json, elevation)


@main.command()
@click.pass_obj
def orgs(session: Session) -> None:
    """List the organizations that you're a member of."""
    with session.rest() as rest:
        found = rest.call("GET", "/v1/me/organizations")
    rows = [
        (m["organization"]["slug"], m["organization"]["displayName"], m["role"].removeprefix("ROLE_"))
        for m in found["memberships"]
    ]
    session.show(found, rows, "name", "display name", "role")


@main.command()
@click.pass_obj
def members(session: Session) -> None:
    """List the organization's members."""
    found = session.all("/members", "members")
    session.show(found, [(m["email"], role_of(m), m["memberId"]) for m in found["members"]],
                 "e-mail", "role", "id")  # fmt: skip


@main.command()
@click.argument("connection_id")
@click.pass_obj
def verify(session: Session, connection_id: str) -> None:
    """Start the verification of a connection."""
    found = session.call("POST", at("/connections/{}:verify", connection_id), {})
    session.show(found, [(connection_id, found["connection"]["state"])], "connection", "state")


@main.group()
def scan() -> None:
    """Start scans and look at them."""


@scan.command("start")
@click.argument("connection_id")
@click.pass_obj
def scan_start(session: Session, connection_id: str) -> None:
    """Start a scan of a connection."""
    found = session.call("POST", "/scans", {"connectionId": connection_id})
    session.show(found, [(found["scan"]["scanId"], found["scan"]["state"])], "scan", "state")


@scan.command("list")
@click.pass_obj
def scan_list(session: Session) -> None:
    """List scans, newest first."""
    found = session.all("/scans", "scans")
    rows = [
        (s["scanId"], s["createdAt"][:19], s["state"].removeprefix("SCAN_STATE_"), str(s["resourcesSeen"]))
        for s in found["scans"]
    ]
    session.show(found, rows, "scan", "asked for at", "state", "resources")


@scan.command("show")
@click.argument("scan_id")
@click.pass_obj
def scan_show(session: Session, scan_id: str) -> None:
    """Show a scan with its completeness record."""
    found = session.call("GET", at("/scans/{}", scan_id))
    rows = [
        (u["account"], u["region"], u["api"], u["outcome"], str(u["resources"]), u["errorCode"])
        for u in found["scan"]["coverage"]
    ]
    session.show(found, rows, "account", "region", "listing", "outcome", "resources", "error")


@scan.command("watch")
@click.argument("scan_id")
@click.pass_obj
def scan_watch(session: Session, scan_id: str) -> None:
    """Follow a scan until it is over: a line each time that it got further."""
    for found in session.follow(at("/scans/{}:watch", scan_id)):
        made = found["scan"]
        session.say(found, f"{made['state'].removeprefix('SCAN_STATE_')} {made['resourcesSeen']} resources\n")


@main.command()
@click.option("--detection", default="", help="only this detection, such as aws.ebs.gp2")
@click.option("--suppressed", is_flag=True, help="those that an exception leaves alone, instead of the open ones")
@click.pass_obj
def findings(session: Session, detection: str, suppressed: bool) -> None:
    """List open findings, the largest saving first."""
    state = "FINDING_STATE_SUPPRESSED" if suppressed else ""
    found = session.all("/findings", "findings", detectionId=detection, state=state)
    rows = [
        (
            f["findingId"],
            f["detectionId"],
            f["resource"]["id"],
            f["resourceName"],
            f["monthlySaving"]["amount"] if f.get("monthlySaving") else "unknown",
        )
        for f in found["findings"]
    ]
    session.show(found, rows, "finding", "detection", "resource", "name", "USD a month")


@main.command()
@click.option("--region", default="us-east-1", show_default=True, help="where the prices hold")
@click.option("--prefix", default="", help="only units whose key starts with this, such as ebs.")
@click.pass_obj
def prices(session: Session, region: str, prefix: str) -> None:
    """List catalogue prices with their source."""
    found = session.all("/prices", "prices", region=region, skuPrefix=prefix)
    rows = [
        (p["sku"], p["unitPrice"]["amount"], p["unitPrice"]["currency"], p["unit"], p["sourceDate"])
        for p in found["prices"]
    ]
    session.show(found, rows, "unit", "price", "", "per", "as of")


@main.command()
@click.option("--action", default="", help="only this audit action, or all that start with it if it ends in a dot")
@click.pass_obj
def events(session: Session, action: str) -> None:
    """List the organization's events, newest first."""
    found = session.all("/events", "events", action=action)
    rows = [(e["index"], e["occurredAt"][:19], e["action"], e["target"], e["result"]) for e in found["events"]]
    session.show(found, rows, "leaf", "at", "action", "target", "result")


auditing.audit.add_command(erasing.erase)
organizations.org.add_command(posture.posture)
auditing.audit.add_command(erasing.hold)
for _command in (
    *savings.COMMANDS,
    auditing.audit,
    browsers.browser,
    connecting.connect,
    connections.connection,
    evidence.evidence,
    log.log,
    operating.init,
    operating.operator,
    elevating.elevate,
    elevating.review,
    roles.role,
    member,
    organizations.org,
    excepting.exception,
    keks.kek,
    rotating.credential,
    keys.key,
    secrets.secrets,
    scim,
    *tokens.COMMANDS,
    excepting.suppress,
    signing_in.sso,
):
    main.add_command(_command)
main.add_command(connections.connection_list, "connections")
main.others = {entry.name: entry for entry in entry_points(group="recoup.commands")}


if __name__ == "__main__":
    main()
