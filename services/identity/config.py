"""The settings of the identity service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from services._mesh.config import Matches, PlainFile, Seconds, SecretFile
from services._mesh.settings import MeshSettings


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
    """How long passports live, and the key that page tokens are sealed with."""

    page_key: SecretFile
    seconds: Seconds = 300.0


@dataclass(frozen=True, kw_only=True)
class IdentitySettings(MeshSettings):
    """The identity process."""

    sessions: SessionIssuer
    passports: PassportSettings
