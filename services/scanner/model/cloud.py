"""Clouds other than AWS: what a connection to one is, and what is sealed for it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

# What a grant names instead of a scope, to see which ones there are.
ALL_SCOPES = "*"


class Provider(enum.StrEnum):
    """A cloud that can be connected."""

    AWS = "aws"
    AZURE = "azure"
    GCP = "gcp"

    @property
    def purpose(self) -> str:
        """What a credential of it is sealed for; the broker opens it for nothing else."""
        return "aws.base_key" if self is Provider.AWS else f"{self.value}.credential"

    @property
    def brand(self) -> str:
        """Its name for people."""
        return {"aws": "AWS", "azure": "Azure", "gcp": "Google Cloud"}[self.value]

    @property
    def scope_kind(self) -> str:
        """What one of its parts is called in its own addresses."""
        return {"aws": "accounts", "azure": "subscriptions", "gcp": "projects"}[self.value]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are in Azure or Google Cloud. `public` may be shown; `secret` is sealed at once, and shown by nothing."""

    public: Mapping[str, str] = field(default_factory=dict)
    secret: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class CloudScope:
    """A subscription or project that a check saw. Its name is hostile input."""

    scope_id: str
    display_name: str


def scope_name(provider: Provider, scope_id: str) -> str:
    """How a scope is named in checks, such as "projects/acme-prod"."""
    return f"{provider.scope_kind}/{scope_id}"


def audience_of(provider: Provider, identity: Mapping[str, str]) -> str:
    """Whom our assertions are for."""
    if provider is Provider.AZURE:
        return "api://AzureADTokenExchange"
    return f"//iam.googleapis.com/{identity['workload_identity_provider']}"


def identity_name(provider: Provider, identity: Mapping[str, str]) -> str:
    """How who we are is named in checks, such as "applications/…"."""
    if provider is Provider.AZURE:
        return f"applications/{identity['client_id']}"
    return f"serviceAccounts/{identity['service_account']}"


def provider_of(name: str) -> Provider:
    """The cloud of what a check names: an ARN, "subscriptions/…", "projects/…", or an identity."""
    return _KINDS.get(name.partition("/")[0], Provider.AWS)


_KINDS = {
    "subscriptions": Provider.AZURE,
    "applications": Provider.AZURE,
    "projects": Provider.GCP,
    "serviceAccounts": Provider.GCP,
}
# What is wrong when a cloud doesn't let us in, by its own code: the field, and the way out.
_FIXES: Mapping[str, str] = {
    "AADSTS7000215": "azure_client_secret isn't one of the application's: copy the column Value, not the secret's id",
    "AADSTS7000222": "azure_client_secret is expired: make a new one",
    "AADSTS700016": "azure.client_id is no application of the directory: correct it, or azure.tenant_id",
    "AADSTS7000229": "azure.client_id has no service principal in the directory: make one (az ad sp create)",
    "invalid_tenant": "azure.tenant_id is no directory: correct it",
    "AADSTS90002": "azure.tenant_id is no directory: correct it",
    "AADSTS700027": "azure_certificate isn't registered with the application: upload it there",
    "invalid_grant": "gcp_service_account_key isn't accepted: it or its service account was deleted; make a new one",
    "AADSTS70021": "no federated credential of the application names our issuer and subject: add it",
    "AADSTS700211": "no federated credential of the application names our issuer: correct it",
    "AADSTS700212": "no federated credential of the application names our audience: correct it",
    "AADSTS700213": "no federated credential of the application names our subject: correct it",
    "AnySubject": "the trust is in every subject of our issuer, so in other customers' connections: name ours alone",
    "NoIssuer": "this installation has no issuer any more: give a secret",
    "OtherIssuer": "this installation isn't the issuer that you were told to trust: take that trust away, and have its "
    "operator make the scanner's federation_issuer the broker's [federation] issuer",
    "sts_invalid_target": "gcp.workload_identity_provider is no provider: correct it",
    "sts_invalid_grant": "the workload identity provider doesn't accept our issuer, audience or subject: correct it",
    "impersonation_refused": "gcp.service_account may not be acted as: let our subject have "
    "roles/iam.workloadIdentityUser on it",
    "SERVICE_DISABLED": "cloudresourcemanager.googleapis.com isn't enabled in the service account's project: enable it",
}
_NOT_SEEN: Mapping[Provider, str] = {
    Provider.AZURE: "the application doesn't see it: assign it RecoupRead there (recoup connect azure --print-policy), "
    "or correct azure.subscription_ids",
    Provider.GCP: "the service account doesn't see it: bind RecoupRead to it there (recoup connect gcp "
    "--print-policy), or correct gcp.project_ids",
}


def entry_fault(name: str, outcome: str, code: str) -> str:
    """Why we can't get into a scope, with the way out; empty where we can."""
    provider = provider_of(name)
    if outcome == "ALLOWED":
        return ""
    if outcome == "UNREACHABLE":
        return f"{provider.brand} didn't answer for {name}. Check again in a moment."
    is_scope = name.startswith(f"{provider.scope_kind}/")
    other = _NOT_SEEN[provider] if is_scope else "correct what you gave"
    return f"{name} refuses us ({code}): {_FIXES.get(code, other)}. Then connect again."
