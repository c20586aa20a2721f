"""Thin local fakes of AWS KMS, Azure Key Vault and Google Cloud KMS, spoken to by their official SDKs.

They know one key each with two versions, do real cryptography, and answer as their service does for what `state` says.
DENIED is a state like the others; Azure's and Google's fakes also hold callers to the rights of a role.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recoup_local.ca import LocalCa
from services._mesh.kms.interface import Kek, KeyService, Kms
from services._mesh.threads import BoundedThreads
from tests.support.kms import RING, Ring

DEADLINE_SECONDS = 20.0
SHORT_SECONDS = 0.4


@dataclass
class Keeper:
    """A key service under test: two versions of one KEK, one that lies elsewhere, and how to open it.

    `can_be` are the states that it knows, with the cause that we make of each.
    """

    kek: Kek
    newer: Kek
    elsewhere: Kek
    open: Callable[[float], Kms]
    set_state: Callable[[str], None]
    set_rights: Callable[[Collection[str]], None] = lambda _: None
    can_be: dict[str, str] = field(default_factory=dict)


ALL = {name: name for name in ("DISABLED", "MISSING", "RETIRED", "DENIED", "THROTTLED", "TIMEOUT", "UNREACHABLE")}


@asynccontextmanager
async def file_kms(folder: Path) -> AsyncIterator[Keeper]:
    """The file KMS, which answers what its file says."""
    ring = Ring(folder)
    fifo = folder / "never-written"
    os.mkfifo(fifo)
    state = {"hangs": False}

    def set_state(name: str) -> None:
        state["hangs"] = name == "TIMEOUT"
        ring.set_states({kek.reference: name for kek in (keeper.kek, keeper.newer) if name not in ("", "TIMEOUT")})

    def opened(deadline_seconds: float) -> Kms:
        return ring.open(fifo if state["hangs"] else ring.whole_file, deadline_seconds)

    kek, newer = (Kek(KeyService.FILE, f"{RING}/acme/{number}") for number in (1, 2))
    elsewhere = Kek(KeyService.FILE, "file:another/acme/1")
    keeper = Keeper(kek, newer, elsewhere, opened, set_state, can_be=dict(ALL))
    try:
        yield keeper
    finally:
        # Whoever waits for a writer is let go.
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK)) if not state["hangs"] else _release(fifo)
        ring.threads.close()


def _release(fifo: Path) -> None:
    with fifo.open("r+b", buffering=0) as end:
        end.write(b"{")


class _State:
    """What a fake answers with. `released` lets those go who were left hanging; `rights` are the caller's role's."""

    def __init__(self) -> None:
        self.name, self.released = "", threading.Event()
        self.rights: Collection[str] | None = None

    def lacks(self, right: str) -> bool:
        """Whether the caller's role, where it has one, lacks a right."""
        return self.rights is not None and right not in self.rights

    def set_rights(self, rights: Collection[str]) -> None:
        self.rights = rights

    def set(self, name: str) -> None:
        self.name = name


class _Server(ThreadingHTTPServer):
    """HTTP on loopback. `answer` gives status, headers and a document for method, path, headers and body."""

    daemon_threads = True

    def __init__(self, answer: Callable[..., tuple[int, dict[str, str], Any]], context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever gave up waiting isn't news."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        status, headers, document = self.server.answer(self.command, self.path, self.headers, body)
        if status == 0:
            self.close_connection = True
            return
        said = json.dumps(document).encode()
        self.send_response(status)
        for key, value in {**headers, "content-type": "application/json", "content-length": str(len(said))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = _any

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


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
    from services._mesh.kms.aws import AwsKms

    keys = {f"arn:aws:kms:eu-central-1:111122223333:key/{name}": AESGCM(os.urandom(32)) for name in ("one", "two")}
    state = _State()

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

    server, threads = _Server(answer, None), BoundedThreads(4, "aws")
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


@cache
def _rsa() -> tuple[rsa.RSAPrivateKey, rsa.RSAPrivateKey]:
    first, second = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    return first, second


class _Credential:
    """An Azure identity that is always given a token."""

    def get_token(self, *_: str, **__: Any) -> Any:
        from azure.core.credentials import AccessToken

        return AccessToken("token", 4102444800)


_AZURE_CODES = {
    "DISABLED": (403, "Forbidden", "KeyDisabled", "Operation unwrapKey is not allowed on a disabled key."),
    "MISSING": (404, "KeyNotFound", "", "A key with this name and version was not found in this key vault."),
    "RETIRED": (404, "KeyNotFound", "", "A key with this name and version was not found in this key vault."),
    "DENIED": (403, "Forbidden", "ForbiddenByRbac", "Caller is not authorized to perform action on resource."),
    "THROTTLED": (429, "Throttled", "", "Request was not processed because too many requests were received."),
}


@asynccontextmanager
async def azure_kms(folder: Path) -> AsyncIterator[Keeper]:
    """Azure Key Vault over TLS, with its challenge. Its identities may not read keys."""
    from services._mesh.kms.azure import AzureKms

    ca = LocalCa(folder / "ca")
    ca.issue("vault", folder / "vault", dns=("vault",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "vault" / "tls.pem", folder / "vault" / "tls.key")
    state, oaep = _State(), padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    keys = dict(zip(("1" * 32, "2" * 32), _rsa(), strict=True))

    def answer(method: str, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], Any]:
        if "authorization" not in headers:
            challenge = 'Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net"'
            return 401, {"www-authenticate": challenge}, {}
        if state.name == "TIMEOUT":
            state.released.wait()
        if state.name in ("TIMEOUT", "UNREACHABLE"):
            return 0, {}, None
        if method == "GET":
            return 403, {}, _azure_error("Forbidden", "ForbiddenByRbac", "Caller is not authorized to read keys.")
        if state.name:
            status, *said = _AZURE_CODES[state.name]
            return status, {}, _azure_error(*said)
        _, _, name, version, operation = path.split("?")[0].split("/")
        if name != "recoup" or version not in keys:
            return 404, {}, _azure_error("KeyNotFound", "", "no such key")
        if state.lacks(f"Microsoft.KeyVault/vaults/keys/{operation.removesuffix('key')}/action"):
            return 403, {}, _azure_error("Forbidden", "ForbiddenByRbac", "Caller is not authorized to do it.")
        given = json.loads(body)
        value = base64.urlsafe_b64decode(given["value"] + "==")
        assert given["alg"] == "RSA-OAEP-256"
        try:
            done = (
                keys[version].public_key().encrypt(value, oaep)
                if operation == "wrapkey"
                else keys[version].decrypt(value, oaep)
            )
        except ValueError:
            return 400, {}, _azure_error("BadParameter", "", "The parameter is incorrect.")
        return 200, {}, {"kid": path, "value": base64.urlsafe_b64encode(done).decode().rstrip("=")}

    server, threads = _Server(answer, context), BoundedThreads(4, "azure")
    host = f"localhost:{server.server_port}"
    one, two = (Kek(KeyService.AZURE, f"https://{host}/keys/recoup/{version}") for version in keys)
    elsewhere = Kek(KeyService.AZURE, one.reference.replace(host, "recoup.vault.azure.cn"))

    def opened(seconds: float) -> Kms:
        return AzureKms(threads, seconds, [host], _Credential, str(ca.cert_file))

    # A version that is gone is one that isn't found.
    try:
        yield Keeper(one, two, elsewhere, opened, state.set, state.set_rights, {**ALL, "RETIRED": "MISSING"})
    finally:
        state.released.set()
        server.stop()
        threads.close()


def _azure_error(code: str, inner: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "innererror": {"code": inner}}}


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
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import kms_v1
    from google.cloud.kms_v1.services.key_management_service.transports import (
        KeyManagementServiceGrpcAsyncIOTransport,
    )

    from services._mesh.kms.google import GoogleKms

    key = "projects/acme/locations/europe-west3/keyRings/recoup/cryptoKeys/acme"
    keys = {f"{key}/cryptoKeyVersions/{number}": AESGCM(os.urandom(32)) for number in (1, 2)}
    state = _State()

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

    def handler(call: Any, request: Any, answer: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(call, request.deserialize, answer.serialize)

    server = grpc.aio.server()
    handlers = {
        "Encrypt": handler(encrypt, kms_v1.EncryptRequest, kms_v1.EncryptResponse),
        "Decrypt": handler(decrypt, kms_v1.DecryptRequest, kms_v1.DecryptResponse),
    }
    service = "google.cloud.kms.v1.KeyManagementService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
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
