"""What a command works with: the options turned into calls to the gateway, and answers turned into tables or JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recoup_client.rest import GatewayRefused, GatewayUnreachable, Rest

EXIT_REFUSED, EXIT_UNREACHABLE = 1, 3
_PAGE, _MOST_PAGES = 500, 20
# A cloud's names are hostile input: what could move a terminal's cursor is shown as a question mark.
_PRINTABLE = {ord(c): "?" for c in map(chr, range(32))} | {127: "?", 0x9B: "?"}


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
            return told(lambda: rest.call(method, f"/v1/organizations/{organization_id}{path}", body, given))

    def all(self, path: str, key: str, **parameters: Any) -> dict[str, Any]:
        """All pages of a list, as one document. What is beyond the first pages is said on stderr."""
        found = self.call("GET", path, pageSize=_PAGE, **parameters)
        for _ in range(_MOST_PAGES - 1):
            if not found["nextPageToken"]:
                return found
            more = self.call("GET", path, pageSize=_PAGE, pageToken=found["nextPageToken"], **parameters)
            found = {**more, key: found[key] + more[key]}
        if found["nextPageToken"]:
            click.echo(f"recoup: only the first {len(found[key])} are shown", err=True)
        return found

    def _organization(self, rest: Rest) -> str:
        """The organization's id: as given, by its short name, or the only one that there is."""
        if self._org and "-" in self._org and len(self._org) == 36:
            return self._org
        mine = told(lambda: rest.call("GET", "/v1/me/organizations"))["memberships"]
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


def _print_json(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    session = context.find_object(Session)
    if wanted and session is not None:
        session.as_json = True


class Command(click.Command):
    """A command that takes --json itself, besides the one before the command's name."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        option = click.Option(["--json"], is_flag=True, expose_value=False, callback=_print_json, help="print JSON")
        self.params.append(option)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type


def clean(text: str) -> str:
    """Text that a terminal shows as it is."""
    return escape(text.translate(_PRINTABLE))


def told(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
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
