"""The local profile's key service: a ring of named keys in a file. Production refuses it.

The ring is one HPKE key pair (RFC 9180: X25519, HKDF-SHA256, AES-256-GCM); a key of it is told apart by its name and
version, which stand in HPKE's info. Whoever holds the public half can wrap and not unwrap. The file is JSON:

    {"kek_id": "file:<ring>", "public_key": 32 bytes in hexadecimal,
     "private_key": 32 bytes in hexadecimal, in the broker's file only,
     "states": {"file:<ring>/<name>/<version>": a KmsCause, such as "DISABLED"}}

It is read for every use, so that a key that was taken away or disabled opens nothing any more.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from services._mesh.kms.interface import Binding, EnvelopeBroken, Kek, KmsCause, failure
from services._mesh.threads import BoundedThreads

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_NAME = re.compile(r"(file:[0-9a-z]+)/([0-9a-z-]{1,64})/([1-9][0-9]{0,8})")


class FileKms:
    """A ring in a file, or the half of it that this process holds."""

    def __init__(self, path: Path, threads: BoundedThreads, deadline_seconds: float) -> None:
        self._path, self._threads, self._deadline = path, threads, deadline_seconds

    async def wrap(self, kek: Kek, material: bytes, binding: Binding) -> bytes:
        """See Kms."""
        return await self._run(kek, self._wrap, kek, material, binding.aad)

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Binding) -> bytes:
        """See Kms."""
        return await self._run(kek, self._unwrap, kek, wrapped, binding.aad)

    async def _run(self, kek: Kek, call: Any, *given: Any) -> bytes:
        try:
            done: bytes = await self._threads.run(self._deadline, call, *given)
        except TimeoutError:
            raise failure(KmsCause.TIMEOUT, kek) from None
        return done

    def _wrap(self, kek: Kek, material: bytes, aad: bytes) -> bytes:
        ring = self._ring(kek)
        if not _NAME.fullmatch(kek.reference):
            raise failure(KmsCause.MISSING, kek)
        public = X25519PublicKey.from_public_bytes(bytes.fromhex(ring["public_key"]))
        return _SUITE.encrypt(material, public, info=aad)

    def _unwrap(self, kek: Kek, wrapped: bytes, aad: bytes) -> bytes:
        ring = self._ring(kek)
        if "private_key" not in ring:
            raise failure(KmsCause.DENIED, kek)
        private = X25519PrivateKey.from_private_bytes(bytes.fromhex(ring["private_key"]))
        try:
            opened: bytes = _SUITE.decrypt(wrapped, private, info=aad)
        except (InvalidTag, ValueError):
            raise EnvelopeBroken("the envelope doesn't open") from None
        return opened

    def _ring(self, kek: Kek) -> dict[str, Any]:
        """The ring, in which this key may be used. Envelopes of version 1 name the ring and no key of it."""
        try:
            ring: dict[str, Any] = json.loads(self._path.read_text("utf-8"))
            name, state = str(ring["kek_id"]), ring.get("states", {}).get(kek.reference)
        except (OSError, ValueError, KeyError, AttributeError):
            raise failure(KmsCause.UNREACHABLE, kek) from None
        if kek.reference.split("/")[0] != name:
            raise failure(KmsCause.WRONG_REGION, kek)
        if state is not None:
            raise failure(KmsCause(state), kek)
        return ring
