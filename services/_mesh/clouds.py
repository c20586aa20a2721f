"""Where Azure and Google Cloud are, and the short-lived tokens that they give. What a tenant gives names no host."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from services._mesh.config import Matches, SecretFile

_Https = Annotated[str, Matches(r"https://[a-z0-9.-]+(:[0-9]{1,5})?", "an https address without a path")]


@dataclass(frozen=True)
class AzureSettings:
    """Entra's authority and the management API: those of the public cloud, or of a national one."""

    authority: _Https = "https://login.microsoftonline.com"
    management: _Https = "https://management.azure.com"


@dataclass(frozen=True)
class GoogleSettings:
    """Google's token services and the Resource Manager."""

    tokens: _Https = "https://oauth2.googleapis.com"
    sts: _Https = "https://sts.googleapis.com"
    iam_credentials: _Https = "https://iamcredentials.googleapis.com"
    resource_manager: _Https = "https://cloudresourcemanager.googleapis.com"


IssuerUrl = Annotated[str, Matches(r"https://[a-z0-9.-]+(:[0-9]{1,5})?(/[A-Za-z0-9._-]+)*", "an https address")]


@dataclass(frozen=True, kw_only=True)
class FederationSettings:
    """The address that Azure and Google Cloud know the broker by, and the RSA key that it signs assertions with."""

    issuer: IssuerUrl
    key: SecretFile


@dataclass(frozen=True, slots=True)
class CloudToken:
    """An access token and the one scope (subscription, project or directory) that it is given for; repr shows no token.

    `source_identity` is what the cloud's own trail is to show.
    """

    access_token: str = field(repr=False)
    scope_id: str
    source_identity: str
    expires_at: datetime
