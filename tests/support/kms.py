"""Key services for tests: a ring of the file KMS in a folder, and one that ignores what keys are bound to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from recoup_local.kms import FileKms
from services._mesh.kms.interface import Binding, Kek, KeyService, SecretContext
from services._mesh.threads import BoundedThreads

RING = "file:0123456789abcdef"
KEK = Kek(KeyService.FILE, f"{RING}/acme/1")


class Ring:
    """A file KMS: `sealing` has the half that wraps, `whole` both."""

    def __init__(self, folder: Path, key: X25519PrivateKey | None = None, name: str = RING) -> None:
        key = key or X25519PrivateKey.generate()
        self._public = {"kek_id": name, "public_key": key.public_key().public_bytes_raw().hex()}
        self._whole = {**self._public, "private_key": key.private_bytes_raw().hex()}
        self.public_file, self.whole_file = folder / "kek.public.json", folder / "kek.private.json"
        self.threads = BoundedThreads(4, "kms")
        self.set_states({})
        self.sealing, self.whole = self.open(self.public_file), self.open(self.whole_file)

    def set_states(self, states: dict[str, str]) -> None:
        """What each key answers with instead of doing its work."""
        self.public_file.write_text(json.dumps({**self._public, "states": states}))
        self.whole_file.write_text(json.dumps({**self._whole, "states": states}))

    def open(self, file: Path, deadline_seconds: float = 5.0) -> FileKms:
        """The key service in a file."""
        return FileKms(file, self.threads, deadline_seconds)


class CarelessKms:
    """Wraps to the very same bytes, and unwraps whatever it is given, for anybody and in any context."""

    def __init__(self) -> None:
        self.wraps = self.unwraps = 0

    async def wrap(self, kek: Kek, material: bytes, binding: Binding) -> bytes:
        """The material."""
        self.wraps += 1
        return material

    async def unwrap(self, kek: Kek, wrapped: bytes, binding: Binding) -> bytes:
        """The bytes as they are."""
        self.unwraps += 1
        return wrapped


def context(**changes: Any) -> SecretContext:
    """A context, with what is to be another one in it."""
    given = {"organization_id": UUID(int=1), "credential_id": UUID(int=2), "purpose": "aws.base_key", **changes}
    return SecretContext(**given)
