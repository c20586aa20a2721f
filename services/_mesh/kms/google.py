"""Google Cloud KMS: Encrypt and Decrypt under one CryptoKeyVersion with AAD, by the process's own Google identity.

Decrypt is asked of the key and not of a version, so the version is bound by the AAD, which has its name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud import kms_v1

from services._mesh.kms.interface import Binding, EnvelopeBroken, Kek, KmsCause, failure

_VERSION = re.compile(
    r"(projects/[a-z0-9.:-]{1,64}/locations/([a-z0-9-]{2,32})/keyRings/[A-Za-z0-9_-]{1,63}"
    r"/cryptoKeys/[A-Za-z0-9_-]{1,63})/cryptoKeyVersions/[1-9][0-9]{0,8}"
)


class GoogleKms:
    """Google Cloud KMS in the locations that are given (in any, where none is).

    `client` makes the client when it is first needed, in a thread: finding the identity asks the metadata server.
    """

    def __init__(
        self,
        deadline_seconds: float,
        locations: Sequence[str] = (),
        client: Callable[[], kms_v1.KeyManagementServiceAsyncClient] = kms_v1.KeyManagementServiceAsyncClient,
    ) -> None:
        self._deadline, self._locations, self._make = deadline_seconds, tuple(locations), client
        self._made: Any = None
        self._making = asyncio.Lock()

    async def wrap(self, kek: Kek, material: bytes, binding: Binding) -> bytes:
        """See Kms."""
        self._key(kek)
        request = {"name": kek.reference, "plaintext": material, "additional_authenticated_data": binding.aad}
        return bytes((await self._call(kek, "encrypt", request)).ciphertext)

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Binding) -> bytes:
        """See Kms."""
        request = {"name": self._key(kek), "ciphertext": wrapped, "additional_authenticated_data": binding.aad}
        return bytes((await self._call(kek, "decrypt", request)).plaintext)

    def _key(self, kek: Kek) -> str:
        """The name of the key that this is a version of."""
        found = _VERSION.fullmatch(kek.reference)
        if found is None:
            raise failure(KmsCause.MISSING, kek)
        if self._locations and found[2] not in self._locations:
            raise failure(KmsCause.WRONG_REGION, kek)
        return found[1]

    async def _call(self, kek: Kek, operation: str, request: dict[str, Any]) -> Any:
        try:
            async with asyncio.timeout(self._deadline):
                client = await self._client()
                made: Callable[..., Awaitable[Any]] = getattr(client, operation)
                return await made(request=request, retry=None, timeout=self._deadline)
        except (exceptions.GoogleAPICallError, GoogleAuthError, TimeoutError) as error:
            raise _meaning(error, kek) from None

    async def _client(self) -> Any:
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made


def _meaning(error: Exception, kek: Kek) -> Exception:
    if isinstance(error, exceptions.InvalidArgument):
        return EnvelopeBroken("the envelope doesn't open")
    return failure(_cause(error), kek)


def _cause(error: Exception) -> KmsCause:
    if isinstance(error, (TimeoutError, exceptions.DeadlineExceeded, exceptions.GatewayTimeout)):
        return KmsCause.TIMEOUT
    if isinstance(error, exceptions.NotFound):
        return KmsCause.MISSING
    if isinstance(error, exceptions.FailedPrecondition):
        return KmsCause.RETIRED if "DESTROY" in str(error) else KmsCause.DISABLED
    if isinstance(error, (exceptions.TooManyRequests, exceptions.ResourceExhausted)):
        return KmsCause.THROTTLED
    if isinstance(error, (exceptions.Forbidden, exceptions.Unauthenticated, exceptions.Unauthorized, GoogleAuthError)):
        return KmsCause.DENIED
    return KmsCause.UNREACHABLE
