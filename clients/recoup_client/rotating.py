"""Commands to give a connection another credential."""

from __future__ import annotations

from typing import Any

import click

from recoup_client.given import aws_key, secret_text
from recoup_client.rest import at
from recoup_client.session import Group, Session


@click.group(cls=Group)
def credential() -> None:
    """The credentials that connections hold, and the rotation of them."""


@credential.command("rotate")
@click.argument("connection_id")
@click.option("--key-file", default="", metavar="FILE", help="the new key as AWS or Google gives it; - for stdin")
@click.option("--no-key", is_flag=True, help="let the broker assume the AWS roles as itself from now on")
@click.option("--secret-file", default="", metavar="FILE", help="a new client secret's value, of Azure; - for stdin")
@click.option("--certificate-file", default="", metavar="FILE", help="a new certificate with its key, of Azure")
@click.pass_obj
def credential_rotate(
    session: Session, connection_id: str, key_file: str, no_key: bool, secret_file: str, certificate_file: str
) -> None:
    """Give CONNECTION_ID another secret of the same user, service account or application, or none.

    The one before stays until the new one was seen to do. Make the new one first (aws iam create-access-key); `recoup
    credential status` says when to delete the old one.
    """
    if sum(map(bool, (key_file, no_key, secret_file, certificate_file))) != 1:
        raise click.UsageError("give the new one with --key-file, --secret-file or --certificate-file; or --no-key")
    body: dict[str, str] = {}
    if key_file:
        text = secret_text(key_file, "the new key")
        body = {"gcpServiceAccountKey": text} if '"private_key"' in text else _aws(text)
    elif secret_file:
        body = {"azureClientSecret": secret_text(secret_file, "the client secret").removesuffix("\n")}
    elif certificate_file:
        body = {"azureCertificate": secret_text(certificate_file, "the certificate")}
    _show(session, session.call("POST", at("/connections/{}:rotateCredential", connection_id), body))


@credential.command("cancel")
@click.argument("connection_id")
@click.pass_obj
def credential_cancel(session: Session, connection_id: str) -> None:
    """Give up the rotation of CONNECTION_ID whose new credential isn't in use yet."""
    _show(session, session.call("POST", at("/connections/{}:cancelRotation", connection_id), {}))


@credential.command("status")
@click.argument("connection_id")
@click.pass_obj
def credential_status(session: Session, connection_id: str) -> None:
    """Show how far the newest rotation of CONNECTION_ID is, what is wrong, and what is left to do in the cloud."""
    _show(session, session.call("GET", at("/connections/{}/rotation", connection_id)))


@credential.command("rules")
@click.option("--remind-after", type=click.IntRange(0, 3650), metavar="DAYS", help="be reminded after; 0 for never")
@click.option("--rotate-within", type=click.IntRange(0, 3650), metavar="DAYS", help="refuse older ones; 0 for never")
@click.pass_obj
def credential_rules(session: Session, remind_after: int | None, rotate_within: int | None) -> None:
    """Show how old keys may get, or set it. A tighter limit holds for older keys a week later."""
    found = session.call("GET", "/rotationRules")
    if remind_after is not None or rotate_within is not None:
        before = found["rules"]
        given = {
            "remindAfterDays": before.get("remindAfterDays", 0) if remind_after is None else remind_after,
            "rotateWithinDays": before.get("rotateWithinDays", 0) if rotate_within is None else rotate_within,
        }
        found = session.call("POST", "/rotationRules", given)
    rules = found["rules"]
    days = [str(rules.get(name) or "never") for name in ("remindAfterDays", "rotateWithinDays")]
    row = (*days, (rules.get("enforcedFrom") or "")[:19], str(found.get("connectionsTooOld", "")))
    session.show(found, [row], "reminded after", "refused after", "enforced from", "too old now")


def _aws(text: str) -> dict[str, str]:
    key_id, secret = aws_key(text)
    return {"awsAccessKeyId": key_id, "awsSecretAccessKey": secret}


def _show(session: Session, found: dict[str, Any]) -> None:
    rotation = found["rotation"]
    row = (
        rotation["state"].removeprefix("ROTATION_STATE_").lower(),
        rotation.get("replacedAccessKeyId") or "none",
        rotation.get("accessKeyId") or "none",
        rotation["startedAt"][:19],
        (rotation.get("promotedAt") or "")[:19],
        rotation.get("problem", ""),
        rotation.get("advice", ""),
    )
    session.show(found, [row], "state", "key before", "key after", "since", "in use since", "problem", "what to do")
