"""Azure Key Vault as a fake."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from azure.core.credentials import AccessToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from recoup_local.ca import LocalCa
from services._mesh.kms.azure import AzureKms
from services._mesh.kms.interface import Kek, KeyService, Kms
from services._mesh.threads import BoundedThreads
from tests.support.key_services.http import Server
from tests.support.key_services.keeper import ALL, Keeper, State


@cache
def _rsa() -> tuple[rsa.RSAPrivateKey, rsa.RSAPrivateKey]:
    first, second = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    return first, second


class _Credential:
    """An Azure identity that is always given a token."""

    def get_token(self, *_: str, **__: Any) -> Any:
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
    ca = LocalCa(folder / "ca")
    ca.issue("vault", folder / "vault", dns=("vault",))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "vault" / "tls.pem", folder / "vault" / "tls.key")
    state, oaep = State(), padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
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

    server, threads = Server(answer, context), BoundedThreads(4, "azure")
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
