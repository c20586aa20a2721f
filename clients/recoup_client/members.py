"""Commands about members: who is one, invitations, roles, leaving and removing, and who is the same human being."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from recoup_client.rest import WrongUse, at
from recoup_client.session import Group, Session

ROLES = ("admin", "finops", "security", "approver", "finance", "auditor", "viewer")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ROLE = click.Choice(ROLES, case_sensitive=False)
_HOURS = click.option(
    "--hours", type=click.IntRange(1, 720), default=168, show_default=True, help="how long they may take to accept"
)


@click.group(cls=Group)
def member() -> None:
    """Members: who belongs to the organization, and how they come and go."""


@member.command("list")
@click.pass_obj
def member_list(session: Session) -> None:
    """List the organization's members."""
    found = session.all("/members", "members")
    owner = session.call("GET", "")["organization"]["ownerMemberId"]
    persons = [each["personId"] for each in found["members"]]
    rows = [
        (
            each["email"],
            role_of(each) + (", owner" if each["memberId"] == owner else ""),
            "linked" if persons.count(each["personId"]) > 1 else "",
            each["memberId"],
        )
        for each in found["members"]
    ]
    session.show(found, rows, "e-mail", "role", "person", "id")


@member.command("invite")
@click.argument("email")
@click.option("--role", required=True, type=_ROLE, help="the role that they get")
@_HOURS
@click.pass_obj
def member_invite(session: Session, email: str, role: str, hours: int) -> None:
    """Invite EMAIL. What is printed as secret goes to that person, and is shown only now."""
    body = {"email": email, "role": f"ROLE_{role.upper()}", "expiresInHours": hours}
    show_secret(session, session.call("POST", "/invitations", body))


@member.command("accept")
@click.option("--secret-file", type=click.Path(path_type=Path), help="where the invitation's secret stands")
@click.pass_obj
def member_accept(session: Session, secret_file: Path | None) -> None:
    """Accept an invitation: its secret comes from --secret-file or the environment variable RECOUP_INVITATION."""
    with session.rest() as rest:
        found = rest.call("POST", "/v1/me/invitations:accept", {"secret": _secret(secret_file)})
    _show(session, found)


def _secret(file: Path | None) -> str:
    try:
        secret = file.read_text("ascii").strip() if file else os.environ.get("RECOUP_INVITATION", "")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUse(f"the secret file {file} can't be read") from error
    if not secret:
        raise click.UsageError("give the invitation's secret: --secret-file or RECOUP_INVITATION")
    return secret


@member.group("invitation")
def invitation() -> None:
    """Invitations that were made."""


@invitation.command("list")
@click.pass_obj
def invitation_list(session: Session) -> None:
    """List invitations, newest first."""
    found = session.all("/invitations", "invitations")
    session.show(found, [_invited(each) for each in found["invitations"]], *_INVITED)


@invitation.command("revoke")
@click.argument("invitation_id")
@click.pass_obj
def invitation_revoke(session: Session, invitation_id: str) -> None:
    """Take an invitation back that nobody has accepted."""
    found = session.call("POST", at("/invitations/{}:revoke", invitation_id), {})
    session.show(found, [_invited(found["invitation"])], *_INVITED)


@member.command("role")
@click.argument("who")
@click.argument("role", type=_ROLE)
@click.pass_obj
def member_role(session: Session, who: str, role: str) -> None:
    """Give WHO (id or e-mail address) another role; `recoup role assign` gives custom ones, too."""
    found = find_member(session, who)
    body = {"role": f"ROLE_{role.upper()}", "etag": found["etag"]}
    _show(session, session.call("PATCH", at("/members/{}", found["memberId"]), body))


@member.command("remove")
@click.argument("who")
@click.pass_obj
def member_remove(session: Session, who: str) -> None:
    """End the membership of WHO (id or e-mail address), and everything that rests on it."""
    found = find_member(session, who)
    answer = session.call("DELETE", at("/members/{}", found["memberId"]))
    session.show(answer, [(found["email"], "removed")], "e-mail", "")


@member.command("sign-out")
@click.argument("who")
@click.pass_obj
def member_sign_out(session: Session, who: str) -> None:
    """End all sessions of WHO (id or e-mail address) in this organization; they may sign in again."""
    found = find_member(session, who)
    answer = session.call("POST", at("/members/{}:revokeSessions", found["memberId"]), {})
    session.show(answer, [(found["email"], "signed out")], "e-mail", "")


@member.command("link")
@click.argument("who")
@click.argument("same_as")
@click.pass_obj
def member_link(session: Session, who: str, same_as: str) -> None:
    """Say that WHO and SAME_AS (ids or e-mail addresses) are one human being: neither approves what the other asks."""
    one, other = find_member(session, who), find_member(session, same_as)
    body = {"sameAsMemberId": other["memberId"]}
    found = session.call("POST", at("/members/{}:link", one["memberId"]), body)
    session.show(found, [(one["email"], other["email"], found["personId"])], "e-mail", "e-mail", "person")


@member.command("unlink")
@click.argument("who")
@click.pass_obj
def member_unlink(session: Session, who: str) -> None:
    """Say that WHO (id or e-mail address) is a person of their own."""
    one = find_member(session, who)
    found = session.call("POST", at("/members/{}:unlink", one["memberId"]), {})
    session.show(found, [(one["email"], "unlinked")], "e-mail", "")


@member.command("logins")
@click.pass_obj
def member_logins(session: Session) -> None:
    """List the logins that identity providers and directories vouch for."""
    found = session.all("/linkedIdentities", "linkedIdentities")
    rows = [
        (each["kind"].removeprefix("LOGIN_KIND_"), each["issuer"], each["subject"], each["userId"])
        for each in found["linkedIdentities"]
    ]
    session.show(found, rows, "kind", "by", "login", "user")


def find_member(session: Session, who: str) -> dict[str, Any]:
    """A member by id or by e-mail address. Raises WrongUse where an address is nobody's, or several members'."""
    if _ID.fullmatch(who.lower()):
        one: dict[str, Any] = session.call("GET", at("/members/{}", who.lower()))["member"]
        return one
    found = [m for m in session.all("/members", "members")["members"] if m["email"].lower() == who.lower()]
    if len(found) != 1:
        raise WrongUse(f"{len(found)} members have the address {who}; name one by id (recoup member list)")
    result: dict[str, Any] = found[0]
    return result


def role_of(found: dict[str, Any]) -> str:
    """A member's role as people write it."""
    return str(found["customRoleName"] or found["role"].removeprefix("ROLE_"))


def show_secret(session: Session, found: dict[str, Any]) -> None:
    """An invitation with its secret, which is shown this once."""
    made = found["invitation"]
    row = (made["email"], made["role"].removeprefix("ROLE_"), made["expiresAt"][:19], found["secret"])
    session.show(found, [row], "for", "as", "until", "secret (shown once)")


_INVITED = ("for", "as", "state", "until", "id")


def _invited(found: dict[str, Any]) -> tuple[str, ...]:
    state = found["state"].removeprefix("INVITATION_STATE_").lower()
    return found["email"], found["role"].removeprefix("ROLE_"), state, found["expiresAt"][:19], found["invitationId"]


def _show(session: Session, found: dict[str, Any]) -> None:
    made = found["member"]
    row = (made["email"], role_of(made), made["organizationId"], made["memberId"])
    session.show(found, [row], "e-mail", "role", "organization", "id")
