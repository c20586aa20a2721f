"""Commands about the keys that an organization's secrets are sealed under."""

from __future__ import annotations

from typing import Any

import click

from recoup_client.session import Group, Session

_PROVIDERS = ("aws", "azure", "google", "file")
_COLUMNS = ("version", "state", "provider", "region", "key", "key version", "since")


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
    )
