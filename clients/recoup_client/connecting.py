"""Commands to connect a cloud: what it must be asked to allow, and the connection itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from recoup_client import connections
from recoup_client.given import aws_key, secret_text
from recoup_client.session import Group, Session

_FORMATS = ("json", "terraform", "cloudformation")
_AZURE_FORMATS, _GCP_FORMATS = ("json", "terraform", "bicep"), ("json", "terraform", "yaml")
_print_policy = click.option("--print-policy", is_flag=True, help="only print the role that is needed")


def _named(command: Callable[..., None]) -> Callable[..., None]:
    """The options of every connection that is made."""
    kept = "keep the connection where it isn't accepted, to be checked again"
    command = click.option("--keep", is_flag=True, help=kept)(command)
    return click.option("--name", default="", help="what people call the connection")(command)


@click.group(cls=Group)
def connect() -> None:
    """Connect clouds, read-only first."""


@connect.command("aws")
@click.option("--print-policy", is_flag=True, help="only print the roles that the account must have")
@click.option("--format", "style", type=click.Choice(_FORMATS), default="json", help="how the roles are written")
@click.option("--for", "chosen", multiple=True, metavar="ACTION_TYPE", help="allow this too; may be repeated")
@click.option("--principal", default="", help="the ARN of the base user that assumes the roles")
@click.option("--bill", default="", metavar="BUCKET/PREFIX", help="let the bill export be read from there")
@click.option("--role", "roles", multiple=True, metavar="ARN", help="a role for reading; one for each account")
@click.option("--act-role", "act_roles", multiple=True, metavar="ARN", help="a role for acting; one for an account")
@click.option("--region", "regions", multiple=True, help="a region to scan; may be repeated")
@click.option("--key-file", default="", metavar="FILE", help="the base user's access key; - for stdin")
@_named
@click.pass_obj
def connect_aws(
    session: Session,
    print_policy: bool,
    style: str,
    chosen: tuple[str, ...],
    principal: str,
    bill: str,
    roles: tuple[str, ...],
    act_roles: tuple[str, ...],
    regions: tuple[str, ...],
    key_file: str,
    name: str,
    keep: bool,
) -> None:
    """Connect AWS accounts by roles in them; or print the least that Recoup needs there, with --print-policy.

    The external id and the roles are shown first, then the roles are tried. Without --for they are for reading only.
    """
    if not print_policy:
        _require(name=name, role=roles, region=regions)
        if key_file and not principal:
            raise click.UsageError("with --key-file say whose key it is: --principal, the ARN of the base user")
    key_id, secret = aws_key(secret_text(key_file, "the access key")) if key_file and not print_policy else ("", "")
    bucket, _, prefix = bill.partition("/")
    asked = {"actionTypes": list(chosen), "principalArn": principal}
    billed = {"billBucket": bucket, "billPrefix": prefix.rstrip("/")}
    plan = session.call("POST", "/connectionPlans", {"format": f"POLICY_FORMAT_{style.upper()}", **asked, **billed})
    if print_policy:
        session.say(plan, plan["document"])
        return
    click.echo(f"recoup: the roles must demand the external id {plan['externalId']}\n{plan['document']}", err=True)
    given = {"displayName": name, "regions": list(regions), "awsAccounts": _accounts(roles, act_roles)}
    connections.make(session, {**given, "awsAccessKeyId": key_id, "awsSecretAccessKey": secret}, keep=keep)


@connect.command("azure")
@_print_policy
@click.option("--format", "style", type=click.Choice(_AZURE_FORMATS), default="json", help="how the role is written")
@click.option("--subscription", "scopes", multiple=True, metavar="ID", help="a subscription; may be repeated")
@click.option("--tenant", default="", metavar="ID", help="the directory that the application is in")
@click.option("--client", default="", metavar="ID", help="the application")
@click.option("--secret-file", default="", metavar="FILE", help="a client secret's value; - for stdin")
@click.option("--certificate-file", default="", metavar="FILE", help="a certificate with its key in PEM; - for stdin")
@click.option("--federated", is_flag=True, help="have the application trust us, in place of a secret")
@_named
@click.pass_obj
def connect_azure(
    session: Session,
    print_policy: bool,
    style: str,
    scopes: tuple[str, ...],
    tenant: str,
    client: str,
    secret_file: str,
    certificate_file: str,
    federated: bool,
    name: str,
    keep: bool,
) -> None:
    """Connect Azure subscriptions by an application; or print the role that it needs there, with --print-policy.

    Without --subscription it is only said which ones the application sees.
    """
    if print_policy:
        _print_reading(session, "AZURE", style, scopes)
        return
    _require(name=name, tenant=tenant, client=client)
    if [bool(secret_file), bool(certificate_file), federated].count(True) != 1:
        raise click.UsageError("give --secret-file, --certificate-file or --federated")
    secret = secret_text(secret_file, "the client secret").removesuffix("\n") if secret_file else ""
    certificate = secret_text(certificate_file, "the certificate") if certificate_file else ""
    azure = {"tenantId": tenant, "clientId": client, "subscriptionIds": list(scopes)}
    body = {"displayName": name, "azure": azure, "azureClientSecret": secret, "azureCertificate": certificate}
    _show_reading(session, "AZURE", scopes)
    connections.make(session, body, keep=keep, federated=federated)


@connect.command("gcp")
@_print_policy
@click.option("--format", "style", type=click.Choice(_GCP_FORMATS), default="json", help="how the role is written")
@click.option("--project", "scopes", multiple=True, metavar="ID", help="a project; may be repeated")
@click.option("--service-account", default="", metavar="EMAIL", help="whom we are, where the key's project isn't named")
@click.option(
    "--workload-identity-provider", "provider", default="", metavar="NAME", help="one that trusts us, for a key"
)
@click.option("--key-file", default="", metavar="FILE", help="the service account's key, as JSON; - for stdin")
@_named
@click.pass_obj
def connect_gcp(
    session: Session,
    print_policy: bool,
    style: str,
    scopes: tuple[str, ...],
    service_account: str,
    provider: str,
    key_file: str,
    name: str,
    keep: bool,
) -> None:
    """Connect Google Cloud projects by a service account; or print the role that it needs, with --print-policy.

    Without --project it is only said which ones the service account sees.
    """
    if print_policy:
        _print_reading(session, "GCP", style, scopes)
        return
    _require(name=name, **({"service_account": service_account} if provider else {"key_file": key_file}))
    if provider and key_file:
        raise click.UsageError("give --key-file or --workload-identity-provider")
    gcp = {"serviceAccount": service_account, "projectIds": list(scopes), "workloadIdentityProvider": provider}
    key = secret_text(key_file, "the service account's key") if key_file else ""
    _show_reading(session, "GCP", scopes)
    body = {"displayName": name, "gcp": gcp, "gcpServiceAccountKey": key}
    connections.make(session, body, keep=keep, federated=bool(provider))


@connect.command("static-keys")
@click.argument("choice", type=click.Choice(("allowed", "forbidden")))
@click.pass_obj
def connect_static_keys(session: Session, choice: str) -> None:
    """Say whether connections may be made with long-lived cloud keys. Those that are there keep theirs."""
    found = session.call("POST", "/staticKeys", {"staticKeys": f"STATIC_KEYS_{choice.upper()}"})
    session.show(found, [(choice,)], "long-lived keys")


def _accounts(roles: tuple[str, ...], act_roles: tuple[str, ...]) -> list[dict[str, Any]]:
    """An entry for each account that a role is of. What is no ARN goes as it is: the gateway says what is wrong."""
    reading = [(_account(arn, "--role"), arn) for arn in roles]
    acting = {_account(arn, "--act-role"): arn for arn in act_roles}
    if lost := sorted(acting.keys() - dict(reading).keys()):
        raise click.UsageError(f"account {lost[0]} has an --act-role and no --role: reading comes first")
    if len(acting) < len(act_roles):
        raise click.UsageError("give one --act-role for an account")
    return [{"accountId": a, "scanRoleArn": arn, "actRoleArn": acting.get(a, "")} for a, arn in reading]


def _account(arn: str, option: str) -> str:
    parts = arn.strip().split(":")
    if len(parts) != 6 or not parts[4].isdigit():
        example = "arn:aws:iam::123456789012:role/RecoupScan"
        raise click.UsageError(f"{option} {arn} must be the ARN of an IAM role, such as {example}; copy it from IAM")
    return parts[4]


def _plan_reading(session: Session, provider: str, style: str, scopes: tuple[str, ...]) -> dict[str, Any]:
    format_ = f"POLICY_FORMAT_{style.upper()}"
    body = {"provider": f"CLOUD_PROVIDER_{provider}", "format": format_, "scopeIds": list(scopes)}
    return session.call("POST", "/connectionPlans", body)


def _print_reading(session: Session, provider: str, style: str, scopes: tuple[str, ...]) -> None:
    plan = _plan_reading(session, provider, style, scopes)
    session.say(plan, plan["document"])


def _show_reading(session: Session, provider: str, scopes: tuple[str, ...]) -> None:
    """Show what is needed before anything is made."""
    plan = _plan_reading(session, provider, "json", scopes)
    click.echo(f"recoup: this role is needed in each of them\n{plan['document']}", err=True)


def _require(**given: Any) -> None:
    if missing := [f"--{name.replace('_', '-')}" for name, value in given.items() if not value]:
        raise click.UsageError(f"to connect, give {', '.join(missing)}; to see what is needed, --print-policy")
