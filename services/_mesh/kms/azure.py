"""Azure Key Vault: wrapKey and unwrapKey (RSA-OAEP-256) under a version of a key, by the process's own Azure identity.

RSA-OAEP takes no context: what binds the secret to its organization is HKDF's info and the payload's AAD. A key's
identifier comes from a row, and our token goes where it points: only to Azure's own hosts, or to those that are given.
Where only the end of a host's name is given, the organization says the rest, so that what it names is a tenant's URL.
Our identities may not read keys (deploy/kms), so that the SDK asks for each wrap too, and a disabled key wraps nothing.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseTimeoutError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

from services._mesh import egress_http
from services._mesh.egress import EgressRefused, Resolve, look_up
from services._mesh.kms.interface import Binding, EnvelopeBroken, Kek, KmsCause, failure
from services._mesh.threads import BoundedThreads

HOSTS = (".vault.azure.net", ".managedhsm.azure.net")
_ID = re.compile(r"https://([a-z0-9.-]{3,128}(?::[0-9]{1,5})?)/keys/[A-Za-z0-9-]{1,127}/[0-9A-Za-z]{1,64}")
_MAX_CLIENTS = 256
_MAX_ANSWER_BYTES = 256 * 1024
_ALGORITHM = KeyWrapAlgorithm.rsa_oaep_256


class AzureKms:
    """Azure Key Vault at the hosts that are given, each a host's name or, with a leading dot, the end of one.

    `credential` makes the token credential when it is first needed; `verify` is a file with the CA, and `resolve` the
    DNS, for tests.
    """

    def __init__(
        self,
        threads: BoundedThreads,
        deadline_seconds: float,
        hosts: Sequence[str] = HOSTS,
        credential: Callable[[], Any] | None = None,
        verify: str | bool = True,
        resolve: Resolve = look_up,
    ) -> None:
        self._threads, self._deadline, self._hosts = threads, deadline_seconds, tuple(hosts)
        self._credential, self._verify, self._resolve = credential or _own_identity, verify, resolve
        self._token: Any = None
        self._clients: OrderedDict[str, CryptographyClient] = OrderedDict()
        self._making = threading.Lock()

    async def wrap(self, kek: Kek, material: bytes, binding: Binding) -> bytes:
        """See Kms."""
        done = await self._call(kek, lambda client: client.wrap_key(_ALGORITHM, material))
        return bytes(done.encrypted_key)

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Binding) -> bytes:
        """See Kms."""
        done = await self._call(kek, lambda client: client.unwrap_key(_ALGORITHM, wrapped))
        return bytes(done.key)

    async def _call(self, kek: Kek, call: Callable[[CryptographyClient], Any]) -> Any:
        found = _ID.fullmatch(kek.reference)
        if found is None:
            raise failure(KmsCause.MISSING, kek)
        is_tenants = found[1] not in self._hosts
        if is_tenants and not any(host.startswith(".") and found[1].endswith(host) for host in self._hosts):
            raise failure(KmsCause.WRONG_REGION, kek)
        try:
            return await self._threads.run(self._deadline, lambda: call(self._client(kek.reference, is_tenants)))
        except EgressRefused:
            raise failure(KmsCause.WRONG_REGION, kek) from None
        except (AzureError, TimeoutError, ValueError) as error:
            raise _meaning(error, kek) from None

    def _client(self, key_id: str, is_tenants: bool) -> CryptographyClient:
        """The key's client. The SDK gives up before our deadline does, and doesn't try again."""
        with self._making:
            if key_id in self._clients:
                self._clients.move_to_end(key_id)
                return self._clients[key_id]
            self._token = self._token or self._credential()
            made = CryptographyClient(
                key_id,
                self._token,
                transport=self._transport(is_tenants),
                permit_redirects=False,
                retry_total=0,
                verify_challenge_resource=self._verify is True,
            )
            self._clients[key_id] = made
            while len(self._clients) > _MAX_CLIENTS:
                self._clients.popitem(last=False)
            return made

    def _transport(self, is_tenants: bool) -> RequestsTransport:
        """What sends: by the egress rule to what a tenant names, as the machine does to the operator's own hosts."""
        read_timeout = self._deadline * 0.5
        made = egress_http.session(_MAX_ANSWER_BYTES, read_timeout, resolve=self._resolve) if is_tenants else None
        return RequestsTransport(
            session=made,
            use_env_settings=not is_tenants,
            connection_timeout=self._deadline * 0.4,
            read_timeout=read_timeout,
            connection_verify=self._verify,
        )


def _own_identity() -> Any:
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


def _meaning(error: Exception, kek: Kek) -> Exception:
    if isinstance(error, (TimeoutError, ServiceRequestTimeoutError, ServiceResponseTimeoutError)):
        return failure(KmsCause.TIMEOUT, kek)
    if isinstance(error, ResourceNotFoundError):
        return failure(KmsCause.MISSING, kek)
    if isinstance(error, ClientAuthenticationError):
        return failure(KmsCause.DENIED, kek)
    if isinstance(error, ValueError):  # The SDK's own, for what the key can't be used with.
        return EnvelopeBroken("the envelope doesn't open")
    if isinstance(error, HttpResponseError) and not isinstance(error, ServiceRequestError):
        return _refusal(error, kek)
    return failure(KmsCause.UNREACHABLE, kek)


def _refusal(error: HttpResponseError, kek: Kek) -> Exception:
    said = f"{getattr(error.error, 'code', '')} {getattr(getattr(error.error, 'innererror', None), 'code', '')} {error}"
    if error.status_code == 400:
        return EnvelopeBroken("the envelope doesn't open")
    if error.status_code == 403:
        is_disabled = "KeyDisabled" in said or "disabled key" in said
        return failure(KmsCause.DISABLED if is_disabled else KmsCause.DENIED, kek)
    return failure(KmsCause.THROTTLED if error.status_code == 429 else KmsCause.UNREACHABLE, kek)
