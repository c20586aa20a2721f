"""Session tokens: what is accepted and refused, with real signatures and a real JWKS server."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey

from recoup_local.issuer import AUDIENCE, ISSUER
from services.identity.clients.jwks import SessionKeys
from services.identity.model import session as model
from services.identity.model.session import Session, SessionExpired, SessionInvalid, read_claims, read_header
from tests.support.sessions import ACME, PERSON, Project, claims, part, serving, with_header

OTHER = "0f0e0d0c-0000-4000-8000-000000000001"
MINUTE = 60


@pytest.fixture
def project() -> Project:
    return Project()


@pytest.fixture
def keys(project: Project) -> Iterator[SessionKeys]:
    with serving(project) as address:
        yield SessionKeys(address, None)


def read(**changes: object) -> Session:
    return read_claims(claims(**changes), ISSUER, AUDIENCE, time.time())


async def accept(keys: SessionKeys, token: str) -> Session:
    return read_claims(await keys.claims(token), ISSUER, AUDIENCE, time.time())


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
async def test_a_session_of_each_algorithm_is_read(project: Project, keys: SessionKeys, algorithm: str) -> None:
    session = await accept(keys, project.token(algorithm))
    assert (session.user_id, session.aal, session.email) == (PERSON.user_id, 2, PERSON.email)
    assert session.organization_hint == ACME


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"iss": [ISSUER]},
        {"aud": "anon"},
        {"aud": [AUDIENCE.upper()]},
        {"aud": None},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": True},
        {"exp": 1e12},
        {"sub": None},
        {"sub": "not-a-uuid"},
        {"sub": int("9" * 32)},
        {"sub": "{" + str(PERSON.user_id) + "}"},
        {"sub": str(PERSON.user_id).upper()},
        {"session_id": None},
        {"role": "service_role"},
        {"role": "anon"},
        {"role": "supabase_admin"},
        {"role": "postgres"},
        {"role": None},
        {"is_anonymous": True},
        {"is_anonymous": "true"},
        {"is_anonymous": 1},
        {"iat": 4102444800},
        {"iat": None},
        {"nbf": 4102444800},
    ],
    ids=str,
)
def test_a_session_with_wrong_claims_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SessionInvalid):
        read(**changes)


def test_clocks_may_differ_by_two_minutes_and_not_by_ten() -> None:
    now = int(time.time())
    for ahead in (2 * MINUTE, -2 * MINUTE):
        shifted = read(iat=now + ahead, nbf=now + ahead, exp=now + ahead + 3600)
        assert shifted.user_id == PERSON.user_id
    late = read(exp=now - 2 * MINUTE)
    assert late.expires_at > now
    with pytest.raises(SessionExpired):
        read(exp=now - 10 * MINUTE)
    for claim in ("iat", "nbf"):
        with pytest.raises(SessionInvalid):
            read(**{claim: now + 10 * MINUTE})


def test_the_organization_is_read_from_where_only_the_project_writes() -> None:
    assert read().organization_hint == ACME
    # A custom access token hook may write at the top, and is the last to write.
    assert str(read(organization_id=OTHER).organization_hint) == OTHER
    assert str(read(organization_id=OTHER, app_metadata=None).organization_hint) == OTHER
    written = {"organization_id": OTHER, "role": "ADMIN", "app_metadata": {"organization_id": OTHER}}
    assert read(app_metadata={}, user_metadata=written).organization_hint is None
    for odd in ("x", 7, [OTHER], {"id": OTHER}, OTHER.upper()):
        assert read(app_metadata={"organization_id": odd}).organization_hint is None
    assert read(app_metadata=[]).organization_hint is None


def test_the_assurance_level_is_two_only_where_it_says_so() -> None:
    for value in ("aal1", "aal3", "AAL2", 2, None, ["aal2"]):
        assert read(aal=value).aal == 1
    assert read(aal="aal2").aal == 2


def test_who_signed_in_when_is_what_amr_says_and_nothing_else() -> None:
    now = int(time.time())
    methods = [{"method": "password", "timestamp": now - 500}, {"method": "totp", "timestamp": now - 400}]
    assert read(amr=methods).auth_time == now - 400
    # A refresh proves nothing; nor does a moment that hasn't come.
    later = [{"method": "token_refresh", "timestamp": now}, {"method": "otp", "timestamp": now + 3600}]
    assert read(amr=[*methods, *later]).auth_time == now - 400
    for unknown in (None, ["pwd", "otp"], "password", [{"method": "password", "timestamp": True}], [{}], {}):
        assert read(amr=unknown).auth_time == 0


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "nOnE"},
        {"alg": "HS256"},
        {"alg": "es256"},
        {"alg": ["ES256"]},
        {"alg": None},
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"b64": False},
        {"jwk": {"kty": "EC"}},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": ["x"]},
        {"kid": ""},
        {"kid": 7},
        {"kid": None},
        {"kid": "x" * 201},
        {"typ": "recoup-passport+jwt"},
        {"typ": 7},
    ],
    ids=str,
)
def test_a_header_that_asks_for_something_is_refused(project: Project, header: dict[str, object]) -> None:
    good = {"alg": "ES256", "kid": "key-ES256", "typ": "JWT"}
    assert read_header(with_header(project.token(), json.dumps(good).encode())) == ("key-ES256", "ES256")
    with pytest.raises(SessionInvalid):
        read_header(with_header(project.token(), json.dumps({**good, **header}).encode()))


@pytest.mark.parametrize("secret", ["pem", "jwk"])
@pytest.mark.parametrize("named", ["HS256", "ES256"])
async def test_an_hmac_under_the_public_key_is_refused(
    project: Project, keys: SessionKeys, secret: str, named: str
) -> None:
    """Naive libraries take the algorithm from the header, and the public key, which everybody has, for the secret."""
    public = project.keys["ES256"].public_key
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    material = pem if secret == "pem" else json.dumps(project.public("ES256")).encode()
    header = {"alg": named, "kid": "key-ES256", "typ": "JWT"}
    body = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims()).encode())}"
    forged = f"{body}.{part(hmac.digest(material, body.encode(), 'sha256'))}"
    with pytest.raises(SessionInvalid):
        await accept(keys, forged)


async def test_a_key_is_good_for_its_own_algorithm_only(project: Project, keys: SessionKeys) -> None:
    stranger = Project()
    stranger.keys["ES256"] = project.keys["ES256"]
    good = json.dumps(claims()).encode()
    assert await keys.claims(project.signed(good))
    for kid in ("key-RS256", "key-EdDSA"):
        with pytest.raises(SessionInvalid, match="algorithm"):
            await keys.claims(project.signed(good, kid=kid))


async def test_forged_signatures_are_refused(project: Project, keys: SessionKeys) -> None:
    good = project.token()
    body, _, signature = good.rpartition(".")
    other = Project()
    tokens = {
        "another project's key under our key's name": other.token(),
        "zero": f"{body}.{part(bytes(64))}",
        "r and s of zero in DER": f"{body}.{part(bytes.fromhex('3006020100020100'))}",
        "cut": f"{body}.{signature[:-2]}",
        "empty": f"{body}.",
        "another body": f"{body[:-4]}AAAA.{signature}",
        "two dots": good.replace(".", "..", 1),
        "padded": good + "=",
        "not canonical": good[:-1] + chr(ord(good[-1]) + 1),
    }
    assert await accept(keys, good)
    for name, token in tokens.items():
        with pytest.raises(SessionInvalid):
            print(name, await accept(keys, token))


async def test_a_payload_means_one_thing_or_nothing(project: Project, keys: SessionKeys) -> None:
    text = json.dumps(claims())
    assert await accept(keys, project.signed(text.encode()))
    payloads = {
        "a claim twice": text[:-1] + ', "sub": "' + OTHER + '"}',
        "a claim within a claim twice": text[:-1] + ', "x": {"a": 1, "a": 2}}',
        "nested deeply": text[:-1] + ', "x": ' + "[" * 2500 + "]" * 2500 + "}",
        "no number": text[:-1] + ', "x": NaN}',
        "a number without end": text[:-1] + ', "x": ' + "9" * 5000 + "}",
        "a list": "[]",
        "nothing": "",
    }
    for name, payload in payloads.items():
        with pytest.raises(SessionInvalid):
            print(name, await accept(keys, project.signed(payload.encode())))
    for charset in ("utf-16", "utf-32-be", "utf-8-sig"):
        with pytest.raises(SessionInvalid):
            print(charset, await accept(keys, project.signed(text.encode(charset))))
    with pytest.raises(SessionInvalid):
        await accept(keys, project.signed(text.replace("totp", "töt").encode("latin-1").replace(b"\\u00f6", b"\xf6")))


def test_a_header_means_one_thing_or_nothing(project: Project) -> None:
    twice = b'{"alg": "ES256", "kid": "key-ES256", "alg": "ES256"}'
    for raw in (twice, b"[" * 3000, b'{"alg":"ES256","kid":"k\xff"}', b"7", "{}".encode("utf-16")):
        with pytest.raises(SessionInvalid):
            read_header(with_header(project.token(), raw))


async def test_a_token_of_24_mb_costs_nothing(keys: SessionKeys) -> None:
    huge = "a" * 24_000_000
    for token in (huge, f"{huge}.e30.AAAA", f"e30.{huge}.AAAA", "a.b", ""):
        with pytest.raises(SessionInvalid, match="shape"):
            await keys.claims(token)
    assert keys.fetches == 0


PIECES = st.one_of(
    st.binary(max_size=60).map(part),
    st.text(max_size=40),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
        max_leaves=8,
    ).map(lambda value: part(json.dumps(value).encode())),
)
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=10), st.lists(st.integers(), max_size=2))
CLAIMS = st.dictionaries(st.sampled_from(sorted(claims())), VALUES | st.dictionaries(st.text(max_size=4), VALUES))


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=5), st.sampled_from([".", "..", " ."]))
def test_fuzz_no_token_fails_the_parser_in_any_other_way(pieces: list[str], dot: str) -> None:
    try:
        kid, algorithm = read_header(dot.join(pieces))
    except SessionInvalid:
        return
    assert kid
    assert algorithm in model.ALGORITHMS


@settings(max_examples=300, deadline=None)
@given(CLAIMS)
def test_fuzz_no_claims_fail_their_reader_in_any_other_way(changes: dict[str, object]) -> None:
    try:
        session = read_claims({**claims(), **changes}, ISSUER, AUDIENCE, time.time())
    except SessionInvalid:
        return
    assert session.aal in (1, 2)
    # Nothing but the person's own claims could be changed: an accepted one is whole.
    assert "exp" not in changes or isinstance(changes["exp"], int)


@settings(max_examples=200, deadline=None)
@given(st.integers(min_value=0), st.characters(codec="ascii"))
def test_fuzz_a_token_with_one_other_character_is_refused(place: int, character: str) -> None:
    token = TOKEN[: place % len(TOKEN)] + character + TOKEN[place % len(TOKEN) + 1 :]
    if token == TOKEN:
        return
    with pytest.raises((SessionInvalid, ValueError)):
        read_header(token)
        FUZZED.verify(token)


class _Fuzzed:
    """A key and a token of it, made once: what is fuzzed is the token."""

    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256")
        header = {"alg": "ES256", "kid": "k", "typ": "JWT"}
        self.token = jws.serialize_compact(header, json.dumps(claims()), self.key)

    def verify(self, token: str) -> None:
        """Raises ValueError unless the key signed it."""
        try:
            jws.deserialize_compact(token, self.key)
        except Exception as error:
            raise ValueError from error


FUZZED = _Fuzzed()
TOKEN = FUZZED.token
