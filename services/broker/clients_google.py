"""Google's token service, by google-auth: in bounded threads, with deadlines, at the address that is configured.

Tokens are for reading only. Narrower ones exist for Cloud Storage alone (credential access boundaries).
"""

from __future__ import annotations

from datetime import UTC
from functools import partial
from typing import Any

from services._mesh.aws import Failure
from services._mesh.clouds import GoogleSettings
from services._mesh.threads import BoundedThreads
from services.broker.clients import STS_DEADLINE_SECONDS, AssumeFailed
from services.broker.model.cloud_key import CloudKey

SCOPE = "https://www.googleapis.com/auth/cloud-platform.read-only"
_TIMEOUT = (4.0, 8.0)


class GoogleTokens:
    """Gives tokens of a service account."""

    def __init__(self, threads: BoundedThreads, settings: GoogleSettings) -> None:
        self._threads, self._settings = threads, settings

    async def token(self, key: CloudKey) -> tuple[str, float]:
        """A token, and when it ends in seconds since the epoch. Raises AssumeFailed."""
        try:
            return await self._threads.run(STS_DEADLINE_SECONDS, self._token, key)
        except TimeoutError:
            raise AssumeFailed(Failure.UNREACHABLE, "Timeout") from None

    def _token(self, key: CloudKey) -> tuple[str, float]:
        """In its thread. The SDK is imported by who uses it."""
        import requests
        from google.auth import crypt
        from google.auth.exceptions import GoogleAuthError, RefreshError, TransportError
        from google.auth.transport.requests import Request
        from google.oauth2.service_account import Credentials

        try:
            rsa: Any = crypt.RSASigner
            signer = rsa.from_string(key.secret["private_key"], key.secret["private_key_id"])
            made: Any = Credentials(  # type: ignore[no-untyped-call]
                signer, key.public["service_account"], f"{self._settings.tokens}/token", scopes=[SCOPE]
            )
            with requests.Session() as session:
                session.max_redirects = 0
                made.refresh(partial(Request(session), timeout=_TIMEOUT))
        except TransportError:
            raise AssumeFailed(Failure.UNREACHABLE, "GoogleUnreachable") from None
        except RefreshError as error:
            raise _refused(error) from None
        except (GoogleAuthError, requests.RequestException):
            raise AssumeFailed(Failure.UNREACHABLE, "GoogleUnreachable") from None
        except ValueError:  # A private key that can't be read.
            raise AssumeFailed(Failure.DENIED, "CredentialUnusable") from None
        return str(made.token), made.expiry.replace(tzinfo=UTC).timestamp()


def _refused(error: Any) -> AssumeFailed:
    """What Google said, by its code alone (RFC 6749, section 5.2)."""
    said = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], dict) else {}
    code = str(said.get("error", ""))[:64]
    if error.retryable or not code.replace("_", "").isalpha():
        return AssumeFailed(Failure.UNREACHABLE, "GoogleUnreachable")
    return AssumeFailed(Failure.DENIED, code)
