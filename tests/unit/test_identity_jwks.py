"""The session issuer's keys: when they are fetched, how long they are good, and which set nobody careful publishes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from services._mesh.errors import Unavailable
from services.identity.clients import jwks
from services.identity.clients.jwks import SessionKeys, lint
from services.identity.model.session import SessionInvalid
from tests.support.sessions import Project, part, serving


class Time:
    """The monotonic clock of the keys' cache, as the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(jwks, "monotonic", made)
    return made


@pytest.fixture
def project() -> Project:
    return Project()


@pytest.fixture
def keys(project: Project, clock: Time) -> Iterator[SessionKeys]:
    with serving(project) as address:
        yield SessionKeys(address, None)


async def settled(keys: SessionKeys) -> None:
    """Until a fetch in the background is over."""
    while keys._fetching is not None:
        await asyncio.wait([keys._fetching])


async def test_a_thousand_made_up_keys_cost_one_fetch(project: Project, keys: SessionKeys, clock: Time) -> None:
    await keys.claims(project.token())
    assert project.asked == 1
    clock.now += 31
    payload = json.dumps({}).encode()
    for number in range(1000):
        with pytest.raises(SessionInvalid):
            await keys.claims(project.signed(payload, kid=f"made-up-{number}"))
    assert project.asked == 2
    # One that the issuer was asked for isn't asked for again, even when it might be.
    clock.now += 31
    with pytest.raises(SessionInvalid):
        await keys.claims(project.signed(payload, kid="made-up-0"))
    assert project.asked == 2
    assert len(keys._unknown) <= 1000


async def test_all_who_wait_share_one_fetch_that_none_of_them_ends(project: Project, keys: SessionKeys) -> None:
    calls = [asyncio.create_task(keys.claims(project.token())) for _ in range(50)]
    await asyncio.sleep(0)
    calls[0].cancel()  # The first one is who began it.
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each).__name__ for each in done] == ["CancelledError"] + ["dict"] * 49
    assert project.asked == 1


async def test_a_new_key_is_found_and_a_revoked_one_refused(project: Project, keys: SessionKeys, clock: Time) -> None:
    old = project.token()
    project.published = project.published[1:]
    await keys.claims(project.token("RS256"))
    with pytest.raises(SessionInvalid):
        await keys.claims(old)
    project.published = [project.public("ES256")]
    clock.now += 31
    await keys.claims(old)
    with pytest.raises(SessionInvalid):
        await keys.claims(project.token("RS256"))


async def test_a_new_key_isnt_taken_for_a_made_up_one(project: Project, keys: SessionKeys, clock: Time) -> None:
    new = project.token("EdDSA")
    project.published = [project.public("ES256")]
    await keys.claims(project.token())
    project.published.append(project.public("EdDSA"))
    with pytest.raises(SessionInvalid):  # Within the cooldown it can't be asked for.
        await keys.claims(new)
    clock.now += 31
    await keys.claims(new)


async def test_keys_outlive_their_issuer_for_twenty_minutes(project: Project, keys: SessionKeys, clock: Time) -> None:
    token = project.token()
    await keys.claims(token)
    project.status = 503
    clock.now += 19 * 60
    await keys.claims(token)
    await settled(keys)
    assert project.asked == 2
    clock.now += 61
    for _ in range(2):
        with pytest.raises(Unavailable):
            await keys.claims(token)
    assert project.asked == 3
    project.status = 200
    clock.now += 31
    await keys.claims(token)


async def test_an_issuer_that_never_answered_lets_nobody_in(clock: Time) -> None:
    project = Project()
    with serving(project) as address:
        pass
    keys = SessionKeys(address, None)
    with pytest.raises(Unavailable):
        await keys.claims(project.token())


async def test_keys_are_fetched_before_they_are_old(
    project: Project, keys: SessionKeys, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock.now += seconds
        project.status = 503 if len(pauses) == 1 else 200
        if len(pauses) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(jwks.asyncio, "sleep", pause)
    with pytest.raises(asyncio.CancelledError):
        await keys.keep()
    assert pauses == [jwks.KEEP_SECONDS, jwks.COOLDOWN_SECONDS, jwks.KEEP_SECONDS]


@pytest.mark.parametrize(
    "answer",
    [
        b"not json",
        b'{"keys": []}' + b" " * (64 * 1024),
        b"[]",
        b'{"keys": {}}',
        b'{"keys": [], "keys": []}',
        b'{"keys": [1]}',
        b'{"keys": [{"kid": ["a"], "alg": "ES256"}]}',
        b'{"keys": [{"kid": "a", "alg": ["ES256"]}]}',
        b'{"keys": [{"kid": "a", "alg": "ES256", "kty": "EC", "crv": "P-256", "key_ops": 7}]}',
        b'{"keys": [{"kid": "a", "alg": "RS256", "kty": "RSA", "n": 1, "e": []}]}',
        b'{"keys": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        '{"keys": []}'.encode("utf-16"),
    ],
    ids=lambda answer: answer[:40],
)
async def test_an_answer_that_is_no_key_set_leaves_the_last_good_one(
    project: Project, keys: SessionKeys, clock: Time, answer: bytes
) -> None:
    token = project.token()
    await keys.claims(token)
    project.answer = answer
    clock.now += 301
    await keys.claims(token)
    await settled(keys)
    await keys.claims(token)
    assert project.asked == 2


def entry(key: ECKey | OKPKey | RSAKey | OctKey, algorithm: str, **changes: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": "k", "alg": algorithm, **changes}


def test_a_key_set_that_no_careful_issuer_publishes_is_refused() -> None:
    good, rsa, okp = ECKey.generate_key("P-256"), RSAKey.generate_key(2048), OKPKey.generate_key("Ed25519")
    secret = {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXM", "kid": "s"}
    for key, algorithm in ((good, "ES256"), (rsa, "RS256"), (okp, "EdDSA")):
        assert set(lint({"keys": [entry(key, algorithm, use="sig", key_ops=["verify"])]})) == {"k"}
    modulus = generate_private_key(65537, 1024).public_key().public_numbers().n
    weak = entry(rsa, "RS256", n=part(modulus.to_bytes(128, "big")))
    for name, keys in {
        "a twin": [entry(good, "ES256"), entry(okp, "EdDSA")],
        "a private part": [{**good.as_dict(private=True), "kid": "k", "alg": "ES256"}],
        "another key's algorithm": [entry(good, "RS256")],
        "a symmetric key": [entry(good, "ES256"), {**secret, "alg": "HS256"}],
        "a symmetric key that says ES256": [{**secret, "alg": "ES256"}],
        "no algorithm": [entry(good, "ES256", alg=None)],
        "none": [entry(good, "none")],
        "a weak RSA key": [weak],
        "a key for encryption": [entry(good, "ES256", use="enc")],
        "a key that signs": [entry(good, "ES256", key_ops=["sign", "verify"])],
        "another curve": [entry(ECKey.generate_key("P-384"), "ES256")],
        "no id": [entry(good, "ES256", kid="")],
        "too many keys": [entry(good, "ES256", kid=str(number)) for number in range(21)],
    }.items():
        with pytest.raises(ValueError, match="key"):
            print(name, lint({"keys": keys}))
