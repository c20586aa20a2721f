"""Commands about the keys that an organization's secrets are sealed under."""

from __future__ import annotations

from typing import Any

import click

from recoup_client.session import Group, Session

_PROVIDERS = ("aws", "azure", "google", "file")
_COLUMNS = ("version", "state", "provider", "region", "key", "key version", "since", "credentials", "backups")


@click.group(cls=Group)
def kek() -> None:
    """The keys that the organization's secrets are sealed under."""


@kek.command("register")
@click.argument("provider", type=click.Choice(_PROVIDERS))
@click.argument("key_id")
@click.option("--region", required=True, help="its region or location")
@click.option("--key-version", default="", help="the provider's version of it; none with aws")
@click.pass_obj
def kek_register(session: Session, provider: str, key_id: str, region: str, key_version: str) -> None:
    """Seal under KEY_ID from now on: an ARN, an Azure key identifier, a CryptoKey's name."""
    named = {"provider": f"KEK_PROVIDER_{provider.upper()}", "keyId": key_id, "region": region}
    found = session.call("POST", "/keks", {**named, "keyVersion": key_version})
    session.show(found, [_row(found["kek"])], *_COLUMNS)


@kek.command("list")
@click.pass_obj
def kek_list(session: Session) -> None:
    """List the keys that the organization named, newest first."""
    found = session.all("/keks", "keks")
    session.show(found, [_row(each) for each in found["keks"]], *_COLUMNS)


@kek.command("rotate")
@click.pass_obj
def kek_rotate(session: Session) -> None:
    """Have all that is sealed under other keys wrapped under the newest one; `recoup kek list` shows how far it is."""
    found = session.call("POST", "/keks:rotate", {})
    row = (*_row(found["kek"])[:-2], str(found.get("credentialsToMove", 0)))
    session.show(found, [row], *_COLUMNS[:-2], "to move")


@kek.command("retire")
@click.argument("version", type=click.IntRange(min=1))
@click.pass_obj
def kek_retire(session: Session, version: int) -> None:
    """Retire key VERSION, which nothing is under any more, in no backup either: it may be destroyed then."""
    found = session.call("POST", f"/keks/{version}:retire", {})
    session.show(found, [_row(found["kek"])], *_COLUMNS)


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    state, provider = (found[name].rpartition("_")[2].lower() for name in ("state", "provider"))
    return (
        str(found["version"]),
        state,
        provider,
        found["region"],
        found["keyId"],
        found["keyVersion"],
        found["createdAt"][:19],
        str(found.get("credentials", 0)),
        str(found.get("backups", 0)),
    )
