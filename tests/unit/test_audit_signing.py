"""Signed notes, and the signer's one rule: a signed head is continued, never replaced."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services._mesh.clock import Clock
from services._mesh.errors import WrongState
from services.audit.config import SignerKeys, SignerSettings
from services.audit.model import merkle
from services.audit.model.notes import NoteInvalid, Signer, TreeHead, VerifierKey, verify
from services.audit.model.signing import Inconsistent, OfferedHead, SignedHead
from services.audit.shard_signing import ShardSigner
from services.audit.signer_begin import begin
from services.audit.signer_memory import MemoryUnusable, SignerMemory
from services.audit.signer_state import SignerState
from services.audit.signing import sign_checkpoint

ORIGIN = "recoup-test.local.invalid/log"


def tree(leaves: list[bytes]) -> tuple[dict[merkle.Node, bytes], bytes]:
    frontier, nodes = merkle.Frontier(), {}
    for leaf in leaves:
        nodes |= {(h, p): d for h, p, d in frontier.append(merkle.leaf_hash(leaf))}
    return nodes, frontier.root()


def test_a_note_verifies_only_under_its_own_key() -> None:
    signer = Signer(ORIGIN, Ed25519PrivateKey.generate())
    text = TreeHead(ORIGIN, 3, b"\x01" * 32).text()
    note = signer.sign(text)
    key = VerifierKey.parse(signer.verifier_key.text())
    assert verify(note, key) == text
    assert TreeHead.parse(text).size == 3
    other = Signer(ORIGIN, Ed25519PrivateKey.generate()).verifier_key
    with pytest.raises(NoteInvalid):
        verify(note, other)
    with pytest.raises(NoteInvalid):
        verify(note.replace("\n3\n", "\n4\n"), key)


def test_unknown_signature_lines_are_ignored() -> None:
    signer, witness = (Signer(name, Ed25519PrivateKey.generate()) for name in (ORIGIN, "witness.example"))
    text = TreeHead(ORIGIN, 3, b"\x01" * 32).text()
    both = signer.sign(text) + witness.sign(text).rpartition("\n\n")[2]
    assert verify(both, signer.verifier_key) == verify(both, witness.verifier_key) == text


@pytest.mark.parametrize("text", ["", "a+b", "name+00000000+!!!", "name+00000000+AAAA"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(NoteInvalid):
        VerifierKey.parse(text)


def test_the_signer_continues_what_it_signed_and_refuses_everything_else(tmp_path: Path) -> None:
    signer, state = Signer(ORIGIN, Ed25519PrivateKey.generate()), SignerState(tmp_path / "signed.json")
    leaves = [str(number).encode() for number in range(12)]
    _, root5 = tree(leaves[:5])
    nodes, root12 = tree(leaves)
    proof = merkle.hash_ranges(merkle.consistency_ranges(5, 12), nodes)
    note5 = sign_checkpoint(signer, state, ORIGIN, 5, root5, 0, [])
    assert verify(note5, signer.verifier_key) == TreeHead(ORIGIN, 5, root5).text()
    sign_checkpoint(signer, state, ORIGIN, 12, root12, 5, proof)
    # Its memory outlives it.
    state = SignerState(tmp_path / "signed.json")
    assert state.head.size == 12
    rewritten, forked = tree([b"changed", *leaves[1:]])
    more, root14 = tree([b"changed", *leaves[1:], b"12", b"13"])
    fork_proof = merkle.hash_ranges(merkle.consistency_ranges(12, 14), more)
    for size, root, start, given in (
        (5, root5, 12, []),  # an older backup
        (12, forked, 12, []),  # a rewritten row
        (14, root14, 12, fork_proof),  # a forked head that has grown
        (14, root14, 5, fork_proof),  # a proof from elsewhere
        (14, root14, 0, []),  # as if nothing had been signed
    ):
        with pytest.raises(WrongState, match="Not signed"):
            sign_checkpoint(signer, state, ORIGIN, size, root, start, given)
    assert state.head.size == 12
    assert rewritten


def test_a_memory_that_is_gone_is_not_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "signed.json"
    with pytest.raises(MemoryUnusable, match="missing"):
        SignerMemory.opened(path)
    SignerMemory.begin(path, 2026)
    memory = SignerMemory.opened(path)
    assert memory.newest == 0
    memory.of(0).remember(SignedHead(3, bytes(32), "note"))
    memory.of(1).remember(SignedHead(1, bytes(32), "other"))
    memory.settle()
    memory.close()
    memory = SignerMemory.opened(path)
    assert (memory.newest, memory.of(0).head.size) == (1, 3)
    memory.close()
    # Without the newest shard's file the shard before would be gone on with.
    (tmp_path / "signed.1.json").rename(tmp_path / "away")
    with pytest.raises(MemoryUnusable, match=r"signed\.1\.json is missing"):
        SignerMemory.opened(path)
    (tmp_path / "away").rename(tmp_path / "signed.1.json")
    with pytest.raises(MemoryUnusable, match="no reset"):
        SignerMemory.begin(path, 2026)
    path.unlink()
    with pytest.raises(MemoryUnusable, match="missing"):
        SignerMemory.opened(path)
    with pytest.raises(MemoryUnusable, match="no reset"):
        SignerMemory.begin(path, 2026)


def test_a_memory_of_before_is_opened_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "signed.json"
    for name in ("signed.json", "signed.1.json"):
        (tmp_path / name).write_text('{"size": 2, "root": "%s", "note": "note"}' % (32 * "00"))
    memory = SignerMemory.opened(path)
    assert memory.newest == 1
    # When its shards were opened is taken from the last signature: they were then, or before.
    os.utime(tmp_path / "signed.1.json", (0, 1_700_000_000))
    assert SignerMemory(path).of(1).opened == 2023
    memory.settle()
    assert memory.of(0).newest == 1
    memory.close()


def test_one_memory_has_one_signer(tmp_path: Path) -> None:
    path = tmp_path / "signed.json"
    SignerMemory.begin(path, 2026)
    memory = SignerMemory.opened(path)
    with pytest.raises(MemoryUnusable, match="another signer"):
        SignerMemory.opened(path)
    # Whoever gets past the lock forks nothing: what lies there isn't what this process left.
    signer = ShardSigner(ORIGIN, Signer(ORIGIN, Ed25519PrivateKey.generate()), memory)
    signer.sign(OfferedHead(0, 1, tree([b"1"])[1], 0, []))
    shutil.copy(path, tmp_path / "older")
    other = SignerMemory(path)
    nodes, root = tree([b"1", b"2"])
    proof = merkle.hash_ranges(merkle.consistency_ranges(1, 2), nodes)
    other.of(0).remember(SignedHead(2, bytes(32), "note"))
    with pytest.raises(WrongState, match="isn't as the signer left it"):
        signer.sign(OfferedHead(0, 2, root, 1, proof))
    path.unlink()
    with pytest.raises(Inconsistent, match="isn't as the signer left it"):
        memory.of(0).remember(SignedHead(2, root, "note"))
    (tmp_path / "older").rename(path)
    signer.sign(OfferedHead(0, 2, root, 1, proof))
    memory.close()


def test_a_lost_memory_begins_with_the_newest_checkpoint_that_was_signed(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "log.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "manifest").write_text(Signer(ORIGIN, key).sign("a manifest of version 1\n"))
    own = SignerKeys(
        origin=ORIGIN, key=tmp_path / "log.key", state=tmp_path / "signed.json", manifest=tmp_path / "manifest"
    )
    clock = Clock(lambda: datetime(2027, 1, 1, tzinfo=UTC))
    settings = cast(SignerSettings, SimpleNamespace(signer=own))
    stranger = Signer(f"{ORIGIN}/2", Ed25519PrivateKey.generate())
    text = TreeHead(f"{ORIGIN}/2", 7, bytes(32)).text()
    with pytest.raises(NoteInvalid):
        begin(settings, clock, stranger.sign(text))
    with pytest.raises(NoteInvalid, match="no shard"):
        begin(settings, clock, Signer("other", key).sign(TreeHead("other", 7, bytes(32)).text()))
    assert not own.state.exists()
    note = Signer(f"{ORIGIN}/2", key).sign(text)
    assert begin(settings, clock, note) == f"size 7 of {ORIGIN}/2 was signed last"
    memory = SignerMemory.opened(own.state)
    assert memory.of(2).opened == 2026
    assert (memory.newest, memory.of(2).head) == (2, SignedHead(7, bytes(32), note))
    signer = ShardSigner(ORIGIN, Signer(ORIGIN, key), memory)
    with pytest.raises(WrongState, match="shard 0 is closed"):
        signer.sign(OfferedHead(0, 1, bytes(32), 0, []))
    memory.close()
