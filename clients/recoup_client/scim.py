"""Commands for provisioning by a directory (SCIM): its tokens, the roles that groups stand for, and how it goes."""

from __future__ import annotations

import re
from typing import Any

import click

from recoup_client.rest import at
from recoup_client.session import Group, Session

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ROLES = ("ADMIN", "FINOPS", "SECURITY", "APPROVER", "FINANCE", "AUDITOR", "VIEWER")


@click.group(cls=Group)
def scim() -> None:
    """Provisioning by a directory such as Okta or Entra."""


@scim.group(cls=Group)
def token() -> None:
    """The tokens that directories provision with."""


@token.command("create")
@click.option("--name", default="scim", show_default=True, help="what it is for, such as okta")
@click.option("--days", type=click.IntRange(1, 730), default=365, show_default=True, help="after how many days it ends")
@click.pass_obj
def token_create(session: Session, name: str, days: int) -> None:
    """Make a token for a directory. It is shown once: there is no way to see it again."""
    found = session.call("POST", "/scimTokens", {"name": name, "lifetimeDays": days})
    session.show(found, [(found["token"], found["scimToken"]["tokenId"], found["scimToken"]["expiresAt"][:10])],
                 "token", "id", "ends")  # fmt: skip


@token.command("list")
@click.pass_obj
def token_list(session: Session) -> None:
    """List the organization's SCIM tokens."""
    found = session.all("/scimTokens", "scimTokens")
    rows = [(t["tokenId"], t["name"], t["expiresAt"][:10], _day(t, "lastUsedAt"), _day(t, "revokedAt"))
            for t in found["scimTokens"]]  # fmt: skip
    session.show(found, rows, "id", "name", "ends", "last used", "revoked")


@token.command("revoke")
@click.argument("token_id")
@click.pass_obj
def token_revoke(session: Session, token_id: str) -> None:
    """Revoke a token: the directory's next request with it is refused."""
    found = session.call("POST", at("/scimTokens/{}:revoke", token_id), {})
    session.show(found, [(token_id, _day(found["scimToken"], "revokedAt"))], "id", "revoked")


@scim.command()
@click.pass_obj
def status(session: Session) -> None:
    """Show what is provisioned, and when the directory was last heard of."""
    found = session.call("GET", "/scimStatus")
    rows = [
        ("users", found["users"]),
        ("active", found["activeUsers"]),
        ("members", found["linkedUsers"]),
        ("groups", found["groups"]),
        ("last request", (found.get("lastSeenAt") or "never")[:19]),
        ("last change", (found.get("lastSyncAt") or "never")[:19]),
        *((f"group {each['group']}", each["role"].removeprefix("ROLE_")) for each in found["roles"]),
    ]
    session.show(found, rows, "what", "value")


@scim.command()
@click.argument("mapping", nargs=-1)
@click.pass_obj
def roles(session: Session, mapping: tuple[str, ...]) -> None:
    """Say which role each group stands for, such as "Cloud Admins=ADMIN"; the first that somebody is in counts.

    All that was said before is replaced. Who is in none of the groups is a VIEWER.
    """
    asked = []
    for each in mapping:
        group, sign, role = each.rpartition("=")
        if sign and _ID.fullmatch(role):
            asked.append({"group": group, "role": "ROLE_CUSTOM", "customRoleId": role})
        elif sign and role.upper() in _ROLES:
            asked.append({"group": group, "role": f"ROLE_{role.upper()}"})
        else:
            raise click.UsageError(f"{each!r} isn't GROUP=ROLE; a role is a custom role's id, or {', '.join(_ROLES)}")
    found = session.call("PUT", "/scimRoles", {"roles": asked})
    session.show(found, [(each["group"], each["role"].removeprefix("ROLE_")) for each in found["roles"]],
                 "group", "role")  # fmt: skip


def _day(document: dict[str, Any], name: str) -> str:
    return str(document.get(name) or "")[:10]
