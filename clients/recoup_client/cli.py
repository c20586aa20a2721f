"""The `recoup` command line: what a person does through the gateway. Other wheels add commands of their own.

Exit codes: 0 done, 1 refused or failed (the reason is on stderr), 2 wrong use, 3 the gateway can't be reached.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recoup_client.rest import GatewayRefused, GatewayUnreachable, Rest

EXIT_REFUSED, EXIT_UNREACHABLE = 1, 3
# A cloud's names are hostile input: what could move a terminal's cursor is shown as a question mark.
_PRINTABLE = {ord(c): "?" for c in map(chr, range(32))} | {127: "?", 0x9B: "?"}


@click.group()
@click.option("--gateway", envvar="RECOUP_GATEWAY", help="the gateway's address, such as https://recoup.example.com")
@click.option("--ca", envvar="RECOUP_CA", type=click.Path(path_type=Path), help="a CA to trust besides the system's")
@click.option("--token-file", envvar="RECOUP_TOKEN_FILE", type=click.Path(path_type=Path), help="a session token")
@click.option("--org", envvar="RECOUP_ORG", help="the organization: its id or short name")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.pass_context
def main(
    context: click.Context,
    gateway: str | None,
    ca: Path | None,
    token_file: Path | None,
    org: str | None,
    as_json: bool,
) -> None:
    """Recoup: find cloud spend that nobody needs.

    The session token comes from --token-file or the environment variable RECOUP_TOKEN.
    """
    context.obj = Session(gateway, ca, token_file, org, as_json)


class Session:
    """What the options say, turned into a client when a command first needs one."""

    def __init__(
        self, gateway: str | None, ca: Path | None, token_file: Path | None, org: str | None, as_json: bool
    ) -> None:
        self._gateway, self._ca, self._token_file, self._org = gateway, ca, token_file, org
        self.as_json = as_json

    def rest(self) -> Rest:
        """The client. Ends the command with 2 when an option is missing."""
        if not self._gateway:
            raise click.UsageError("say where the gateway is: --gateway or RECOUP_GATEWAY")
        token = self._token_file.read_text().strip() if self._token_file else os.environ.get("RECOUP_TOKEN", "")
        if not token:
            raise click.UsageError("sign in first: --token-file or RECOUP_TOKEN")
        return Rest(self._gateway, token, self._ca)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **parameters: Any) -> dict[str, Any]:
        """One call about the organization; a refusal ends the command."""
        with self.rest() as rest:
            organization_id = self._organization(rest)
            given = {key: value for key, value in parameters.items() if value != ""}
            return _told(lambda: rest.call(method, f"/v1/organizations/{organization_id}{path}", body, given))

    def _organization(self, rest: Rest) -> str:
        """The organization's id: as given, by its short name, or the only one that there is."""
        if self._org and "-" in self._org and len(self._org) == 36:
            return self._org
        mine = _told(lambda: rest.call("GET", "/v1/me/organizations"))["memberships"]
        found = [m["organization"] for m in mine if not self._org or m["organization"]["slug"] == self._org]
        if len(found) != 1:
            names = ", ".join(m["organization"]["slug"] for m in mine) or "none"
            raise click.UsageError(f"say which organization: --org. Yours: {names}")
        return str(found[0]["organizationId"])

    def show(self, document: dict[str, Any], rows: Sequence[tuple[str, ...]], *columns: str) -> None:
        """Print JSON, or a table."""
        if self.as_json:
            click.echo(json.dumps(document))
            return
        table = Table(*columns, header_style="dim")
        for row in rows:
            table.add_row(*(clean(cell) for cell in row))
        Console().print(table if rows else "nothing there")


def clean(text: str) -> str:
    """Text that a terminal shows as it is."""
    return escape(text.translate(_PRINTABLE))


def _told(call: Any) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = call()
    except GatewayRefused as refused:
        click.echo(f"recoup: {clean(str(refused))}", err=True)
        for violation in refused.violations:
            click.echo(f"  {clean(violation['field'])}: {clean(violation['description'])}", err=True)
        click.echo(f"  reason {refused.reason}, request {refused.request_id}", err=True)
        sys.exit(EXIT_REFUSED)
    except GatewayUnreachable as error:
        click.echo(f"recoup: {error}. Is the address right, and the gateway up?", err=True)
        sys.exit(EXIT_UNREACHABLE)
    return answer


@main.command()
@click.pass_obj
def orgs(session: Session) -> None:
    """List the organizations that you're a member of."""
    with session.rest() as rest:
        found = _told(lambda: rest.call("GET", "/v1/me/organizations"))
    rows = [
        (m["organization"]["slug"], m["organization"]["displayName"], m["role"].removeprefix("ROLE_"))
        for m in found["memberships"]
    ]
    session.show(found, rows, "name", "display name", "role")


@main.command()
@click.pass_obj
def members(session: Session) -> None:
    """List the organization's members."""
    found = session.call("GET", "/members", pageSize=500)
    session.show(found, [(m["email"], m["role"].removeprefix("ROLE_"), m["memberId"]) for m in found["members"]],
                 "e-mail", "role", "id")  # fmt: skip


@main.command()
@click.pass_obj
def connections(session: Session) -> None:
    """List connected cloud scopes."""
    found = session.call("GET", "/connections", pageSize=500)
    rows = [
        (c["connectionId"], c["displayName"], c["state"].removeprefix("CONNECTION_STATE_"), c["problem"])
        for c in found["connections"]
    ]
    session.show(found, rows, "id", "name", "state", "problem")


@main.command()
@click.argument("connection_id")
@click.pass_obj
def verify(session: Session, connection_id: str) -> None:
    """Start the verification of a connection."""
    found = session.call("POST", f"/connections/{connection_id}:verify", {})
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
    found = session.call("GET", "/scans")
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
    found = session.call("GET", f"/scans/{scan_id}")
    rows = [
        (u["account"], u["region"], u["api"], u["outcome"], str(u["resources"]), u["errorCode"])
        for u in found["scan"]["coverage"]
    ]
    session.show(found, rows, "account", "region", "listing", "outcome", "resources", "error")


@main.command()
@click.option("--detection", default="", help="only this detection, such as aws.ebs.gp2")
@click.pass_obj
def findings(session: Session, detection: str) -> None:
    """List open findings, the largest saving first."""
    found = session.call("GET", "/findings", pageSize=200, detectionId=detection)
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
@click.option("--region", default="us-east-1", show_default=True)
@click.option("--prefix", default="", help="only units whose key starts with this, such as ebs.")
@click.pass_obj
def prices(session: Session, region: str, prefix: str) -> None:
    """List catalogue prices with their source."""
    found = session.call("GET", "/prices", region=region, skuPrefix=prefix, pageSize=200)
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
    found = session.call("GET", "/events", action=action)
    rows = [(e["index"], e["occurredAt"][:19], e["action"], e["target"], e["result"]) for e in found["events"]]
    session.show(found, rows, "leaf", "at", "action", "target", "result")


for _entry in entry_points(group="recoup.commands"):
    main.add_command(_entry.load(), _entry.name)


if __name__ == "__main__":
    main()
