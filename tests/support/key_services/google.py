"""Google Cloud KMS as a fake."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.auth.credentials import AnonymousCredentials
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports import (
    KeyManagementServiceGrpcAsyncIOTransport,
)

from services._mesh.kms.google import GoogleKms
from services._mesh.kms.interface import Kek, KeyService
from tests.support.key_services.keeper import ALL, Keeper, State

_GOOGLE_CODES = {
    "DISABLED": (grpc.StatusCode.FAILED_PRECONDITION, "is not enabled, current state is: DISABLED."),
    "MISSING": (grpc.StatusCode.NOT_FOUND, "CryptoKey not found."),
    "RETIRED": (grpc.StatusCode.FAILED_PRECONDITION, "is not enabled, current state is: DESTROY_SCHEDULED."),
    "DENIED": (grpc.StatusCode.PERMISSION_DENIED, "Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied."),
    "THROTTLED": (grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded."),
    "UNREACHABLE": (grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable."),
}


@asynccontextmanager
async def google_kms() -> AsyncIterator[Keeper]:
    """Google Cloud KMS over gRPC: which version decrypts is told by the ciphertext, as there."""
    key = "projects/acme/locations/europe-west3/keyRings/recoup/cryptoKeys/acme"
    keys = {f"{key}/cryptoKeyVersions/{number}": AESGCM(os.urandom(32)) for number in (1, 2)}
    state = State()

    async def check(name: str, known: Any, right: str, context: Any) -> None:
        if state.name == "TIMEOUT":
            await asyncio.Event().wait()
        if state.name:
            await context.abort(*_GOOGLE_CODES[state.name])
        if state.lacks(f"cloudkms.cryptoKeyVersions.{right}"):
            await context.abort(*_GOOGLE_CODES["DENIED"])
        if name not in known:
            await context.abort(grpc.StatusCode.NOT_FOUND, "CryptoKey not found.")

    async def encrypt(request: Any, context: Any) -> Any:
        await check(request.name, keys, "useToEncrypt", context)
        sealed = keys[request.name].encrypt(bytes(12), request.plaintext, request.additional_authenticated_data)
        return kms_v1.EncryptResponse(name=request.name, ciphertext=request.name[-1:].encode() + sealed)

    async def decrypt(request: Any, context: Any) -> Any:
        await check(request.name, {key}, "useToDecrypt", context)
        try:
            cipher = keys[f"{key}/cryptoKeyVersions/{request.ciphertext[:1].decode()}"]
            opened = cipher.decrypt(bytes(12), request.ciphertext[1:], request.additional_authenticated_data)
        except (InvalidTag, KeyError, ValueError):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Decryption failed: the ciphertext is invalid.")
        return kms_v1.DecryptResponse(plaintext=opened)

    server = _server(encrypt, decrypt)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")

    def client() -> Any:
        nobody: Any = AnonymousCredentials()  # type: ignore[no-untyped-call]
        transport = KeyManagementServiceGrpcAsyncIOTransport(channel=channel, credentials=nobody)
        return kms_v1.KeyManagementServiceAsyncClient(transport=transport)

    one, two = (Kek(KeyService.GOOGLE, name) for name in keys)
    elsewhere = Kek(KeyService.GOOGLE, one.reference.replace("europe-west3", "us-east1"))
    try:
        opened = lambda seconds: GoogleKms(seconds, ["europe-west3"], client)  # noqa: E731
        yield Keeper(one, two, elsewhere, opened, state.set, state.set_rights, dict(ALL))
    finally:
        await channel.close()
        await server.stop(None)


def _server(encrypt: Any, decrypt: Any) -> grpc.aio.Server:
    def handler(call: Any, request: Any, answer: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(call, request.deserialize, answer.serialize)

    server = grpc.aio.server()
    handlers = {
        "Encrypt": handler(encrypt, kms_v1.EncryptRequest, kms_v1.EncryptResponse),
        "Decrypt": handler(decrypt, kms_v1.DecryptRequest, kms_v1.DecryptResponse),
    }
    service = "google.cloud.kms.v1.KeyManagementService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    return server
