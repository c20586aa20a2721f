"""The broker's key cache: how old, how many, what purges it, what is left; and one call of the key service for many."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services._mesh.envelope import seal
from services._mesh.errors import Problem, Unavailable
from services._mesh.kms.interface import EnvelopeBroken, Kek, SecretContext
from services._mesh.revocations import Revocation, RevocationKind
from services.broker.model.key_cache import KEEP_SECONDS, KeyCache, KeyName
from services.broker.opening import Opener
from tests.support.kms import KEK, CarelessKms, Ring, context


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def name(organization: int = 1, credential: int = 2, version: bytes = b"1") -> KeyName:
    return KeyName(UUID(int=organization), UUID(int=credential), "aws.base_key", version)


def test_a_key_is_kept_for_five_minutes_at_most(time: Time) -> None:
    cache = KeyCache(time)
    cache.put(name(), b"k" * 64, time.now)
    time.now += KEEP_SECONDS - 1
    kept = cache.get(name())
    assert kept == b"k" * 64
    time.now += 1
    assert cache.get(name()) is None
    assert kept == bytes(64)  # Overwritten where it was.
    assert KEEP_SECONDS <= 300


def test_the_age_counts_from_when_the_key_service_was_asked(time: Time) -> None:
    cache = KeyCache(time)
    cache.put(name(), b"k" * 64, time.now - KEEP_SECONDS)
    assert cache.get(name()) is None


def test_it_is_bounded_and_drops_what_came_first(time: Time) -> None:
    cache = KeyCache(time, size=3)
    for number in range(5):
        cache.put(name(credential=number), bytes([number]) * 64, time.now)
    assert len(cache) == 3
    assert [number for number in range(5) if cache.get(name(credential=number))] == [2, 3, 4]


def test_a_purge_takes_what_it_is_about_and_no_more(time: Time) -> None:
    cache = KeyCache(time)
    for organization in (1, 9):
        for credential in (2, 3):
            cache.put(name(organization, credential), b"k" * 64, time.now)
    cache.purge(credential_id=UUID(int=2))
    assert [bool(cache.get(name(*each))) for each in ((1, 2), (1, 3), (9, 2), (9, 3))] == [False, True, False, True]
    cache.purge(organization_id=UUID(int=9))
    assert cache.get(name(9, 3)) is None
    assert cache.get(name(1, 3))
    cache.purge()
    assert not len(cache)


class Counting(CarelessKms):
    """Lets nobody through while `gate` is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.problem: Problem | None = None

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Any) -> bytes:
        self.unwraps += 1
        await self.gate.wait()
        if self.problem is not None:
            raise self.problem
        return wrapped


@pytest.fixture
def kms() -> Counting:
    return Counting()


@pytest.fixture
def opener(kms: Counting, time: Time) -> Opener:
    return Opener(kms, KeyCache(time))


async def test_many_who_ask_at_once_are_one_call(opener: Opener, kms: Counting) -> None:
    envelope = await seal(b"secret", context(), KEK, kms)
    kms.gate.clear()
    asking = [asyncio.create_task(opener.open(envelope, context())) for _ in range(20)]
    await asyncio.sleep(0)
    asking[0].cancel()  # Who began it may go; the others get theirs.
    kms.gate.set()
    opened = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(opened[0], asyncio.CancelledError)
    assert opened[1:] == [b"secret"] * 19
    assert await opener.open(envelope, context()) == b"secret"
    assert kms.unwraps == 1


@pytest.mark.parametrize(
    "other",
    [context(organization_id=UUID(int=9)), context(credential_id=UUID(int=9)), context(purpose="webhook.key")],
)
async def test_a_cached_key_opens_in_its_own_context_only(opener: Opener, kms: Counting, other: SecretContext) -> None:
    envelope = await seal(b"secret", context(), KEK, kms)
    await opener.open(envelope, context())
    with pytest.raises(EnvelopeBroken):
        await opener.open(envelope, other)


async def test_what_is_sealed_anew_asks_the_key_service_anew(opener: Opener, kms: Counting) -> None:
    for text in (b"one", b"two"):
        assert await opener.open(await seal(text, context(), KEK, kms), context()) == text
    assert kms.unwraps == 2


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (RevocationKind.CREDENTIAL, context().credential_id),
        (RevocationKind.ORGANIZATION, context().organization_id),
        (RevocationKind.CREDENTIAL, "no uuid"),
    ],
)
async def test_the_feed_purges(opener: Opener, kms: Counting, kind: RevocationKind, key: object) -> None:
    envelope = await seal(b"secret", context(), KEK, kms)
    await opener.open(envelope, context())
    opener.revoked(Revocation(1, RevocationKind.SESSION, str(key), 0.0))
    await opener.open(envelope, context())
    assert kms.unwraps == 1
    opener.revoked(Revocation(2, kind, str(key), 0.0))
    await opener.open(envelope, context())
    assert kms.unwraps == 2


@pytest.mark.parametrize(
    ("kind", "key", "is_kept"),
    [
        (RevocationKind.CREDENTIAL, context().credential_id, False),
        (RevocationKind.RESEALED, context().credential_id, False),
        (RevocationKind.ORGANIZATION, context().organization_id, False),
        (RevocationKind.CREDENTIAL, "no uuid", False),
        (RevocationKind.CREDENTIAL, UUID(int=9), True),
        (RevocationKind.ORGANIZATION, UUID(int=9), True),
    ],
)
async def test_what_was_asked_for_before_a_purge_is_kept_only_if_it_was_about_something_else(
    opener: Opener, kms: Counting, kind: RevocationKind, key: object, is_kept: bool
) -> None:
    envelope = await seal(b"secret", context(), KEK, kms)
    kms.gate.clear()
    early = asyncio.create_task(opener.open(envelope, context()))
    await asyncio.sleep(0)
    opener.revoked(Revocation(1, kind, str(key), 0.0))
    kms.gate.set()
    assert await early == b"secret"
    assert await opener.open(envelope, context()) == b"secret"
    assert kms.unwraps == (1 if is_kept else 2)


async def test_who_asks_after_a_purge_waits_for_no_key_from_before(opener: Opener, kms: Counting) -> None:
    envelope = await seal(b"secret", context(), KEK, kms)
    kms.gate.clear()
    early = asyncio.create_task(opener.open(envelope, context()))
    await asyncio.sleep(0)
    opener.revoked(Revocation(1, RevocationKind.CREDENTIAL, str(context().credential_id), 0.0))
    late = asyncio.create_task(opener.open(envelope, context()))
    await asyncio.sleep(0)
    kms.gate.set()
    assert await asyncio.gather(early, late) == [b"secret", b"secret"]
    assert kms.unwraps == 2


async def test_a_purge_between_the_key_services_answer_and_the_cache_holds(opener: Opener, kms: Counting) -> None:
    envelope = await seal(b"secret", context(), KEK, kms)
    kms.gate.clear()
    early = asyncio.create_task(opener.open(envelope, context()))
    await asyncio.sleep(0)
    (unwrapping,) = opener._unwrappings
    revoked = Revocation(1, RevocationKind.CREDENTIAL, str(context().credential_id), 0.0)
    unwrapping.task.add_done_callback(lambda _: opener.revoked(revoked))
    kms.gate.set()
    assert await early == b"secret"
    await opener.open(envelope, context())
    assert kms.unwraps == 2


async def test_a_key_service_that_is_away_opens_nothing_and_is_asked_again(
    opener: Opener, kms: Counting, time: Time
) -> None:
    envelope = await seal(b"secret", context(), KEK, kms)
    kms.problem = Unavailable(0, "away")
    for _ in range(2):
        with pytest.raises(Unavailable):
            await opener.open(envelope, context())
    kms.problem = None
    assert await opener.open(envelope, context()) == b"secret"
    # What was opened before helps for five minutes, and no longer.
    kms.problem = Unavailable(0, "away")
    assert await opener.open(envelope, context()) == b"secret"
    time.now += KEEP_SECONDS
    with pytest.raises(Unavailable):
        await opener.open(envelope, context())


async def test_a_payload_that_was_changed_opens_neither_cold_nor_warm(opener: Opener, kms: Counting) -> None:
    envelope = await seal(b"secret", context(), KEK, kms)
    broken = envelope[:-1] + bytes([envelope[-1] ^ 1])
    for _ in range(2):
        with pytest.raises(EnvelopeBroken):
            await opener.open(broken, context())
        await opener.open(envelope, context())


async def test_the_end_wipes_everything(tmp_path: Path, time: Time) -> None:
    cache, ring = KeyCache(time), Ring(tmp_path)
    opener = Opener(ring.whole, cache)
    await opener.open(await seal(b"secret", context(), KEK, ring.whole), context())
    (kept,) = [keys for _, keys in cache._kept.values()]
    assert any(kept)
    opener.close()
    assert not any(kept)
    assert not len(cache)
