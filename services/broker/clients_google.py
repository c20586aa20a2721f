"""Google's token service, by google-auth: in bounded threads, with deadlines, at the address that is configured.

Tokens are for reading only. Narrower ones exist for Cloud Storage alone (credential access boundaries).
"""

from __future__ import annotations

import re
from datetime import UTC
from functools import partial
from typing import Any
from urllib.parse import quote

from services._mesh.aws import Failure
from services._mesh.clouds import GoogleSettings
from services._mesh.threads import BoundedThreads
from services.broker.clients import STS_DEADLINE_SECONDS, AssumeFailed
from services.broker.federation import Issuer, own_assertion
from services.broker.model.cloud_key import CloudKey

SCOPE = "https://www.googleapis.com/auth/cloud-platform.read-only"
_STS_CODE = re.compile(r"Error code ([a-z_]{1,40})")
_TIMEOUT = (4.0, 8.0)


class GoogleTokens:
    """Gives tokens of a service account."""

    def __init__(self, threads: BoundedThreads, settings: GoogleSettings, issuer: Issuer | None = None) -> None:
        self._threads, self._settings, self._issuer = threads, settings, issuer

    async def token(self, key: CloudKey, subject: str) -> tuple[str, float]:
        """A token, and when it ends in seconds since the epoch. Raises AssumeFailed."""
        try:
            return await self._threads.run(STS_DEADLINE_SECONDS, self._token, key, subject)
        except TimeoutError:
            raise AssumeFailed(Failure.UNREACHABLE, "Timeout") from None

    def _token(self, key: CloudKey, subject: str) -> tuple[str, float]:
        """In its thread. The SDK is imported by who uses it."""
        import requests
        from google.auth.exceptions import GoogleAuthError, OAuthError, RefreshError, TransportError
        from google.auth.transport.requests import Request

        try:
            made = self._own(key) if "private_key" in key.secret else self._federated(key, subject)
            with requests.Session() as session:
                session.max_redirects = 0
                made.refresh(partial(Request(session), timeout=_TIMEOUT))
        except TransportError:
            raise AssumeFailed(Failure.UNREACHABLE, "GoogleUnreachable") from None
        except RefreshError as error:
            raise _refused(error) from None
        except OAuthError as error:
            code = _STS_CODE.search(str(error.args[0])[:200])
            raise AssumeFailed(Failure.DENIED, f"sts_{code[1]}" if code else "sts_refused") from None
        except (GoogleAuthError, requests.RequestException):
            raise AssumeFailed(Failure.UNREACHABLE, "GoogleUnreachable") from None
        except ValueError:  # A private key that can't be read.
            raise AssumeFailed(Failure.DENIED, "CredentialUnusable") from None
        return str(made.token), made.expiry.replace(tzinfo=UTC).timestamp()

    def _own(self, key: CloudKey) -> Any:
        """By the service account's own key."""
        from google.auth import crypt
        from google.oauth2.service_account import Credentials

        rsa: Any = crypt.RSASigner
        signer = rsa.from_string(key.secret["private_key"], key.secret["private_key_id"])
        return Credentials(  # type: ignore[no-untyped-call]
            signer, key.public["service_account"], f"{self._settings.tokens}/token", scopes=[SCOPE]
        )

    def _federated(self, key: CloudKey, subject: str) -> Any:
        """By an assertion of ours, for which we may be the service account. All addresses are the operator's."""
        from google.auth import identity_pool

        audience = f"//iam.googleapis.com/{key.public['workload_identity_provider']}"
        shown = own_assertion(self._issuer, subject, audience, key.public.get("issuer", ""))

        class Supplier(identity_pool.SubjectTokenSupplier):
            def get_subject_token(self, context: Any, request: Any) -> str:
                return shown

        email = quote(key.public["service_account"], safe="@")
        acting = f"{self._settings.iam_credentials}/v1/projects/-/serviceAccounts/{email}:generateAccessToken"
        made: Any = identity_pool.Credentials
        return made(
            audience=audience,
            subject_token_type="urn:ietf:params:oauth:token-type:jwt",  # noqa: S106  # A name, of RFC 8693.
            token_url=f"{self._settings.sts}/v1/token",
            subject_token_supplier=Supplier(),
            service_account_impersonation_url=acting,
            scopes=[SCOPE],
        )


def _refused(error: Any) -> AssumeFailed:
    """What Google said, by its code alone (RFC 6749, section 5.2)."""
    if isinstance(error.args[-1], str) and '"PERMISSION_DENIED"' in error.args[-1]:
        return AssumeFailed(Failure.DENIED, "impersonation_refused")
    said = error.args[1] if len(error.args) > 1 and isinstance(error.args[1], dict) else {}
    code = str(said.get("error", ""))[:64]
    if error.retryable or not code.replace("_", "").isalpha():
        return AssumeFailed(Failure.UNREACHABLE, "GoogleUnreachable")
    return AssumeFailed(Failure.DENIED, code)
