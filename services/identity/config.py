"""The settings of the identity service."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from services._mesh.config import Between, Matches, PlainFile, SecretFile
from services._mesh.settings import MeshSettings
from services._mesh.tokens import MAX_LIFETIME_SECONDS


@dataclass(frozen=True, kw_only=True)
class SessionIssuer:
    """The project whose session tokens are accepted. `ca` verifies the JWKS server where it isn't publicly trusted.

    `email_verified` says how a session proves its address: by its claim `email_verified` (which a custom access token
    hook adds), or always, because the project lets nobody sign in before they confirmed it.
    """

    issuer: str
    audience: str = "authenticated"
    jwks: Annotated[str, Matches(r"https://\S+|http://127\.0\.0\.1:\d+/\S*", "an https address (or loopback http)")]
    ca: PlainFile | None = None
    email_verified: Literal["claim", "always"] = "claim"


@dataclass(frozen=True, kw_only=True)
class PassportSettings:
    """How long passports live, and the key that page tokens are sealed with. Nobody accepts longer ones."""

    page_key: SecretFile
    seconds: Annotated[float, Between(60.0, MAX_LIFETIME_SECONDS)] = 300.0


@dataclass(frozen=True, kw_only=True)
class SsoSettings:
    """Single sign-on: our own public address, where people may be sent back to, and who is asked about domains.

    `public_url` is the gateway's; without it no identity provider can be set up. `return_urls` are whole addresses of
    the web frontend. `nameservers` are "address" or "address:port"; without any, the machine's own are asked.
    """

    public_url: Annotated[str, Matches(r"(https://[^\s/]+)?", "an https address without a path, or empty")] = ""
    return_urls: tuple[Annotated[str, Matches(r"https://[^\s?#]+", "an https address without a query")], ...] = ()
    nameservers: tuple[Annotated[str, Matches(r"[0-9a-fA-F.:]+", "an IP address, and a port if not 53")], ...] = ()


@dataclass(frozen=True, kw_only=True)
class IdentitySettings(MeshSettings):
    """The identity process."""

    sessions: SessionIssuer
    passports: PassportSettings
    sso: SsoSettings = field(default_factory=SsoSettings)
