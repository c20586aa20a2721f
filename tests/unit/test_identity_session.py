"""Session tokens: what is refused, with real signatures and a real JWKS server."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from recoup_local.issuer import AUDIENCE, ISSUER, Issuer, find_person, serve_jwks
from services._mesh.errors import Unavailable
from services.identity.clients import jwks
from services.identity.clients.jwks import SessionKeys, lint
from services.identity.model.session import Session, SessionExpired, SessionInvalid, read_claims

PERSON = find_person("acme", "Admin")


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


@pytest.fixture
def keys(issuer: Issuer) -> Iterator[SessionKeys]:
    server, address = serve_jwks(issuer)
    yield SessionKeys(address, None)
    server.shutdown()
    server.server_close()


async def accept(keys: SessionKeys, token: str) -> Session:
    return read_claims(await keys.claims(token), ISSUER, AUDIENCE, time.time())


async def test_a_good_session_is_read(issuer: Issuer, keys: SessionKeys) -> None:
    session = await accept(keys, issuer.token(PERSON, aal=2))
    assert (session.user_id, session.aal, session.email) == (PERSON.user_id, 2, PERSON.email)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": "anon"},
        {"aud": None},
        {"exp": None},
        {"sub": None},
        {"sub": "not-a-uuid"},
        {"session_id": None},
        {"role": "service_role"},
        {"role": "anon"},
        {"is_anonymous": True},
        {"iat": 4102444800},
        {"nbf": 4102444800},
        {"exp": "tomorrow"},
    ],
)
async def test_a_session_with_wrong_claims_is_refused(
    issuer: Issuer, keys: SessionKeys, changes: dict[str, object]
) -> None:
    with pytest.raises(SessionInvalid):
        await accept(keys, issuer.token(PERSON, **changes))  # type: ignore[arg-type]


async def test_an_expired_session_says_so(issuer: Issuer, keys: SessionKeys) -> None:
    with pytest.raises(SessionExpired):
        await accept(keys, issuer.token(PERSON, seconds=-1))


async def test_user_metadata_is_never_believed(issuer: Issuer, keys: SessionKeys) -> None:
    token = issuer.token(PERSON, app_metadata={}, user_metadata={"organization_id": "x", "role": "ADMIN"})
    assert (await accept(keys, token)).organization_hint == ""


def parts(token: str) -> tuple[dict[str, object], str]:
    header, claims, _ = token.split(".")
    return json.loads(base64.urlsafe_b64decode(header + "==")), claims


def encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "nOnE"},
        {"alg": "HS256"},
        {"crit": ["exp"]},
        {"jwk": {"kty": "EC"}},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/cert"},
        {"kid": ""},
        {"kid": "../../etc/passwd"},
    ],
)
async def test_a_header_that_asks_for_something_is_refused(
    issuer: Issuer, keys: SessionKeys, header: dict[str, object]
) -> None:
    given, claims = parts(issuer.token(PERSON))
    forged = encode(json.dumps({**given, **header}).encode())
    with pytest.raises(SessionInvalid):
        await accept(keys, f"{forged}.{claims}.{encode(bytes(64))}")


async def test_forged_signatures_are_refused(issuer: Issuer, keys: SessionKeys) -> None:
    header, _ = parts(issuer.token(PERSON))
    # HMAC under the public key, which naive libraries accept when they believe the header.
    public = json.dumps(json.loads(issuer.jwks())["keys"][0]).encode()
    confused = jwt.encode({"alg": "HS256", "kid": str(header["kid"])}, {"sub": "x"}, OctKey.import_key(public))
    other = ECKey.generate_key("P-256")
    stolen_kid = jwt.encode({"alg": "ES256", "kid": str(header["kid"])}, {"sub": "x"}, other)
    good = issuer.token(PERSON)
    zero = f"{good.rpartition('.')[0]}.{encode(bytes(64))}"
    twisted = good.rpartition(".")[0][:-2] + "AA." + good.rpartition(".")[2]
    for token in (confused, stolen_kid, zero, twisted, good + "A", good.replace(".", "..", 1), "", "a.b", "x" * 9000):
        with pytest.raises(SessionInvalid):
            await accept(keys, token)


async def test_unknown_keys_cost_one_fetch(issuer: Issuer, keys: SessionKeys) -> None:
    _, claims = parts(issuer.token(PERSON))
    for number in range(200):
        header = encode(json.dumps({"alg": "ES256", "kid": f"made-up-{number}", "typ": "JWT"}).encode())
        with pytest.raises(SessionInvalid):
            await accept(keys, f"{header}.{claims}.{encode(bytes(64))}")
    assert keys.fetches == 1


async def test_keys_outlive_their_server_for_a_while_and_no_longer(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, address = serve_jwks(issuer)
    keys = SessionKeys(address, None)
    await accept(keys, issuer.token(PERSON))
    server.shutdown()
    server.server_close()
    start = jwks.monotonic()
    monkeypatch.setattr(jwks, "monotonic", lambda: start + 600)
    await accept(keys, issuer.token(PERSON))
    monkeypatch.setattr(jwks, "monotonic", lambda: start + 1300)
    with pytest.raises(Unavailable):
        await accept(keys, issuer.token(PERSON))


def entry(key: ECKey | OKPKey | RSAKey | OctKey, algorithm: str, private: bool = False) -> dict[str, object]:
    return {**key.as_dict(private=private), "kid": "k", "alg": algorithm}


def test_a_key_set_that_no_careful_issuer_publishes_is_refused() -> None:
    good = ECKey.generate_key("P-256")
    assert set(lint({"keys": [entry(good, "ES256")]})) == {"k"}
    assert set(lint({"keys": [entry(RSAKey.generate_key(2048), "RS256")]})) == {"k"}
    assert set(lint({"keys": [entry(OKPKey.generate_key("Ed25519"), "EdDSA")]})) == {"k"}
    for keys in (
        [entry(good, "ES256"), entry(good, "ES256")],
        [entry(good, "ES256", private=True)],
        [entry(good, "RS256")],
        [entry(OctKey.generate_key(256), "HS256")],
        [entry(good, "none")],
    ):
        with pytest.raises((ValueError, KeyError)):
            lint({"keys": keys})
