"""The command that shows how an organization's access stands."""

from __future__ import annotations

from typing import Any

import click

from recoup_client.session import Command, Session


@click.command(cls=Command)
@click.pass_obj
def posture(session: Session) -> None:
    """Show how access stands: second factors, stale tokens, unused roles, sign-on, break-glass, exceptions."""
    found = session.call("GET", "/posture")
    session.show(found, rows(found["posture"]), "fact", "count", "which")


def rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The facts, a line each; what is listed is named as far as the answer has it."""
    sso = found["sso"].removeprefix("SSO_ENFORCEMENT_").lower()
    return [
        ("members", str(found["members"]), f"{found['admins']} of them Admins"),
        ("members without a second factor", *_listed(found, "membersWithoutAal2", _member)),
        ("tokens unused for 90 days", *_listed(found, "staleTokens", _token)),
        ("custom roles that nobody has", *_listed(found, "unusedRoles", lambda each: each["name"])),
        ("single sign-on", "", sso),
        ("proven domains without their record", str(len(found["missingDomains"])), _domains(found)),
        ("SCIM tokens", str(found["scimTokens"]), f"last change {_moment(found, 'scimSyncedAt')}"),
        ("break-glass in force", str(len(found["elevationsOpen"])), _elevations(found)),
        ("reviews to decide", str(found["reviewsOpen"]), f"{found['reviewsOverdue']} overdue"),
        ("exceptions in force", str(found["exceptionsInForce"]), f"{found['exceptionsDue']} up for review"),
        ("exceptions expired, not reviewed", str(found["exceptionsExpired"]), f"{found['exceptionsOverdue']} overdue"),
    ]


def _listed(found: dict[str, Any], name: str, shown: Any) -> tuple[str, str]:
    more = found[f"{name}Total"] - len(found[name])
    texts = [shown(each) for each in found[name]] + ([f"and {more} more"] if more else [])
    return str(found[f"{name}Total"]), ", ".join(texts)


def _member(found: dict[str, Any]) -> str:
    seen = f"seen {_moment(found, 'lastSeenAt')}" if found.get("lastSeenAt") else "never seen"
    return f"{found['userId']} ({found['role'].lower()}, {seen})"


def _token(found: dict[str, Any]) -> str:
    return f"{found['displayName']} (used {_moment(found, 'lastUsedAt')})"


def _domains(found: dict[str, Any]) -> str:
    return ", ".join(f"{each['name']} since {_moment(each, 'missingSince')}" for each in found["missingDomains"])


def _elevations(found: dict[str, Any]) -> str:
    return ", ".join(f"{each['holder']} until {each['expiresAt'][:19]}" for each in found["elevationsOpen"])


def _moment(found: dict[str, Any], name: str) -> str:
    return str(found[name])[:19] if found.get(name) else "never"
