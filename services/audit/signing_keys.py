"""The log's signing keys as the signer holds them: which of them sign a head, and the manifest that says so.

A manifest or a key that is put in place is taken up at the next signature, without a restart; one that the root didn't
sign, or for whose keys in force the private halves are missing, is refused, and the one before stays.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.keys import read_private_key
from services.audit.model.manifest import LOG, Manifest, agreed, signed_manifest
from services.audit.model.notes import Note, NoteInvalid, Signer, TreeHead, VerifierKey, verify
from services.audit.model.rotation import place_of_head

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _InForce:
    """What was taken up: the keys by their public halves, the manifest (None in version 1), and its note."""

    keys: Mapping[bytes, Ed25519PrivateKey]
    manifest: Manifest | None
    note: str


class SigningKeys:
    """The files. `root` is the root's verifier key, None where the manifest is still of version 1."""

    def __init__(self, name: str, key: Path, more: Path | None, manifest: Path, root: VerifierKey | None) -> None:
        self._name, self._key, self._more, self._path, self._root = name, key, more, manifest, root
        self._stamp = self._look()
        self._now = self._read()

    @property
    def verifier_key(self) -> VerifierKey:
        """The log's newest key."""
        if self._now.manifest is None:
            return VerifierKey(self._name, next(iter(self._now.keys)))
        return self._now.manifest.in_force()[-1]

    def manifest(self) -> str:
        """The manifest as it is handed out: the root's line, and one of each key in force."""
        self._refresh()
        return self._now.note

    def sign(self, text: str) -> str:
        """The note of a checkpoint's text, signed by each key that is good for it. Raises NoteInvalid for none."""
        self._refresh()
        head = TreeHead.parse(text)
        signers = [Signer(head.origin, key) for public, key in self._now.keys.items() if self._may(public, head)]
        if not signers:
            raise NoteInvalid(f"no key of the manifest is good for size {head.size} of {head.origin}")
        return f"{text}\n" + "".join(Note.parse(signer.sign(text)).lines[0].text() for signer in signers)

    def _may(self, public: bytes, head: TreeHead) -> bool:
        manifest = self._now.manifest
        if manifest is None:
            return True
        place = place_of_head(manifest, head)
        return any(key.public == public and key.covers(place) for key in manifest.of(LOG))

    def _refresh(self) -> None:
        stamp = self._look()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._now = self._read()
        except (OSError, ValueError, NoteInvalid) as error:
            log.error("the new key manifest isn't taken up: %s", error)
            return
        log.warning("a new key manifest was taken up; keys in force: %d", len(self._now.keys))

    def _look(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_ino

    def _read(self) -> _InForce:
        """Raises OSError, ValueError, NoteInvalid."""
        more = sorted(self._more.glob("*.key")) if self._more else []
        loaded = [read_private_key(path) for path in (self._key, *more)]
        keys = {key.public_key().public_bytes_raw(): key for key in loaded}
        note = self._path.read_text("utf-8")
        if self._root is None:
            verify(note, VerifierKey(self._name, next(iter(keys))))
            return _InForce(keys, None, note)
        manifest = signed_manifest(note, self._root)
        missing = [key for key in manifest.in_force() if key.public not in keys]
        if missing or manifest.name != self._name:
            raise NoteInvalid("the manifest is another log's, or names a key in force that isn't here")
        known = {key.public: keys[key.public] for key in manifest.of(LOG) if key.public in keys}
        signers = [Signer(self._name, keys[key.public]) for key in manifest.in_force()]
        return _InForce(known, manifest, agreed(note, signers))
