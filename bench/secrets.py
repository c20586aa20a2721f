"""secrets.seal_open and secrets.warm_open_us: what the envelope costs beside the cryptography that it can't do without.

Both with a key service that answers at once: what a real one takes is its own, and the broker asks it once in five
minutes.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bench.measuring import Result, compare
from services._mesh.clock import monotonic
from services._mesh.envelope import open_envelope, seal
from services._mesh.kms.interface import Binding, Kek, KeyService, SecretContext
from services.broker.model.key_cache import KeyCache
from services.broker.opening import Opener

ROUNDS, RUNS = 2000, 9
SECRET = hashlib.shake_256(b"a secret").digest(2048)
CONTEXT = SecretContext(UUID(int=1), UUID(int=2), "aws.base_key")
KEK = Kek(KeyService.AWS, "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab")
INFO = CONTEXT.canonical(2)


class InstantKms:
    """Gives back what it is given."""

    async def wrap(self, kek: Kek, material: bytes, binding: Binding) -> bytes:
        """The material."""
        return material

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Binding) -> bytes:
        """The material."""
        return wrapped


async def seal_open() -> Result:
    """Microseconds to seal and open 2 KB, against the same AES-256-GCM and HKDF alone."""
    kms = InstantKms()

    async def subject() -> None:
        assert await open_envelope(await seal(SECRET, CONTEXT, KEK, kms), CONTEXT, kms) == SECRET

    async def floor() -> None:
        material, nonce = os.urandom(32), os.urandom(12)
        sealed = AESGCM(_derived(material)[:32]).encrypt(nonce, SECRET, INFO)
        assert AESGCM(_derived(material)[:32]).decrypt(nonce, sealed, INFO) == SECRET

    return await compare("secrets.seal_open", "us", "AESGCM and HKDF alone", _timed(subject), _timed(floor), RUNS)


async def warm_open() -> Result:
    """Microseconds for the broker to open 2 KB whose key it has, against AES-256-GCM alone."""
    kms, keys = InstantKms(), os.urandom(32)
    opener, envelope = Opener(kms, KeyCache(monotonic)), await seal(SECRET, CONTEXT, KEK, kms)
    nonce = os.urandom(12)
    sealed = AESGCM(keys).encrypt(nonce, SECRET, INFO)

    async def subject() -> None:
        assert await opener.open(envelope, CONTEXT) == SECRET

    async def floor() -> None:
        assert AESGCM(keys).decrypt(nonce, sealed, INFO) == SECRET

    return await compare("secrets.warm_open_us", "us", "AESGCM alone", _timed(subject), _timed(floor), RUNS)


def _derived(material: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 64, salt=None, info=INFO).derive(material)


def _timed(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[float]]:
    """Microseconds of one, over many rounds."""

    async def run() -> float:
        await asyncio.sleep(0)
        began = time.perf_counter()
        for _ in range(ROUNDS):
            await work()
        return (time.perf_counter() - began) / ROUNDS * 1e6

    return run
