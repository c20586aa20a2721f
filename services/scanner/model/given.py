"""What people give to connect a cloud, whichever it is: what is wrong with it, and what of it is sealed. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime

from services.scanner.model import aws_input
from services.scanner.model.azure_input import azure_faults, directory_faults
from services.scanner.model.cloud import Identity, Provider
from services.scanner.model.connection import Connection, NewConnection
from services.scanner.model.gcp_input import FIELD, gcp_faults, is_service_account, read_key

# Where the long-lived secret of a cloud is given.
KEY_FIELDS = {
    Provider.AWS: "aws_access_key_id",
    Provider.AZURE: "azure_client_secret",
    Provider.GCP: "gcp_service_account_key",
}


@dataclass(frozen=True, slots=True, repr=False)
class NewSecret:
    """A secret that is to take the place of a connection's; of which cloud, its fields say."""

    aws_access_key_id: str = ""
    aws_secret_access_key: str = ""
    azure_client_secret: str = ""
    azure_certificate: str = ""
    gcp_service_account_key: str = ""

    def others(self, provider: Provider) -> Iterator[tuple[str, Provider]]:
        """The fields that are given and belong to another cloud."""
        for each in fields(self):
            its = Provider(each.name.partition("_")[0])
            if its is not provider and getattr(self, each.name):
                yield each.name, its

    def of(self, found: Connection) -> NewConnection:
        """The connection as if it were made anew with this secret."""
        secret = {"client_secret": self.azure_client_secret, "certificate": self.azure_certificate}
        if found.provider is Provider.GCP:
            secret = {"key": self.gcp_service_account_key}
        return NewConnection(
            found.display_name,
            self.aws_access_key_id,
            self.aws_secret_access_key,
            found.accounts,
            found.regions,
            found.provider,
            Identity(found.identity, secret),
        )


def faults(given: NewConnection, now: datetime, *, can_federate: bool = False) -> Iterator[tuple[str, str]]:
    """Each field that is wrong, with its rule and the way out. Never says what a secret is.

    `can_federate` is whether this installation has an issuer that a cloud could trust in place of a secret.
    """
    if federates(given) and given.provider is not Provider.AWS and can_federate:
        yield from _federation_faults(given)
        return
    if given.provider is not Provider.AWS and (given.access_key_id or given.secret_access_key):
        yield "aws_access_key_id", f"is AWS's, and the connection is one of {given.provider.brand}; leave it empty"
    if given.provider is Provider.AWS:
        yield from aws_input.faults(given)
    elif given.provider is Provider.AZURE:
        yield from azure_faults(given, now)
    else:
        yield from gcp_faults(given, given.identity.public.get("service_account", ""), _key(given))


def federates(given: NewConnection) -> bool:
    """Whether no secret is given, so that the cloud is to trust our assertions."""
    return not any(given.identity.secret.values())


def taken(given: NewConnection, issuer: str = "") -> NewConnection:
    """What is given, as it is kept: of Google's JSON only who it is of and the key. Raises KeyRefused.

    Without a secret it is the issuer whose assertions the cloud is to trust.

    A long-lived secret is known by the key's id, Google's too; by the application's id in Azure, which names no other.
    """
    if given.provider is not Provider.AWS and federates(given):
        public = {name: value for name, value in given.identity.public.items() if value}
        return replace(given, identity=Identity({**public, "issuer": issuer}))
    if given.provider is Provider.AZURE:
        return replace(given, access_key_id=given.identity.public["client_id"])
    if given.provider is Provider.GCP:
        identity = read_key(_key(given))
        return replace(given, identity=identity, access_key_id=identity.secret["private_key_id"])
    return given


def plaintext(external_id: str, given: NewConnection) -> bytes:
    """What is sealed of a connection: its base key, the external id, and the roles; or who we are, and the scopes."""
    if given.provider is not Provider.AWS:
        scopes = [account.account_id for account in given.accounts]
        secret = {name: value for name, value in given.identity.secret.items() if value}
        return json.dumps({"public": dict(given.identity.public), "secret": secret, "scopes": scopes}).encode()
    roles = {a.account_id: {"scan": a.scan_role_arn, "act": a.act_role_arn} for a in given.accounts}
    return json.dumps(
        {
            "access_key_id": given.access_key_id,
            "secret_access_key": given.secret_access_key,
            "external_id": external_id,
            "roles": roles,
        }
    ).encode()


def _federation_faults(given: NewConnection) -> Iterator[tuple[str, str]]:
    public = given.identity.public
    if given.access_key_id or given.secret_access_key:
        yield "aws_access_key_id", f"is AWS's, and the connection is one of {given.provider.brand}; leave it empty"
    if given.provider is Provider.AZURE:
        yield from directory_faults(given)
        return
    if not public.get("workload_identity_provider"):
        yield FIELD, "must be given, or gcp.workload_identity_provider in its stead"
    if not is_service_account(public.get("service_account", "")):
        rule = "must be the e-mail address of the service account that the provider's principal may act as"
        yield "gcp.service_account", f"{rule}, such as recoup@acme-prod.iam.gserviceaccount.com"


def _key(given: NewConnection) -> str:
    return given.identity.secret.get("key", "")
