"""AWS KMS: Encrypt and Decrypt under a key's ARN with an encryption context, by the process's own AWS identity.

AWS keeps a key's older backing keys under the same ARN, so a version of a KEK is a key of its own here. An alias can
name another key tomorrow, and isn't taken.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)

from services._mesh.kms.interface import Binding, EnvelopeBroken, Kek, KmsCause, failure
from services._mesh.threads import BoundedThreads

_ARN = re.compile(r"arn:aws[a-z-]{0,16}:kms:([a-z0-9-]{5,32}):[0-9]{12}:key/[A-Za-z0-9-]{1,64}")
_CAUSES: Mapping[str, KmsCause] = {
    "DisabledException": KmsCause.DISABLED,
    "KMSInvalidStateException": KmsCause.RETIRED,  # Waits to be deleted, or its material is gone.
    "NotFoundException": KmsCause.MISSING,
    "InvalidArnException": KmsCause.MISSING,
    "ValidationException": KmsCause.MISSING,
    "AccessDeniedException": KmsCause.DENIED,
    "UnrecognizedClientException": KmsCause.DENIED,
    "InvalidSignatureException": KmsCause.DENIED,
    "ExpiredTokenException": KmsCause.DENIED,
    "ThrottlingException": KmsCause.THROTTLED,
    "LimitExceededException": KmsCause.THROTTLED,
    "DependencyTimeoutException": KmsCause.TIMEOUT,
}
_BROKEN = frozenset({"InvalidCiphertextException", "IncorrectKeyException", "InvalidKeyUsageException"})


class AwsKms:
    """AWS KMS in the regions that are given (in any, where none is). `endpoint_url` is for tests."""

    def __init__(
        self, threads: BoundedThreads, deadline_seconds: float, regions: Sequence[str] = (), endpoint_url: str = ""
    ) -> None:
        self._threads, self._deadline, self._regions = threads, deadline_seconds, tuple(regions)
        self._endpoint = endpoint_url or None
        self._clients: dict[str, Any] = {}
        self._making = threading.Lock()

    async def wrap(self, kek: Kek, material: bytes, binding: Binding) -> bytes:
        """See Kms."""
        answer = await self._call(kek, "encrypt", Plaintext=material, EncryptionContext=dict(binding.pairs()))
        return bytes(answer["CiphertextBlob"])

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Binding) -> bytes:
        """See Kms."""
        answer = await self._call(kek, "decrypt", CiphertextBlob=wrapped, EncryptionContext=dict(binding.pairs()))
        return bytes(answer["Plaintext"])

    async def _call(self, kek: Kek, operation: str, **given: Any) -> dict[str, Any]:
        found = _ARN.fullmatch(kek.reference)
        if found is None:
            raise failure(KmsCause.MISSING, kek)
        if self._regions and found[1] not in self._regions:
            raise failure(KmsCause.WRONG_REGION, kek)

        def call() -> dict[str, Any]:
            made: Callable[..., dict[str, Any]] = getattr(self._client(found[1]), operation)
            return made(KeyId=kek.reference, **given)

        try:
            return await self._threads.run(self._deadline, call)
        except (BotoCoreError, ClientError, TimeoutError) as error:
            raise _meaning(error, kek) from None

    def _client(self, region: str) -> Any:
        """The region's client; made one at a time, as boto3 wants it. The SDK gives up before our deadline does."""
        with self._making:
            if region not in self._clients:
                config = Config(
                    connect_timeout=self._deadline * 0.4,
                    read_timeout=self._deadline * 0.5,
                    retries={"total_max_attempts": 1},
                    max_pool_connections=16,
                )
                self._clients[region] = boto3.session.Session().client(
                    "kms", region_name=region, endpoint_url=self._endpoint, config=config
                )
            return self._clients[region]


def _meaning(error: Exception, kek: Kek) -> Exception:
    if isinstance(error, ClientError):
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _BROKEN:
            return EnvelopeBroken("the envelope doesn't open")
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        by_status = {403: KmsCause.DENIED, 429: KmsCause.THROTTLED}.get(status, KmsCause.UNREACHABLE)
        return failure(_CAUSES.get(code, by_status), kek)
    if isinstance(error, (TimeoutError, ConnectTimeoutError, ReadTimeoutError)):
        return failure(KmsCause.TIMEOUT, kek)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return failure(KmsCause.DENIED, kek)
    return failure(KmsCause.UNREACHABLE, kek)
