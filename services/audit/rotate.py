"""Rotates the log's signing key: `python -m services.audit.rotate {new-key,begin,end,sign} …`. What the root signs.

The root's private half stays on a machine that is offline: `begin`, `end` and `sign` run there on files that are
carried; `new-key` runs where the signer does. Exit codes: 0 done, 1 can't be done now, 2 wrong use.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services._mesh.keys import read_private_key
from services.audit.durable import write_durably
from services.audit.model import rotation
from services.audit.model.manifest import Manifest, sign_manifest, signed_manifest
from services.audit.model.notes import Note, NoteInvalid, Signer, TreeHead, VerifierKey, verify

EXIT_DONE, EXIT_REFUSED = 0, 1


class Root:
    """The offline root of a log: signs manifests, and remembers when a rotation was begun."""

    def __init__(self, name: str, key: Path, record: Path) -> None:
        self._signer, self._record = Signer(f"{name}/root", read_private_key(key)), record

    def read(self, note: str) -> Manifest:
        """A manifest that this root signed. Raises NoteInvalid."""
        return signed_manifest(note, self._signer.verifier_key)

    def sign(self, manifest: Manifest) -> str:
        """The note of a manifest, for the signer, which adds the lines of the log's keys. Raises NoteInvalid."""
        found = Manifest.parse(manifest.text())
        if found.root != self._signer.verifier_key:
            raise NoteInvalid("the manifest names another root than this one")
        return sign_manifest(found, [self._signer])

    def begin(self, note: str, new: VerifierKey, checkpoint: str, now: datetime) -> str:
        """The manifest in which a new key signs beside the one in force, from the checkpoint on.

        Raises CannotRotate, NoteInvalid.
        """
        manifest = self.read(note)
        if new.name != manifest.name:
            raise NoteInvalid(f"the new key is {new.name}'s, not {manifest.name}'s")
        made = self.sign(rotation.begin(manifest, new.public, _place(manifest, checkpoint)))
        write_durably(self._record, json.dumps({"begun_at": now.isoformat()}))
        return made

    def end(self, note: str, checkpoint: str, now: datetime) -> str:
        """The manifest in which the older key ends with the checkpoint, thirty days after the rotation was begun.

        Raises CannotRotate, NoteInvalid.
        """
        manifest = self.read(note)
        if not self._record.exists():
            raise rotation.CannotRotate("no rotation is under way")
        begun_at = datetime.fromisoformat(json.loads(self._record.read_text())["begun_at"])
        return self.sign(rotation.end(manifest, _place(manifest, checkpoint), begun_at, now))


def _place(manifest: Manifest, checkpoint: str) -> int:
    """Where a checkpoint stands that a key of the log signed. Raises NoteInvalid."""
    head = TreeHead.parse(Note.parse(checkpoint).text)
    for key in manifest.in_force():
        try:
            verify(checkpoint, key.named(head.origin))
            return rotation.place_of_head(manifest, head)
        except NoteInvalid:
            continue
    raise NoteInvalid("the checkpoint isn't signed by a key in force of this log")


def new_key(name: str, path: Path) -> VerifierKey:
    """Make a key for the signer, in a file that only it can read; never over one that is there. Raises OSError."""
    key = Ed25519PrivateKey.generate()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        file.flush()
        os.fsync(file.fileno())
    return Signer(name, key).verifier_key


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        if given.command == "new-key":
            print(new_key(given.name, given.output).text())
            return EXIT_DONE
        root = Root(given.name, given.root, given.record)
        made = _made(root, given)
        given.output.write_text(made, "utf-8")
    except (rotation.CannotRotate, NoteInvalid, OSError, ValueError) as error:
        print(f"rotate: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return EXIT_DONE


def _made(root: Root, given: argparse.Namespace) -> str:
    now = datetime.now(UTC)
    if given.command == "sign":
        return root.sign(Manifest.parse(given.text.read_text("utf-8")))
    note, checkpoint = given.manifest.read_text("utf-8"), given.checkpoint.read_text("utf-8")
    if given.command == "begin":
        return root.begin(note, VerifierKey.parse(given.key), checkpoint, now)
    return root.end(note, checkpoint, now)


def _parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="services.audit.rotate", description="Rotate the log's signing key.")
    commands = found.add_subparsers(dest="command", required=True)
    made = commands.add_parser("new-key", help="make a key for the signer, and print its verifier key")
    made.add_argument("--name", required=True, help="the log's name")
    made.add_argument("--output", type=Path, required=True, help="the file, in the signer's more_keys")
    for name, words in (
        ("begin", "let the new key sign beside the one in force"),
        ("end", "end the older key, thirty days later"),
        ("sign", "sign a manifest that was written by hand: other witnesses, quorum, receipt keys"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("--name", required=True, help="the log's name")
        command.add_argument("--root", type=Path, required=True, help="the root's private key")
        command.add_argument("--record", type=Path, required=True, help="the file with when a rotation was begun")
        command.add_argument("--output", type=Path, required=True, help="the new manifest, for the signer")
        if name == "sign":
            command.add_argument("--text", type=Path, required=True, help="the manifest's text, without signatures")
            continue
        command.add_argument("--manifest", type=Path, required=True, help="the manifest in force")
        command.add_argument("--checkpoint", type=Path, required=True, help="the log's newest checkpoint")
        if name == "begin":
            command.add_argument("--key", required=True, help="the new key's vkey, as new-key printed it")
    return found


if __name__ == "__main__":
    sys.exit(main())
