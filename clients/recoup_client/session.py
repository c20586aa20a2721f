"""What a command works with: the options turned into calls to the gateway, and answers turned into tables or JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from recoup_client.rest import ID, GatewayRefused, Rest, WrongUse, at

_PAGE, _MOST_PAGES = 500, 20
_MAX_TOKEN = 65_536
# Nothing is as wide: what isn't a terminal gets each row on one line.
_WHOLE_ROWS = 1_000_000
_LEAST_WIDTH, _BORDER = 7, 3


class Unwritten(Exception):
    """A command was carried out, and its answer can't be written to stdout."""


class Session:
    """What the options say, turned into a client when a command first needs one."""

    def __init__(
        self,
        gateway: str | None,
        ca: Path | None,
        token_file: Path | None,
        org: str | None,
        as_json: bool,
        elevation: str | None = None,
    ) -> None:
        self._gateway, self._ca, self._token_file, self._org = gateway, ca, token_file, org
        self.as_json, self._elevation = as_json, elevation

    def prefer(self, org: str) -> None:
        """Take the organization from a command's own --org."""
        self._org = org

    def rest(self, *, signed_in: bool = True) -> Rest:
        """The client, for who is signed in or has yet to. Raises click.UsageError when an option is missing, WrongUse
        when one can't be used.
        """
        if not self._gateway:
            raise click.UsageError("say where the gateway is: --gateway or RECOUP_GATEWAY")
        if not signed_in:
            return Rest(self._gateway, "", self._ca)
        token = _token(self._token_file) if self._token_file else os.environ.get("RECOUP_TOKEN", "")
        if not token:
            raise click.UsageError("sign in first: --token-file or RECOUP_TOKEN")
        return Rest(self._gateway, token, self._ca, self._elevation)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None, **parameters: Any) -> dict[str, Any]:
        """One call about the organization. Raises GatewayRefused, GatewayUnreachable, WrongUse."""
        with self.rest() as rest:
            organization_id = self._organization(rest)
            given = {key: value for key, value in parameters.items() if value != ""}
            return rest.call(method, at("/v1/organizations/{}", organization_id) + path, body, given)

    def follow(self, path: str) -> Iterator[dict[str, Any]]:
        """The answers of a stream about the organization, opened again while it isn't over. Raises as `call` does."""
        with self.rest() as rest:
            whole = at("/v1/organizations/{}", self._organization(rest)) + path
            while True:
                try:
                    yield from rest.stream(whole)
                except GatewayRefused as problem:
                    if problem.reason != "DEADLINE_TOO_SHORT":  # Its time is over, and not what it shows.
                        raise
                else:
                    return

    def of(self, org: str) -> Session:
        """The same session, about an organization that is named by its id or short name."""
        return Session(self._gateway, self._ca, self._token_file, org, self.as_json, self._elevation)

    def octets(self, path: str, media_type: str) -> bytes:
        """A body that isn't JSON, about no organization. Raises as `call` does."""
        with self.rest() as rest:
            return rest.octets(path, media_type)

    def piece(self, path: str, offset: int) -> bytes:
        """A piece of a file of the organization's, from an offset on. Raises as `call` does."""
        with self.rest() as rest:
            whole = at("/v1/organizations/{}", self._organization(rest)) + path
            return rest.octets(f"{whole}?offset={offset}", "application/octet-stream")

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
        """The organization's id: as given, by its short name, or else the person's default or only one."""
        if self._org and ID.fullmatch(self._org.lower()):
            return self._org.lower()
        answer = rest.call("GET", "/v1/me/organizations")
        mine = answer["memberships"]
        if not self._org and answer["defaultOrganization"]:
            return str(answer["defaultOrganization"])
        found = [m["organization"] for m in mine if not self._org or m["organization"]["slug"] == self._org]
        if len(found) != 1:
            names = ", ".join(m["organization"]["slug"] for m in mine) or "none"
            wrong = f"{self._org} isn't an organization of yours" if self._org else "say which organization: --org"
            raise click.UsageError(f"{wrong}. Yours: {names}")
        return str(found[0]["organizationId"])

    def show(self, document: dict[str, Any], rows: Sequence[tuple[str, ...]], *columns: str) -> None:
        """Print JSON, or a table. Raises Unwritten; a reader who went away is click's to handle."""
        self.say(document, "" if self.as_json else _table(rows, columns))

    def say(self, document: dict[str, Any], text: str) -> None:
        """Print JSON, or a text as it is. Raises as `show` does."""
        try:
            click.echo(json.dumps(document) + "\n" if self.as_json else text, nl=False)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unwritten(error.strerror) from error


def _token(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_MAX_TOKEN).decode("ascii").strip()
    except OSError as error:
        raise WrongUse(f"the token file {file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WrongUse(f"the token file {file} doesn't hold a session token") from error


def _table(rows: Sequence[tuple[str, ...]], columns: Sequence[str]) -> str:
    """A table of which nothing is cut. What doesn't fit a terminal is folded, ids last."""
    if not rows:
        return "nothing there\n"
    console = Console() if sys.stdout.isatty() else Console(width=_WHOLE_ROWS)
    table = Table(header_style="dim")
    for name, cells in zip(columns, zip(*rows, strict=True), strict=True):
        table.add_column(name, overflow="fold", width=_kept_width(cells, len(columns), console.width))
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def _kept_width(cells: Sequence[str], columns: int, room: int) -> int | None:
    """The width that a column of ids keeps, if that leaves the other columns enough to be read."""
    if not all(ID.fullmatch(cell) for cell in cells):
        return None
    width = len(cells[0])
    return width if width + _LEAST_WIDTH * (columns - 1) + _BORDER * columns < room else None


def _prefer(context: click.Context, _: click.Parameter, org: str | None) -> None:
    session = context.find_object(Session)
    if org and session is not None:
        session.prefer(org)


def _print_json(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    session = context.find_object(Session)
    if wanted and session is not None:
        session.as_json = True


class Command(click.Command):
    """A command that takes --org and --json itself, besides those before the command's name."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        which = "the organization: its id or short name"
        self.params += [
            click.Option(["--org"], expose_value=False, callback=_prefer, help=which),
            click.Option(["--json"], is_flag=True, expose_value=False, callback=_print_json, help="print JSON"),
        ]


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class: type[click.Group] | type[type] | None = type


def clean(text: str) -> str:
    """Text that a terminal shows as it is: a cloud's names are hostile, and could move its cursor or turn its lines."""
    return "".join(character if character.isprintable() else "?" for character in text)
