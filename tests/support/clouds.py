"""Azure and Google Cloud as thin fakes on loopback, for the official SDKs: token services, and what a check asks.

Both verify what they are shown as the real ones do: a secret's value, an assertion's signature, audience and scope.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from joserfc.jwk import RSAKey

from recoup_local.ca import LocalCa
from services._mesh.clouds import AzureSettings, GoogleSettings
from services._mesh.threads import BoundedThreads
from services.broker.clients_azure import Entra
from services.broker.clients_google import GoogleTokens
from services.broker.federation import Issuer, documents
from services.broker.model.cloud_key import AZURE_AUDIENCE, AZURE_PURPOSE, GCP_PURPOSE
from services.broker.usecases import TokenGiver
from services.scanner.clients.azure import AzureReader
from services.scanner.clients.google import GoogleReader
from services.scanner.model.cloud import Provider
from tests.support.connecting import Others
from tests.support.key_services.http import Server

TENANT, CLIENT = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
PROD, DEV = "33333333-3333-4333-8333-333333333333", "44444444-4444-4444-8444-444444444444"
CLIENT_SECRET = "abc8Q~canary0003-jWlKq2xTz9dYpVnR4sLmUe7"
ISSUER = "https://recoup.example.com/federation"
POOL = "projects/123456/locations/global/workloadIdentityPools/recoup/providers/recoup"
EMAIL = "recoup@acme-prod.iam.gserviceaccount.com"
READ_ONLY = "https://www.googleapis.com/auth/cloud-platform.read-only"
Answer = tuple[int, dict[str, str], Any]


@cache
def private_key(number: int = 0) -> rsa.RSAPrivateKey:
    """A key, the same one each time."""
    return rsa.generate_private_key(65537, 2048)


def pem(key: Any, style: Any = serialization.PrivateFormat.PKCS8) -> str:
    """A private key in PEM."""
    nothing = serialization.NoEncryption()
    found: bytes = key.private_bytes(serialization.Encoding.PEM, style, nothing)
    return found.decode()


def certificate(key: Any, days: int = 30) -> x509.Certificate:
    """A certificate of a key, signed by itself, that ends so many days from now."""
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "recoup")]), datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(days=90)).not_valid_after(now + timedelta(days=days))
    return made.sign(key, hashes.SHA256())


def certificate_pem(made: x509.Certificate) -> str:
    """It in PEM."""
    return made.public_bytes(serialization.Encoding.PEM).decode()


def service_account_key(**changes: Any) -> dict[str, Any]:
    """A service account's key as Google gives it."""
    return {
        "type": "service_account",
        "project_id": "acme-prod",
        "private_key_id": "0123456789abcdef0123456789abcdef01234567",
        "private_key": pem(private_key()),
        "client_email": EMAIL,
        "client_id": "123456789012345678901",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
        **changes,
    }


@dataclass
class FakeAzure:
    """Entra and the management API of one directory. `roles` are permission sets by subscription, which it names;
    `signed_in` says what each token was given for.
    """

    folder: Path
    roles: dict[str, list[dict[str, list[str]]]] = field(default_factory=dict)
    registered: list[x509.Certificate] = field(default_factory=list)
    expired: bool = False
    away: bool = False
    elsewhere: str = ""
    trusts: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    signed_in: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        ca = LocalCa(self.folder / "azure")
        ca.issue("azure", self.folder / "azure-leaf", dns=("azure",))
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.folder / "azure-leaf" / "tls.pem", self.folder / "azure-leaf" / "tls.key")
        self.ca = str(ca.cert_file)
        self.server = Server(self._answer, self.tls)
        self.url = f"https://localhost:{self.server.server_port}"

    def _answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        if self.away:
            return 0, {}, None
        bare = path.split("?")[0]
        if bare.endswith("/openid-configuration"):
            if TENANT not in bare:
                return 400, {}, _oauth("invalid_tenant", "AADSTS90002: Tenant not found.")
            base = f"{self.url}/{TENANT}/oauth2/v2.0"
            return 200, {}, {"token_endpoint": f"{base}/token", "authorization_endpoint": base, "issuer": base}
        if method == "POST":
            return self._token({name: values[0] for name, values in parse_qs(body.decode()).items()})
        self.asked.append((path, str(headers.get("x-ms-correlation-request-id", ""))))
        if headers.get("authorization") != "Bearer azure-token":
            return 401, {}, {"error": {"code": "InvalidAuthenticationToken"}}
        return self._managed(bare, path)

    def _managed(self, bare: str, path: str) -> Answer:
        named = sorted(self.roles)
        if bare == "/subscriptions":  # A page for each, as far as there are more.
            at = int(path.partition("page=")[2] or 0)
            found = [{"subscriptionId": each, "displayName": f"name of {each[:2]}"} for each in named[at : at + 1]]
            host = self.elsewhere or self.url
            more = {"nextLink": f"{host}{path.split('&page')[0]}&page={at + 1}"} if at + 1 < len(named) else {}
            return 200, {}, {"value": found, **more}
        subscription = bare.split("/")[2]
        if subscription not in self.roles:
            return 404, {}, {"error": {"code": "SubscriptionNotFound", "message": "not found"}}
        return 200, {}, {"value": self.roles[subscription]}

    def _token(self, form: dict[str, str]) -> Answer:
        if form.get("client_id") != CLIENT:
            return 400, {}, _oauth("unauthorized_client", "AADSTS700016: Application not found in the directory.")
        assert form["scope"].split()[0] == f"{self.url}/.default"
        if self.expired:
            return 401, {}, _oauth("invalid_client", "AADSTS7000222: The provided client secret keys are expired.")
        if (assertion := form.get("client_assertion")) and self.trusts:
            if not trusted(assertion, self.trusts, AZURE_AUDIENCE):
                return 400, {}, _oauth("invalid_client", "AADSTS70021: No matching federated identity record found.")
        elif assertion:
            if not any(_is_signed(assertion, each.public_key(), "aud", f"{self.url}/{TENANT}/oauth2/v2.0/token")
                       for each in self.registered):  # fmt: skip
                return 401, {}, _oauth("invalid_client", "AADSTS700027: The certificate is not registered.")
        elif form.get("client_secret") != CLIENT_SECRET:
            sent = form.get("client_secret", "")
            return 401, {}, _oauth("invalid_client", f"AADSTS7000215: Invalid client secret provided: {sent}.")
        self.signed_in.append("secret" if "client_secret" in form else "assertion")
        return 200, {}, {"token_type": "Bearer", "expires_in": 3599, "access_token": "azure-token"}


@dataclass
class FakeGoogle:
    """Google's token service and the Resource Manager, over https with `tls`. `held` are permissions by project."""

    held: dict[str, list[str]] = field(default_factory=dict)
    accepts: Any = None
    disabled_api: bool = False
    trusts: str = ""
    may_act: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self.server = Server(self._answer, self.tls)
        self.url = f"{'https' if self.tls else 'http'}://localhost:{self.server.server_port}"
        self.accepts = self.accepts or private_key().public_key()

    def _answer(self, method: str, path: str, headers: Any, body: bytes) -> Answer:
        if path == "/token":
            form = parse_qs(body.decode())
            if not _is_signed(
                form["assertion"][0], self.accepts, "scope", READ_ONLY, "https://oauth2.googleapis.com/token"
            ):
                return 400, {}, _oauth("invalid_grant", "Invalid JWT Signature.")
            return 200, {}, {"access_token": "google-token", "expires_in": 3599, "token_type": "Bearer"}
        if path == "/v1/token":
            form = parse_qs(body.decode())
            if not trusted(form["subject_token"][0], self.trusts, f"//iam.googleapis.com/{POOL}"):
                return 400, {}, _oauth("invalid_grant", "The subject is unknown.")
            assert form["audience"] == [f"//iam.googleapis.com/{POOL}"]
            return 200, {}, {"access_token": "sts-token", "token_type": "Bearer", "expires_in": 3600,
                             "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}  # fmt: skip
        if path == f"/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken":
            if headers.get("authorization") != "Bearer sts-token" or not self.may_act:
                return 403, {}, {"error": {"code": 403, "status": "PERMISSION_DENIED"}}
            assert json.loads(body)["scope"] == [READ_ONLY]
            return 200, {}, {"accessToken": "google-token", "expireTime": "2100-01-01T00:00:00Z"}
        self.asked.append((path, str(headers.get("x-goog-request-reason", ""))))
        if headers.get("authorization") != "Bearer google-token":
            return 401, {}, {"error": {"status": "UNAUTHENTICATED"}}
        if self.disabled_api:
            details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "SERVICE_DISABLED"}]
            return 403, {}, {"error": {"code": 403, "status": "PERMISSION_DENIED", "details": details}}
        if path.startswith("/v3/projects:search"):
            projects = [{"projectId": each, "displayName": f"name of {each}"} for each in sorted(self.held)]
            return 200, {}, {"projects": projects}
        project = path.removeprefix("/v3/projects/").partition(":")[0]
        if project not in self.held:
            return 403, {}, {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}}
        if method == "GET":
            return 200, {}, {"projectId": project, "state": "ACTIVE"}
        return 200, {}, {"permissions": [p for p in json.loads(body)["permissions"] if p in self.held[project]]}


def parts(azure: FakeAzure, google: FakeGoogle, threads: BoundedThreads) -> Others:
    """What the broker and the worker reach them with."""
    at_azure = AzureSettings(azure.url, azure.url)
    at_google = GoogleSettings(google.url, google.url, google.url, google.url)
    issuer = Issuer(ISSUER, _issuer_key())
    tokens: dict[str, TokenGiver] = {
        AZURE_PURPOSE: Entra(threads, at_azure, azure.ca, issuer),
        GCP_PURPOSE: GoogleTokens(threads, at_google, issuer),
    }
    return (
        tokens,
        {Provider.AZURE: AzureReader(threads, at_azure, azure.ca), Provider.GCP: GoogleReader(threads, at_google)},
    )


def trusted(assertion: str, subject: str, audience: str) -> bool:
    """Whether an assertion is our issuer's, for this subject and audience, by what the issuer publishes."""
    made = documents(ISSUER, [_issuer_key()])
    assert made[".well-known/openid-configuration"]["jwks_uri"] == f"{ISSUER}/jwks.json"
    keys = {each["kid"]: each for each in made["jwks.json"]["keys"]}
    key = jwt.PyJWK(keys[jwt.get_unverified_header(assertion)["kid"]])
    try:
        found = jwt.decode(assertion, key, algorithms=["RS256"], audience=audience, issuer=ISSUER)
    except jwt.InvalidTokenError:
        return False
    return subject in ("*", found["sub"]) and found["exp"] - found["iat"] == 300


def _issuer_key() -> RSAKey:
    return RSAKey.import_key(pem(private_key(9)))


def _oauth(error: str, description: str) -> dict[str, str]:
    return {"error": error, "error_description": description}


def _is_signed(assertion: str, key: Any, claim: str, value: str, audience: str | None = None) -> bool:
    try:
        found = jwt.decode(assertion, key, algorithms=["RS256", "PS256"], audience=audience or value)
    except jwt.InvalidTokenError:
        return False
    return bool(found[claim] == value)
