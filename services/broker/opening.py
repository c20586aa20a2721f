"""Opens envelopes with the key service and a bounded cache of derived keys; fails closed.

Owns nothing of who may ask: the context that it is given comes from a grant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID
from weakref import WeakSet

from services._mesh.envelope import Envelope, derive_keys, open_with, parse
from services._mesh.errors import Problem
from services._mesh.kms.interface import EnvelopeBroken, Kms, SecretContext, waited_for
from services._mesh.revocations import Revocation, RevocationKind
from services.broker.model.key_cache import KeyCache, KeyName


@dataclass(eq=False, slots=True, weakref_slot=True)
class Unwrapping:
    """A call of the key service that is under way: others who need the same key wait for it. After a purge that is
    about it, it gives its key to those who wait, and the cache keeps none of it.
    """

    name: KeyName
    task: asyncio.Task[bytes]
    began_at: float
    is_purged: bool = False


def _nothing(_organization_id: UUID, _reason: str) -> None:
    pass


class Opener:
    """Opens sealed secrets. One call of the key service for each sealed version in five minutes, however many ask.

    `on_failure` is told of each that doesn't open: whose it is, and the reason's name.
    """

    def __init__(self, kms: Kms, cache: KeyCache) -> None:
        self._kms, self._cache = kms, cache
        self.on_failure: Callable[[UUID, str], None] = _nothing
        self._under_way: dict[KeyName, Unwrapping] = {}
        # Those too that are done, as long as somebody has yet to take their key.
        self._unwrappings: WeakSet[Unwrapping] = WeakSet()

    async def open(self, sealed: bytes, context: SecretContext) -> bytearray:
        """The plaintext, for the caller to overwrite. Raises EnvelopeBroken, Unavailable (KMS_UNAVAILABLE,
        KMS_KEY_UNUSABLE): whatever the key service says, the same may open once it says otherwise.
        """
        try:
            return await self._open(sealed, context)
        except EnvelopeBroken:
            self.on_failure(context.organization_id, "CREDENTIAL_UNOPENABLE")
            raise
        except Problem as problem:
            self.on_failure(context.organization_id, problem.reason_name)
            raise waited_for(problem) from None

    async def _open(self, sealed: bytes, context: SecretContext) -> bytearray:
        parts = parse(sealed)
        canonical = context.canonical(parts.version)
        name = KeyName(context.organization_id, context.credential_id, context.purpose, parts.header)
        cached = self._cache.get(name)
        if cached is not None:
            return bytearray(open_with(parts, canonical, cached))
        unwrapping = self._unwrapping(name, parts, context, canonical)
        # Not cancelled with one of those who wait for it.
        keys = await asyncio.shield(unwrapping.task)
        opened = bytearray(open_with(parts, canonical, keys))
        if not unwrapping.is_purged:
            self._cache.put(name, keys, unwrapping.began_at)
        return opened

    def revoked(self, entry: Revocation) -> None:
        """Forget the keys of what the feed says is revoked, or sealed anew."""
        try:
            if entry.kind in (RevocationKind.CREDENTIAL, RevocationKind.RESEALED):
                self._purge(credential_id=UUID(entry.key))
            elif entry.kind is RevocationKind.ORGANIZATION:
                self._purge(organization_id=UUID(entry.key))
        except ValueError:  # Whatever it is about, no key is older than it then.
            self._purge()

    def close(self) -> None:
        """Wipe all keys."""
        self._purge()

    def _purge(self, organization_id: UUID | None = None, credential_id: UUID | None = None) -> None:
        self._cache.purge(organization_id=organization_id, credential_id=credential_id)
        for each in self._unwrappings:
            each.is_purged |= each.name.is_of(organization_id, credential_id)

    def _unwrapping(self, name: KeyName, parts: Envelope, context: SecretContext, canonical: bytes) -> Unwrapping:
        found = self._under_way.get(name)
        if found is not None and not found.is_purged:
            return found
        task = asyncio.create_task(derive_keys(parts, context, canonical, self._kms))
        made = self._under_way[name] = Unwrapping(name, task, self._cache.now())
        self._unwrappings.add(made)
        task.add_done_callback(lambda _: self._done(name, made))
        return made

    def _done(self, name: KeyName, done: Unwrapping) -> None:
        if self._under_way.get(name) is done:
            del self._under_way[name]
        if not done.task.cancelled():
            done.task.exception()  # Everybody who waited may be gone; what they would have seen is no news.
