"""Commands about organizations: creating, showing, changing, suspending, handing over, leaving, and one's default."""

from __future__ import annotations

from typing import Any

import click

from recoup_client.members import find_member, show_secret
from recoup_client.rest import at
from recoup_client.session import Group, Session


@click.group(cls=Group)
def org() -> None:
    """Organizations: yours, and (for the platform's Admin) customers'."""


@org.command("create")
@click.argument("slug")
@click.option("--name", "display_name", required=True, help="the name as people write it")
@click.option("--admin", "admin_email", required=True, help="the address of its first Admin, who is invited")
@click.option("--time-zone", default="", help="IANA time zone; UTC without it")
@click.option("--currency", default="", help="ISO 4217 code; USD without it")
@click.option(
    "--hours", type=click.IntRange(1, 720), default=168, show_default=True, help="how long the invitation holds"
)
@click.pass_obj
def org_create(
    session: Session, slug: str, display_name: str, admin_email: str, time_zone: str, currency: str, hours: int
) -> None:
    """Create the organization SLUG of a customer and invite its first Admin. For the platform's Admin."""
    body = {
        "slug": slug,
        "displayName": display_name,
        "adminEmail": admin_email,
        "timeZone": time_zone,
        "reportingCurrency": currency,
        "expiresInHours": hours,
    }
    with session.rest() as rest:
        found = rest.call("POST", "/v1/platform/organizations", body)
    show_secret(session, found)


@org.command("show")
@click.pass_obj
def org_show(session: Session) -> None:
    """Show the organization."""
    _show(session, session.call("GET", ""))


@org.command("update")
@click.option("--name", "display_name", default="", help="the name as people write it")
@click.option("--time-zone", default="", help="IANA time zone, such as Europe/Berlin")
@click.option("--currency", default="", help="ISO 4217 code")
@click.pass_obj
def org_update(session: Session, display_name: str, time_zone: str, currency: str) -> None:
    """Change the organization's name, time zone or currency."""
    body = {"displayName": display_name, "timeZone": time_zone, "reportingCurrency": currency}
    body["etag"] = session.call("GET", "")["organization"]["etag"]
    _show(session, session.call("PATCH", "", body))


_REASON = click.option("--reason", required=True, help="why, for the organization's own log")


@org.command("suspend")
@click.argument("organization_id")
@_REASON
@click.pass_obj
def org_suspend(session: Session, organization_id: str, reason: str) -> None:
    """Suspend ORGANIZATION_ID: nobody signs in, nothing runs. For the platform's Admin."""
    _turn(session, organization_id, "suspend", reason)


@org.command("resume")
@click.argument("organization_id")
@_REASON
@click.pass_obj
def org_resume(session: Session, organization_id: str, reason: str) -> None:
    """Resume ORGANIZATION_ID. For the platform's Admin."""
    _turn(session, organization_id, "resume", reason)


def _turn(session: Session, organization_id: str, verb: str, reason: str) -> None:
    with session.rest() as rest:
        found = rest.call("POST", at(f"/v1/platform/organizations/{{}}:{verb}", organization_id), {"reason": reason})
    state = found["state"].removeprefix("ORGANIZATION_STATE_").lower()
    session.show(found, [(organization_id, state)], "organization", "state")


@org.command("reassign")
@click.argument("organization_id")
@click.argument("member_id")
@_REASON
@click.pass_obj
def org_reassign(session: Session, organization_id: str, member_id: str, reason: str) -> None:
    """Make MEMBER_ID the owner of ORGANIZATION_ID, whose owner is out of reach. For the platform's Admin."""
    path = at("/v1/platform/organizations/{}:reassignOwnership", organization_id)
    with session.rest() as rest:
        found = rest.call("POST", path, {"memberId": member_id, "reason": reason})
    session.show(found, [(organization_id, member_id)], "organization", "owner")


@org.command("transfer")
@click.argument("member")
@click.pass_obj
def org_transfer(session: Session, member: str) -> None:
    """Hand the ownership over to MEMBER (id or e-mail address), another Admin."""
    heir = find_member(session, member)
    _show(session, session.call("POST", ":transferOwnership", {"memberId": heir["memberId"]}))


@org.command("leave")
@click.argument("slug")
@click.pass_obj
def org_leave(session: Session, slug: str) -> None:
    """Leave the organization SLUG: your sessions, tokens and all else that you hold there end."""
    found = session.of(slug).call("POST", ":leave", {"confirmSlug": slug})
    session.show(found, [(slug, "left")], "organization", "")


@org.command("default")
@click.argument("slug")
@click.pass_obj
def org_default(session: Session, slug: str) -> None:
    """Make SLUG the organization that you're in when you name none."""
    found = session.of(slug).call("POST", ":setDefault", {})
    session.show(found, [(slug, "default")], "organization", "")


@org.group("origins", cls=Group)
def origins() -> None:
    """Web pages of other origins that may call for the organization, with tokens of their own (CORS)."""


@origins.command("list")
@click.pass_obj
def origins_list(session: Session) -> None:
    """List the allowed origins."""
    _show_origins(session, session.call("GET", "/allowedOrigins"))


@origins.command("set")
@click.argument("allowed", nargs=-1, metavar="[ORIGIN]...")
@click.pass_obj
def origins_set(session: Session, allowed: tuple[str, ...]) -> None:
    """Allow each ORIGIN (such as finance.acme.example under https), and no other; without any, none."""
    body = {"origins": list(allowed), "etag": session.call("GET", "/allowedOrigins")["allowed"]["etag"]}
    _show_origins(session, session.call("PUT", "/allowedOrigins", body))


def _show_origins(session: Session, found: dict[str, Any]) -> None:
    session.show(found, [(each,) for each in found["allowed"]["origins"]], "origin")


def _show(session: Session, found: dict[str, Any]) -> None:
    made = found["organization"]
    row = (
        made["slug"],
        made["displayName"],
        made["timeZone"],
        made["reportingCurrency"],
        made["state"].removeprefix("ORGANIZATION_STATE_").lower(),
        made["ownerMemberId"] or "nobody yet",
        made["organizationId"],
    )
    session.show(found, [row], "name", "display name", "time zone", "currency", "state", "owner", "id")
