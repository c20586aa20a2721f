"""Where AWS is, and with what it is called. Loads no SDK: also processes that never call it read these."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class AwsSettings:
    """Where AWS is. `endpoint_url` is empty in production: the SDK's own endpoints, over TLS."""

    endpoint_url: str = ""


@dataclass(frozen=True)
class AwsCredentials:
    """Short-lived credentials of an assumed role; never shown by repr."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
