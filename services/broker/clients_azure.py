"""Entra's token service, by azure-identity: in bounded threads, with deadlines, at the authority that is configured.

`https://management.azure.com/.default` is the narrowest scope that there is: Azure has no token for one subscription.
What it may do is what the application's roles allow; which subscription it is for is held against what was sealed.
"""

from __future__ import annotations

import re
from typing import Any

from services._mesh.aws import Failure
from services._mesh.clouds import AzureSettings
from services._mesh.threads import BoundedThreads
from services.broker.clients import STS_DEADLINE_SECONDS, AssumeFailed
from services.broker.federation import Issuer, own_assertion
from services.broker.model.cloud_key import AZURE_AUDIENCE, CloudKey

_CODE = re.compile(r"AADSTS[0-9]{4,8}")
# What MSAL says of a directory that Entra refuses to tell of; it keeps the code to itself.
_NO_DIRECTORY = "Unable to get authority configuration"
_CONNECT_SECONDS, _READ_SECONDS = 4, 8


class Entra:
    """Gives tokens of Azure's management API. `verify` is a file with the CA, for tests."""

    def __init__(
        self,
        threads: BoundedThreads,
        settings: AzureSettings,
        verify: str | bool = True,
        issuer: Issuer | None = None,
    ) -> None:
        self._threads, self._settings, self._verify, self._issuer = threads, settings, verify, issuer

    async def token(self, key: CloudKey, subject: str) -> tuple[str, float]:
        """A token, and when it ends in seconds since the epoch. Raises AssumeFailed."""
        try:
            return await self._threads.run(STS_DEADLINE_SECONDS, self._token, key, subject)
        except TimeoutError:
            raise AssumeFailed(Failure.UNREACHABLE, "Timeout") from None

    def _token(self, key: CloudKey, subject: str) -> tuple[str, float]:
        """In its thread. An SDK takes a second and 40 MiB to import, which only who uses it pays."""
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.core.pipeline.transport import RequestsTransport
        from azure.identity import CertificateCredential, ClientAssertionCredential, ClientSecretCredential

        # The environment's proxy is the operator's, for a host that is the operator's word too.
        transport = RequestsTransport(
            connection_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS, connection_verify=self._verify
        )
        more: dict[str, Any] = {
            "authority": self._settings.authority,
            "disable_instance_discovery": True,
            "transport": transport,
            "retry_total": 1,
        }
        tenant, client = key.public["tenant_id"], key.public["client_id"]
        try:
            if certificate := key.secret.get("certificate", ""):
                given = certificate.encode()
                made: Any = CertificateCredential(tenant, client, certificate_data=given, **more)
            elif secret := key.secret.get("client_secret", ""):
                made = ClientSecretCredential(tenant, client, secret, **more)
            else:
                shown = own_assertion(self._issuer, subject, AZURE_AUDIENCE, key.public.get("issuer", ""))
                made = ClientAssertionCredential(tenant, client, lambda: shown, **more)
            with made:
                found = made.get_token(f"{self._settings.management}/.default")
        except ClientAuthenticationError as error:
            raise _refused(error) from None
        except (AzureError, OSError):
            raise AssumeFailed(Failure.UNREACHABLE, "EntraUnreachable") from None
        except ValueError:  # A certificate that can't be read, or a directory that MSAL can't find.
            raise AssumeFailed(Failure.DENIED, "CredentialUnusable") from None
        return str(found.token), float(found.expires_on)


def _refused(error: Exception) -> AssumeFailed:
    """What Entra said, by its code alone: its text can hold what was sent."""
    status = int(getattr(getattr(error, "response", None), "status_code", 0) or 0)
    code = _CODE.search(str(error))
    if _NO_DIRECTORY in str(error):
        return AssumeFailed(Failure.DENIED, "invalid_tenant")
    if status == 429:
        return AssumeFailed(Failure.THROTTLED, code[0] if code else "Throttled")
    if code is None and (status == 0 or status >= 500):
        return AssumeFailed(Failure.UNREACHABLE, "EntraUnreachable")
    return AssumeFailed(Failure.DENIED, code[0] if code else "Unauthorized")
