"""AWS KMS as a fake that, other than moto, knows disabled keys."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services._mesh.kms.aws import AwsKms
from services._mesh.kms.interface import Kek, KeyService
from services._mesh.threads import BoundedThreads
from tests.support.key_services.http import Server
from tests.support.key_services.keeper import ALL, Keeper, State

_AWS_CODES = {
    "DISABLED": (400, "DisabledException"),
    "MISSING": (400, "NotFoundException"),
    "RETIRED": (400, "KMSInvalidStateException"),
    "DENIED": (400, "AccessDeniedException"),
    "THROTTLED": (400, "ThrottlingException"),
}


@asynccontextmanager
async def aws_kms() -> AsyncIterator[Keeper]:
    """AWS KMS as a fake that, other than moto, knows disabled keys, and refuses what is over."""
    keys = {f"arn:aws:kms:eu-central-1:111122223333:key/{name}": AESGCM(os.urandom(32)) for name in ("one", "two")}
    state = State()

    def answer(method: str, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], Any]:
        if state.name == "TIMEOUT":
            state.released.wait()
        if state.name in ("TIMEOUT", "UNREACHABLE"):
            return 0, {}, None
        given = json.loads(body)
        if state.name:
            status, code = _AWS_CODES[state.name]
            return status, {}, {"__type": code, "message": code}
        if given["KeyId"] not in keys:
            return 400, {}, {"__type": "NotFoundException", "message": "no such key"}
        aad = json.dumps(given.get("EncryptionContext", {}), sort_keys=True).encode()
        cipher = keys[given["KeyId"]]
        if headers["x-amz-target"].endswith("Encrypt"):
            nonce = os.urandom(12)
            sealed = nonce + cipher.encrypt(nonce, base64.b64decode(given["Plaintext"]), aad)
            return 200, {}, {"CiphertextBlob": base64.b64encode(sealed).decode(), "KeyId": given["KeyId"]}
        try:
            sealed = base64.b64decode(given["CiphertextBlob"])
            opened = cipher.decrypt(sealed[:12], sealed[12:], aad)
        except (InvalidTag, ValueError):
            return 400, {}, {"__type": "InvalidCiphertextException"}
        return 200, {}, {"Plaintext": base64.b64encode(opened).decode(), "KeyId": given["KeyId"]}

    server, threads = Server(answer, None), BoundedThreads(4, "aws")
    url = f"http://127.0.0.1:{server.server_port}"
    one, two = (Kek(KeyService.AWS, arn) for arn in keys)
    elsewhere = Kek(KeyService.AWS, one.reference.replace("eu-central-1", "us-east-1"))
    try:
        opened = lambda seconds: AwsKms(threads, seconds, ["eu-central-1"], url)  # noqa: E731
        yield Keeper(one, two, elsewhere, opened, state.set, can_be=dict(ALL))
    finally:
        state.released.set()
        server.stop()
        threads.close()
