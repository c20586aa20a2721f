"""The key manifest, and rotating the key of the log: both sides of each boundary, by signer and verifier."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from recoup_local import keys as local_keys
from recoup_verify.documents import Disproved
from recoup_verify.keys import read_manifest
from recoup_verify.log import parse_key, verified_head
from services._mesh.keys import read_private_key
from services.audit.model import rotation
from services.audit.model.cosigning import Cosigner, WitnessKey
from services.audit.model.manifest import (
    LOG,
    RECEIPT,
    ListedKey,
    Manifest,
    find_policy,
    sign_manifest,
    signed_manifest,
)
from services.audit.model.note_check import read_stored_note
from services.audit.model.notes import Note, NoteInvalid, Signer, TreeHead, VerifierKey, verify
from services.audit.model.shards import place_of
from services.audit.rotate import main
from services.audit.signing_keys import SigningKeys

NAME = "recoup-test.local.invalid/log"
BEGUN = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Installation:
    """A log's keys in a folder, as the signer is given them, and the root apart."""

    def __init__(self, folder: Path) -> None:
        self.root = Signer(f"{NAME}/root", Ed25519PrivateKey.generate())
        self.folder, self.more, self.path = folder, folder / "keys", folder / "manifest.txt"
        self.more.mkdir()
        first = self._make(folder / "log.key")
        receipt = ListedKey(RECEIPT, Ed25519PrivateKey.generate().public_key().public_bytes_raw())
        self.manifest = Manifest(NAME, self.root.verifier_key, (ListedKey(LOG, first), receipt))
        self.put(self.manifest)
        self.signing = self.load()

    def load(self) -> SigningKeys:
        return SigningKeys(NAME, self.folder / "log.key", self.more, self.path, self.root.verifier_key)

    def _make(self, path: Path) -> bytes:
        key = Ed25519PrivateKey.generate()
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return key.public_key().public_bytes_raw()

    def new_key(self, name: str = "2") -> bytes:
        return self._make(self.more / f"{name}.key")

    def put(self, manifest: Manifest, root: Signer | None = None) -> None:
        """Replace the manifest's file, as an operator does who brought it from the root's machine."""
        beside = self.path.with_suffix(".brought")
        beside.write_text(sign_manifest(manifest, [root or self.root]))
        beside.replace(self.path)
        self.manifest = manifest


def text(size: int, shard: int = 0) -> str:
    return TreeHead(f"{NAME}/{shard}" if shard else NAME, size, b"\1" * 32).text()


def signers_of(note: str) -> list[bytes]:
    return [line.key_id for line in Note.parse(note).lines]


@pytest.fixture
def made(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def test_a_manifest_is_read_as_it_was_written() -> None:
    root = Signer(f"{NAME}/root", Ed25519PrivateKey.generate())
    witness = Cosigner("w.example", Ed25519PrivateKey.generate()).witness
    listed = [ListedKey(LOG, b"\1" * 32, 0, place_of(1, 0)), ListedKey(LOG, b"\2" * 32, place_of(0, 7))]
    manifest = Manifest(NAME, root.verifier_key, (*listed, ListedKey(RECEIPT, b"\3" * 32)), (witness,), 1)
    note = sign_manifest(manifest, [root])
    assert signed_manifest(note, root.verifier_key) == manifest
    assert find_policy(note) == ((witness,), 1)
    with pytest.raises(NoteInvalid, match="isn't signed by the root"):
        signed_manifest(note, Signer(f"{NAME}/root", Ed25519PrivateKey.generate()).verifier_key)
    for odd in ("quorum 2", "quorum 01", "quorum"):
        with pytest.raises(NoteInvalid):
            Manifest.parse(manifest.text().replace("quorum 1", odd))
    same_name = Cosigner(witness.name, Ed25519PrivateKey.generate()).witness
    for twice in (same_name, WitnessKey("other.example", witness.public)):
        with pytest.raises(NoteInvalid, match="names a witness twice"):
            Manifest.parse(replace(manifest, witnesses=(witness, twice)).text())


def test_the_signer_agrees_to_what_the_root_signed_and_the_verifier_reads_it(made: Installation) -> None:
    for vkey in (made.root.verifier_key, made.signing.verifier_key):
        trust = read_manifest(made.signing.manifest(), parse_key(vkey.text()))
        assert verified_head(made.signing.sign(text(7)), trust).size == 7
        assert verified_head(made.signing.sign(text(7, 3)), trust).shard == 3


def test_rotation_from_one_key_over_two_to_one(made: Installation) -> None:
    """At each boundary, by the signer and by the verifier: from - 1, from, to - 1, to."""
    old, root = made.signing.verifier_key, parse_key(made.root.verifier_key.text())
    new = VerifierKey(NAME, made.new_key())
    made.put(rotation.begin(made.manifest, new.public, place_of(0, 100)))
    # The running signer takes the new key up at its next signature; a smaller tree stays the old key's.
    assert signers_of(made.signing.sign(text(99))) == [old.key_id]
    both = made.signing.sign(text(100))
    assert sorted(signers_of(both)) == sorted([old.key_id, new.key_id])
    for key in (old, new):
        assert verify(both, key) == text(100)
    manifest = made.signing.manifest()
    for vkey in (root, parse_key(old.text()), parse_key(new.text())):
        assert verified_head(both, read_manifest(manifest, vkey)).size == 100
    # After thirty days the old one ends behind the newest checkpoint.
    now = BEGUN + rotation.OVERLAP
    made.put(rotation.end(made.manifest, place_of(0, 249), BEGUN, now))
    assert sorted(signers_of(made.signing.sign(text(249)))) == sorted([old.key_id, new.key_id])
    assert signers_of(made.signing.sign(text(250))) == [new.key_id]
    assert signers_of(made.signing.sign(text(1, 1))) == [Signer(f"{NAME}/1", key_of(made, "2")).verifier_key.key_id]
    trust = read_manifest(made.signing.manifest(), root)
    for note in (made.signing.sign(text(249)), made.signing.sign(text(250)), both, made.signing.sign(text(1, 1))):
        verified_head(note, trust)
    # Each key beyond its boundary, with a genuine signature.
    stolen, early = Signer(NAME, key_of(made, "")), Signer(NAME, key_of(made, "2"))
    for signer, size, good in ((stolen, 249, True), (stolen, 250, False), (early, 100, True), (early, 99, False)):
        if good:
            verified_head(signer.sign(text(size)), trust)
        else:
            with pytest.raises(Disproved, match="wasn't good for that part"):
                verified_head(signer.sign(text(size)), trust)


def key_of(made: Installation, name: str) -> Ed25519PrivateKey:
    return read_private_key(made.more / f"{name}.key" if name else made.folder / "log.key")


def test_both_keys_sign_for_thirty_days_and_one_rotation_is_under_way_at_a_time(made: Installation) -> None:
    with pytest.raises(rotation.CannotRotate, match="no rotation is under way"):
        rotation.end(made.manifest, place_of(0, 5), BEGUN, BEGUN + rotation.OVERLAP)
    begun = rotation.begin(made.manifest, b"\5" * 32, place_of(0, 5))
    with pytest.raises(rotation.CannotRotate, match="under way"):
        rotation.begin(begun, b"\6" * 32, place_of(0, 6))
    with pytest.raises(rotation.CannotRotate, match="30 days"):
        rotation.end(begun, place_of(0, 9), BEGUN, BEGUN + rotation.OVERLAP - timedelta(seconds=1))
    with pytest.raises(rotation.CannotRotate, match="older than the new key"):
        rotation.end(begun, place_of(0, 4), BEGUN, BEGUN + rotation.OVERLAP)
    ended = rotation.end(begun, place_of(0, 5), BEGUN, BEGUN + rotation.OVERLAP)
    with pytest.raises(rotation.CannotRotate, match="one of the log's already"):
        rotation.begin(ended, made.manifest.of(LOG)[0].public, place_of(0, 9))
    assert [key.end for key in ended.of(LOG)] == [place_of(0, 6), None]


def test_what_the_root_did_not_sign_is_not_taken_up(made: Installation, caplog: pytest.LogCaptureFixture) -> None:
    before, manifest = made.signing.manifest(), made.manifest
    begun = rotation.begin(manifest, made.new_key(), place_of(0, 5))
    made.put(begun, Signer(f"{NAME}/root", Ed25519PrivateKey.generate()))
    assert made.signing.manifest() == before
    # A key in force whose private half isn't here.
    made.put(rotation.begin(manifest, b"\7" * 32, place_of(0, 5)))
    assert made.signing.manifest() == before
    assert len(signers_of(made.signing.sign(text(9)))) == 1
    assert caplog.text.count("isn't taken up") == 2
    with pytest.raises(NoteInvalid):
        made.load()
    made.put(begun)
    assert len(signers_of(made.signing.sign(text(9)))) == 2
    assert len(signers_of(made.load().sign(text(9)))) == 2


def test_a_manifest_of_version_1_is_still_handed_out(tmp_path: Path) -> None:
    made = Installation(tmp_path)
    log = Signer(NAME, key_of(made, ""))
    first = log.sign(f"{NAME}/keys\nrecoup-keys/v1\n" + ListedKey(RECEIPT, b"\3" * 32).line().replace("0:0", "0"))
    made.path.write_text(first)
    signing = SigningKeys(NAME, tmp_path / "log.key", None, made.path, None)
    assert signing.manifest() == first
    assert find_policy(first) == ((), 0)
    assert verified_head(signing.sign(text(4)), read_manifest(first, parse_key(log.verifier_key.text()))).size == 4


def test_the_local_profile_keeps_the_root_away_from_all_processes(tmp_path: Path) -> None:
    witness = local_keys.witness_key(tmp_path / "witness", "w.local.invalid")
    folders = local_keys.LogFolders(*(tmp_path / name for name in ("signer", "actions", "audit", "offline")))
    folders.signer.mkdir()
    made = local_keys.log_keys(folders, NAME, witness)
    root = VerifierKey.parse(made.root_verifier_key)
    signing = SigningKeys(NAME, made.signer_key, folders.signer / "keys", made.manifest, root)
    for vkey in (made.verifier_key, made.root_verifier_key):
        trust = read_manifest(signing.manifest(), parse_key(vkey))
        assert len(trust.keys["receipt"]) == len(trust.keys["evidence"]) == 1
    kept = made.root_key.read_bytes()
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == kept]
    assert holders == [folders.offline / "root.key"]


def test_the_command_at_the_root_begins_and_ends(
    made: Installation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, record = tmp_path / "root.key", tmp_path / "rotation.json"
    made.root = Signer(f"{NAME}/root", read_private_key(made.folder / "log.key"))  # any key will do
    root.write_bytes((made.folder / "log.key").read_bytes())
    made.put(replace(made.manifest, root=made.root.verifier_key))
    (tmp_path / "head").write_text(Signer(NAME, key_of(made, "")).sign(text(40)))
    files = ["--name", NAME, "--root", str(root), "--record", str(record), "--manifest", str(made.path)]
    files += ["--output", str(made.path)]
    head = ["--checkpoint", str(tmp_path / "head")]
    assert main(["new-key", "--name", NAME, "--output", str(made.more / "n.key")]) == 0
    vkey = capsys.readouterr().out.strip()
    assert main(["end", *files, *head]) == 1
    assert "no rotation is under way" in capsys.readouterr().err
    # A checkpoint of somebody else's says nothing of where the log is.
    (tmp_path / "forged").write_text(Signer(NAME, Ed25519PrivateKey.generate()).sign(text(4000)))
    assert main(["begin", *files, "--key", vkey, "--checkpoint", str(tmp_path / "forged")]) == 1
    assert "isn't signed by a key in force" in capsys.readouterr().err
    assert main(["begin", *files, "--key", vkey, *head]) == 0
    begun = signed_manifest(made.path.read_text(), made.root.verifier_key)
    assert [(key.start, key.end) for key in begun.of(LOG)] == [(0, None), (40, None)]
    assert main(["end", *files, *head]) == 1
    assert "30 days" in capsys.readouterr().err
    record.write_text(json.dumps({"begun_at": (datetime.now(UTC) - rotation.OVERLAP).isoformat()}))
    assert main(["end", *files, *head]) == 0
    ended = signed_manifest(made.path.read_text(), made.root.verifier_key)
    assert [(key.start, key.end) for key in ended.of(LOG)] == [(0, 41), (40, None)]
    # No key is ever written over another.
    assert main(["new-key", "--name", NAME, "--output", str(made.more / "n.key")]) == 1
    (tmp_path / "text").write_text(ended.text().replace("quorum 0", "quorum 1"))
    assert main(["sign", *files[:6], "--output", str(made.path), "--text", str(tmp_path / "text")]) == 1


@pytest.mark.parametrize(
    ("size", "signing", "sound"),
    [
        (9, {0}, True), (10, {0}, False), (10, {1}, True), (9, {1}, False),
        # A head that was signed in the moment in which the old key ended has a line of it, too.
        (10, {0, 1}, True),
    ],
)  # fmt: skip
def test_the_self_check_knows_what_each_key_was_good_for(size: int, signing: set[int], sound: bool) -> None:
    pair = [Ed25519PrivateKey.generate() for _ in range(2)]
    old, new = (key.public_key().public_bytes_raw() for key in pair)
    listed = [ListedKey(LOG, old, 0, 10), ListedKey(LOG, new, 10)]
    text = TreeHead(NAME, size, bytes(32)).text()
    lines = [Note.parse(Signer(NAME, pair[each]).sign(text)).lines[0].text() for each in sorted(signing)]
    note = f"{text}\n" + "".join(lines)
    if sound:
        assert read_stored_note(note, listed, 0).size == size
    else:
        with pytest.raises(NoteInvalid, match="no key signed it"):
            read_stored_note(note, listed, 0)
    stranger = Note.parse(Signer(NAME, Ed25519PrivateKey.generate()).sign(text)).lines[0].text()
    with pytest.raises(NoteInvalid, match="isn't the log's"):
        read_stored_note(note + stranger, listed, 0)
