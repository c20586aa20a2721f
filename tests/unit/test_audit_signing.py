"""Signed notes, and the signer's one rule: a signed head is continued, never replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.errors import WrongState
from services.audit import usecases
from services.audit.model import merkle
from services.audit.model.notes import NoteInvalid, Signer, TreeHead, VerifierKey, verify
from services.audit.signer_state import SignerState

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
    note5 = usecases.sign_checkpoint(signer, state, ORIGIN, 5, root5, 0, [])
    assert verify(note5, signer.verifier_key) == TreeHead(ORIGIN, 5, root5).text()
    usecases.sign_checkpoint(signer, state, ORIGIN, 12, root12, 5, proof)
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
            usecases.sign_checkpoint(signer, state, ORIGIN, size, root, start, given)
    assert state.head.size == 12
    assert rewritten
