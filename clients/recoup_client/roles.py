"""Commands about roles: what each holds, custom ones, who gets which, and who may approve already."""

from __future__ import annotations

from typing import Any

import click

from recoup_client.members import find_member, role_of
from recoup_client.rest import WrongUse, at
from recoup_client.session import Group, Session

BUILT_IN = ("ADMIN", "FINOPS", "SECURITY", "APPROVER", "FINANCE", "AUDITOR", "VIEWER")


@click.group(cls=Group)
def role() -> None:
    """Roles: what they hold, custom ones, and who has which."""


@role.command("list")
@click.pass_obj
def role_list(session: Session) -> None:
    """List the roles, the organization's own first."""
    found = session.all("/roles", "roles")
    rows = [(r["name"], str(r["holders"]), str(len(r["permissions"])), r["description"]) for r in found["roles"]]
    rows += [(_short(r["role"]), "", str(len(r["permissions"])), "built in") for r in found["builtInRoles"]]
    session.show(found, rows, "role", "members", "permissions", "what for")


@role.command("show")
@click.argument("name")
@click.pass_obj
def role_show(session: Session, name: str) -> None:
    """Show what a role holds: a custom one by name or id, or one of the seven."""
    listed = session.all("/roles", "roles")
    found: dict[str, Any]
    if name.upper() in BUILT_IN:
        found = next(r for r in listed["builtInRoles"] if r["role"] == f"ROLE_{name.upper()}")
    else:
        found = _custom(listed, name)
    session.show(found, [(permission,) for permission in found["permissions"]], "permission")


@role.command("create")
@click.argument("name")
@click.option("--permission", "permissions", multiple=True, required=True, help="one that it holds; give it repeatedly")
@click.option("--description", default="", help="what it is for")
@click.pass_obj
def role_create(session: Session, name: str, permissions: tuple[str, ...], description: str) -> None:
    """Make a custom role of permissions that you hold yourself."""
    body = {"name": name, "permissions": list(permissions), "description": description}
    _show(session, session.call("POST", "/roles", body))


@role.command("update")
@click.argument("name")
@click.option("--permission", "permissions", multiple=True, help="one that it holds from now on: name all of them")
@click.option("--add", "added", multiple=True, help="one that it holds besides")
@click.option("--remove", "removed", multiple=True, help="one that it holds no longer")
@click.option("--description", default="", help="what it is for")
@click.pass_obj
def role_update(
    session: Session,
    name: str,
    permissions: tuple[str, ...],
    added: tuple[str, ...],
    removed: tuple[str, ...],
    description: str,
) -> None:
    """Change a custom role. Its members' sessions go on with what it holds then."""
    found = _custom(session.all("/roles", "roles"), name)
    wanted = (set(permissions) or set(found["permissions"])) | set(added)
    missing = set(removed) - wanted
    if missing:
        raise WrongUse(f"{name} doesn't hold {min(missing)}")
    if not wanted - set(removed):
        raise WrongUse("a role holds one permission at least; delete it if nobody needs it")
    body = {"permissions": sorted(wanted - set(removed)), "description": description, "etag": found["etag"]}
    _show(session, session.call("PATCH", at("/roles/{}", found["roleId"]), body))


@role.command("delete")
@click.argument("name")
@click.pass_obj
def role_delete(session: Session, name: str) -> None:
    """Delete a custom role that nobody holds."""
    found = _custom(session.all("/roles", "roles"), name)
    session.call("DELETE", at("/roles/{}", found["roleId"]))
    session.show({"roleId": found["roleId"]}, [(found["name"], "deleted")], "role", "")


@role.command("assign")
@click.argument("member")
@click.argument("name")
@click.option("--connection", "connections", multiple=True, help="limit it to this connection; give it repeatedly")
@click.option("--tag", "tags", multiple=True, help="limit it to resources with this tag, key=value; give it repeatedly")
@click.pass_obj
def role_assign(session: Session, member: str, name: str, connections: tuple[str, ...], tags: tuple[str, ...]) -> None:
    """Give MEMBER (id or e-mail address) the role NAME: one of the seven, or a custom one. Limits are given anew."""
    found = find_member(session, member)
    body: dict[str, Any] = {"etag": found["etag"]}
    if name.upper() in BUILT_IN:
        body["role"] = f"ROLE_{name.upper()}"
    else:
        body["customRoleId"] = _custom(session.all("/roles", "roles"), name)["roleId"]
    if connections or tags:
        body["limits"] = {"connectionIds": list(connections), "tags": [_tag(each) for each in tags]}
    _show_member(session, session.call("POST", at("/members/{}:assignRole", found["memberId"]), body))


@role.command("confirm")
@click.argument("member")
@click.pass_obj
def role_confirm(session: Session, member: str) -> None:
    """Let MEMBER approve, whom another Admin gave a role with approvals less than a day ago."""
    found = find_member(session, member)
    body = {"etag": found["etag"]}
    _show_member(session, session.call("POST", at("/members/{}:confirmApprover", found["memberId"]), body))


def _short(name: str) -> str:
    return name.removeprefix("ROLE_")


def _custom(listed: dict[str, Any], name: str) -> dict[str, Any]:
    found = [each for each in listed["roles"] if name in (each["name"], each["roleId"])]
    if not found and name.upper() in BUILT_IN:
        raise WrongUse(f"{name} is one of the seven roles, which stay as they are; make one of your own: role create")
    if not found:
        names = ", ".join([each["name"] for each in listed["roles"]] + [each.lower() for each in BUILT_IN])
        raise WrongUse(f"there is no role {name}; there are {names}")
    result: dict[str, Any] = found[0]
    return result


def _tag(text: str) -> dict[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise WrongUse(f"a tag is key=value, and {text!r} isn't")
    return {"key": key, "value": value}


def _show(session: Session, found: dict[str, Any]) -> None:
    made = found["role"]
    row = (made["name"], str(made["holders"]), ", ".join(made["permissions"]), made["roleId"])
    session.show(found, [row], "role", "members", "permissions", "id")


def _show_member(session: Session, found: dict[str, Any]) -> None:
    member = found["member"]
    limits = member.get("limits") or {"connectionIds": [], "tags": []}
    only = [*limits["connectionIds"], *(f"{tag['key']}={tag['value']}" for tag in limits["tags"])]
    waits = (member.get("approvesFrom") or "")[:19] if member["approverState"] == "APPROVER_STATE_FRESH" else ""
    row = (member["email"], role_of(member), ", ".join(only) or "everything", waits)
    session.show(found, [row], "e-mail", "role", "limited to", "approves from")
