"""Commands about single sign-on: identity providers, proven domains, and signing in by them."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from recoup_client.loopback import Loopback
from recoup_client.rest import WrongUse, at
from recoup_client.session import Group, Session

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ROLES = ("admin", "finops", "security", "approver", "finance", "auditor", "viewer")
_COLUMNS = ("provider", "name", "state", "enforced", "tested", "signs until", "approves from", "login")
_provider = click.option("--provider", default="", help="its id; not needed where there is only one")
_MAX_METADATA_BYTES = 200 * 1024


@click.group(cls=Group)
def sso() -> None:
    """Single sign-on with SAML 2.0."""


@sso.command("status")
@click.pass_obj
def sso_status(session: Session) -> None:
    """Show the identity providers and the domains."""
    providers = session.call("GET", "/identityProviders")["providers"]
    domains = session.call("GET", "/domains")["domains"]
    rows = [_row(each) for each in providers]
    rows += [(each["domainId"], each["name"], _domain_state(each), *[""] * 5) for each in domains]
    session.show({"providers": providers, "domains": domains}, rows, "id", "name", *_COLUMNS[2:])


@sso.command("create")
@click.option("--name", required=True, help="the name as people write it, such as Okta")
@click.pass_obj
def sso_create(session: Session, name: str) -> None:
    """Begin to set an identity provider up. Shows what its own configuration needs."""
    found = session.call("POST", "/identityProviders", {"displayName": name})
    made = found["provider"]
    session.show(found, [(made["providerId"], made["spEntityId"], made["acsUrl"])], "provider", "entity id", "ACS URL")


@sso.command("import-metadata")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--url", default="", help="where the metadata can be had, for people; nothing is fetched")
@_provider
@click.pass_obj
def sso_import_metadata(session: Session, file: Path, url: str, provider: str) -> None:
    """Take name, sign-in address and certificates from the metadata in FILE."""
    try:
        with file.open("rb") as opened:
            metadata = opened.read(_MAX_METADATA_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise WrongUse(f"{file} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise WrongUse(f"{file} isn't UTF-8 text: save the metadata as UTF-8") from error
    _change(session, provider, "POST", ":importMetadata", {"metadata": metadata, "metadataUrl": url})


@sso.command("set")
@click.option("--email-attribute", help="the attribute with the person's address; empty: the NameID is one")
@click.option("--groups-attribute", help="the attribute with the person's groups")
@click.option("--mfa-context", "mfa_contexts", multiple=True, help="an AuthnContext that is a second factor")
@click.option("--default-role", type=click.Choice([*_ROLES, "none"]), help="of who is in no mapped group")
@click.option("--session-minutes", type=click.IntRange(1, 1440), help="how long a session lasts at most")
@click.option("--provider-initiated/--no-provider-initiated", default=None, help="may sign-ins begin at the provider")
@_provider
@click.pass_obj
def sso_set(
    session: Session,
    email_attribute: str | None,
    groups_attribute: str | None,
    mfa_contexts: tuple[str, ...],
    default_role: str | None,
    session_minutes: int | None,
    provider_initiated: bool | None,
    provider: str,
) -> None:
    """Say how the provider's answers are read. What isn't given stays as it is."""
    found = _find(session, provider)
    kept = ("emailAttribute", "groupsAttribute", "mfaContexts", "defaultRole", "sessionMinutes", "providerInitiated")
    body = {name: found[name] for name in kept} | {
        name: value
        for name, value in (
            ("emailAttribute", email_attribute),
            ("groupsAttribute", groups_attribute),
            ("mfaContexts", list(mfa_contexts) or None),
            ("defaultRole", _role(default_role)),
            ("sessionMinutes", session_minutes),
            ("providerInitiated", _initiated(provider_initiated)),
        )
        if value is not None
    }
    _change(session, found["providerId"], "PATCH", "", body)


def _role(name: str | None) -> str | None:
    return None if name is None else "ROLE_UNSPECIFIED" if name == "none" else f"ROLE_{name.upper()}"


def _initiated(allowed: bool | None) -> str | None:
    return None if allowed is None else f"PROVIDER_INITIATED_{'ALLOWED' if allowed else 'REFUSED'}"


@sso.command("map")
@click.argument("groups", nargs=-1)
@_provider
@click.pass_obj
def sso_map(session: Session, groups: tuple[str, ...], provider: str) -> None:
    """Say which groups have which roles: GROUP=ROLE, the first that fits. ROLE may be a custom role's id.

    The list replaces the one before; without any, roles are given by hand.
    """
    _change(session, provider, "PUT", "/groupRoles", {"groupRoles": [_mapping(each) for each in groups]})


def _mapping(text: str) -> dict[str, str]:
    group, sign, role = text.rpartition("=")
    if not sign or not group or not role:
        raise WrongUse(f"{text!r} isn't GROUP=ROLE")
    if role.lower() in _ROLES:
        return {"group": group, "role": f"ROLE_{role.upper()}"}
    if not _ID.fullmatch(role):
        raise WrongUse(f"{text!r}: a role is a custom role's id (recoup role list --json), or {', '.join(_ROLES)}")
    return {"group": group, "customRoleId": role}


@sso.group("domain", cls=Group)
def sso_domain() -> None:
    """Domains, and the DNS record that proves each."""


@sso_domain.command("add")
@click.argument("name")
@click.pass_obj
def domain_add(session: Session, name: str) -> None:
    """Name a domain, and show the TXT record that proves it."""
    _show_domain(session, session.call("POST", "/domains", {"name": name}))


@sso_domain.command("verify")
@click.argument("name")
@click.pass_obj
def domain_verify(session: Session, name: str) -> None:
    """Look for the TXT record of domain NAME."""
    _show_domain(session, session.call("POST", at("/domains/{}:verify", _domain_id(session, name)), {}))


@sso_domain.command("remove")
@click.argument("name")
@click.pass_obj
def domain_remove(session: Session, name: str) -> None:
    """Forget domain NAME: nobody in it is let in by a provider any more."""
    found = session.call("DELETE", at("/domains/{}", _domain_id(session, name)))
    session.show(found, [(name, "removed")], "domain", "state")


def _domain_id(session: Session, name: str) -> str:
    found = [each for each in session.call("GET", "/domains")["domains"] if name in (each["name"], each["domainId"])]
    if not found:
        raise WrongUse(f"there is no domain {name}; recoup sso status shows all, recoup sso domain add adds one")
    return str(found[0]["domainId"])


def _domain_state(found: dict[str, Any]) -> str:
    gone = f", record gone since {found['missingSince'][:19]}" if found.get("missingSince") else ""
    return _state(found, "DOMAIN_STATE_") + gone


def _show_domain(session: Session, found: dict[str, Any]) -> None:
    made = found["domain"]
    row = (made["name"], _domain_state(made), made["recordName"], made["recordValue"])
    session.show(found, [row], "domain", "state", "TXT record", "says")


@sso.command("test")
@click.option("--result", "test_id", default="", help="show what came of this test instead of beginning one")
@_provider
@click.pass_obj
def sso_test(session: Session, test_id: str, provider: str) -> None:
    """Begin a test sign-in: open its address in a browser, then ask for the result."""
    if test_id:
        found = session.call("GET", at("/testLogins/{}", test_id))
        made = found["test"]
        facts = (made["email"], made["role"].removeprefix("ROLE_").lower(), str(made["aal"]), made["problem"])
        session.show(found, [(_state(made, "TEST_STATE_"), *facts)], "state", "address", "role", "aal", "problem")
        return
    found = session.call("POST", at("/identityProviders/{}:startTestLogin", _find(session, provider)["providerId"]), {})
    session.show(found, [(found["test"]["testId"], found["loginUrl"])], "test", "open in a browser")


@sso.command("enable")
@_provider
@click.pass_obj
def sso_enable(session: Session, provider: str) -> None:
    """Let the provider sign people in."""
    _change(session, provider, "POST", ":enable", {})


@sso.command("confirm")
@_provider
@click.pass_obj
def sso_confirm(session: Session, provider: str) -> None:
    """Let sessions of a provider approve that another Admin has changed within the last day."""
    _change(session, provider, "POST", ":confirm", {})


@sso.command("enforce")
@click.option("--break-glass", default="", help="the member id of the Admin who may sign in without the provider")
@click.option("--off", is_flag=True, help="end the demand")
@_provider
@click.pass_obj
def sso_enforce(session: Session, break_glass: str, off: bool, provider: str) -> None:
    """Demand that members in proven domains sign in by the provider. Needs a test sign-in that passed."""
    if off == bool(break_glass):
        raise click.UsageError("say either --break-glass, to enforce, or --off")
    body = {"enforcement": "ENFORCEMENT_OFF" if off else "ENFORCEMENT_ON", "breakGlassMemberId": break_glass}
    _change(session, provider, "POST", ":setEnforcement", body)


@sso.command("disable")
@_provider
@click.pass_obj
def sso_disable(session: Session, provider: str) -> None:
    """End the provider's sign-ins at once, with every session that it made."""
    found = session.call("POST", at("/identityProviders/{}:disable", _find(session, provider)["providerId"]), {})
    session.show(found, [_row(found["provider"])], *_COLUMNS)


@sso.command("login")
@click.argument("login_url")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="where to wait on 127.0.0.1; 0: any free port")
@click.pass_obj
def sso_login(session: Session, login_url: str, port: int) -> None:
    """Sign in at LOGIN_URL, which `recoup sso status` shows to Admins. Prints a session token.

    Waits for the browser, on this machine alone, for ten minutes. Where the browser is on another one, forward a port
    to here and name it.
    """
    if not login_url.startswith(("https://", "http://")):
        raise WrongUse(f"{login_url} isn't an address: take it from recoup sso status, or from an Admin")
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    with Loopback(port) as waiting:
        query = urlencode({"code_challenge": challenge, "return_to": waiting.address})
        click.echo(f"Open in a browser: {login_url}?{query}", err=True)
        body = {"code": waiting.code(), "codeVerifier": verifier}
    with session.rest(signed_in=False) as rest:
        found = rest.call("POST", "/v1/sso/sessions", body)
    session.show(found, [(found["sessionToken"], found["expiresAt"][:19])], "session token", "until")


def _find(session: Session, provider: str) -> dict[str, Any]:
    """The provider that is meant, as it is now."""
    if provider:
        return dict(session.call("GET", at("/identityProviders/{}", provider))["provider"])
    found = session.call("GET", "/identityProviders")["providers"]
    if len(found) != 1:
        names = ", ".join(f"{each['providerId']} ({each['displayName']})" for each in found) or "none"
        raise click.UsageError(f"say which identity provider: --provider. There are: {names}")
    return dict(found[0])


def _change(session: Session, provider: str, method: str, what: str, body: dict[str, Any]) -> None:
    before = _find(session, provider)
    path = at("/identityProviders/{}", before["providerId"]) + what
    found = session.call(method, path, {**body, "etag": before["etag"]})
    session.show(found, [_row(found["provider"])], *_COLUMNS)


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    enforced = "yes" if found["enforcement"] == "ENFORCEMENT_ON" else "no"
    until = min((each["expiresAt"][:10] for each in found["certificates"]), default="no metadata")
    tested = "yes" if found["isTested"] else "no"
    state = _state(found, "PROVIDER_STATE_")
    approves = str(found.get("approvesFrom") or "")[:16]
    return found["providerId"], found["displayName"], state, enforced, tested, until, approves, found["loginUrl"]


def _state(found: dict[str, Any], prefix: str) -> str:
    return str(found["state"]).removeprefix(prefix).lower()
