"""Our proofs, tiles and checkpoints checked by code that isn't ours.

What each of them doesn't check, so that nobody takes it for checked:
- pymerkle 7: RFC 9162's tree and inclusion paths, which it also makes; indexes count from one, and a path begins with
  the leaf's own hash. Its consistency proofs are of a format of its own (they go down to a leaf where RFC 9162 stops at
  the edge of the older tree): it can say that our roots are consistent, but can't read our proofs. No notes, no tiles.
- sigstore 4: inclusion only (Rekor's clients see no consistency); it doesn't ask whether the index is within the tree,
  nor how long a hash is. Its notes may have one empty line only; it takes any key of its keyring whatever the id says,
  any spelling of a number or of base64, and lines after the root. What we use of it is internal (`sigstore._internal`).
- tlog-scales 0.0: tiles, both proofs, notes and cosignatures; young by its own word. It takes the first line with the
  key's name and id, ignores what else stands in a note (extension lines, the separator), and takes any base64.
None of the three reads the C2SP tlog-proof text.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import pymerkle
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sigstore._internal.merkle import verify_merkle_inclusion
from sigstore._internal.rekor.checkpoint import SignedCheckpoint, SignedNote
from sigstore._internal.trust import Keyring, RekorKeyring
from sigstore._utils import KeyID
from sigstore.errors import VerificationError
from sigstore_models.common import v1 as common
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey
from tlog_scales.tlog import (
    Checkpoint,
    ConsistencyProof,
    ConsistencyProofInvalid,
    InclusionProof,
    InclusionProofInvalid,
)

from services.audit.model import merkle
from services.audit.model.cosigning import Cosigner, with_cosignatures
from services.audit.model.notes import Signer, TreeHead

ORIGIN = "recoup-test.local.invalid/log"
# All sizes of a small tree, and some at the edges of tiles and of powers of two.
SIZES = (*range(1, 34), 63, 64, 65, 255, 256, 257, 511, 512, 513, 700)


def content(number: int) -> bytes:
    return b"leaf %d" % number


def grown(size: int) -> tuple[dict[merkle.Node, bytes], list[bytes]]:
    frontier, nodes = merkle.Frontier(), dict[merkle.Node, bytes]()
    roots = [frontier.root()]
    for number in range(size):
        nodes |= {(h, p): digest for h, p, digest in frontier.append(merkle.leaf_hash(content(number)))}
        roots.append(frontier.root())
    return nodes, roots


NODES, ROOTS = grown(SIZES[-1])


def some(size: int) -> list[int]:
    """Indexes to prove in a tree: all of a small one's, else those where something may go wrong."""
    return (
        list(range(size)) if size < 34 else sorted({0, 1, size // 2, size - 2, size - 1, 255, 256} & set(range(size)))
    )


def included(index: int, size: int) -> list[bytes]:
    return merkle.hash_ranges(merkle.inclusion_ranges(index, size), NODES)


def consistent(first: int, second: int) -> list[bytes]:
    return merkle.hash_ranges(merkle.consistency_ranges(first, second), NODES)


def flipped(digest: bytes) -> bytes:
    return bytes([digest[0] ^ 1]) + digest[1:]


@lru_cache(maxsize=1)
def pymerkles_tree() -> pymerkle.InmemoryTree:
    tree = pymerkle.InmemoryTree()
    tree.append_entries(content(number) for number in range(SIZES[-1]))
    return tree


def test_pymerkle_has_the_same_roots() -> None:
    assert [pymerkles_tree().get_root(size) for size in range(SIZES[-1] + 1)] == ROOTS


def test_pymerkle_verifies_our_inclusion_proofs() -> None:
    for size in SIZES:
        for index in some(size):
            theirs = pymerkles_tree().prove_inclusion(index + 1, size)
            assert theirs.path == [merkle.leaf_hash(content(index)), *included(index, size)]
            theirs.path = [merkle.leaf_hash(content(index)), *included(index, size)]
            pymerkle.verify_inclusion(theirs.path[0], ROOTS[size], theirs, index=index + 1, size=size)
            for place in range(len(theirs.path)):
                theirs.path[place] = flipped(theirs.path[place])
                with pytest.raises(pymerkle.InvalidProof):
                    pymerkle.verify_inclusion(merkle.leaf_hash(content(index)), ROOTS[size], theirs)
                theirs.path[place] = flipped(theirs.path[place])


def test_pymerkle_finds_our_roots_consistent_by_its_own_proofs() -> None:
    for second in SIZES:
        for first in (size for size in SIZES if size <= second):
            theirs = pymerkles_tree().prove_consistency(first, second)
            pymerkle.verify_consistency(ROOTS[first], ROOTS[second], theirs, prior_size=first, later_size=second)
            with pytest.raises(pymerkle.InvalidProof):
                pymerkle.verify_consistency(flipped(ROOTS[first]), ROOTS[second], theirs)


def rekor_entry(index: int, size: int, leaf: bytes, hashes: list[bytes], root: bytes) -> Any:
    """What sigstore reads of an entry's proof."""
    proof = SimpleNamespace(log_index=index, tree_size=size, hashes=hashes, root_hash=root)
    return SimpleNamespace(_inner=SimpleNamespace(inclusion_proof=proof, canonicalized_body=leaf))


def test_sigstore_verifies_our_inclusion_proofs() -> None:
    for size in SIZES:
        for index in some(size):
            proof = included(index, size)
            verify_merkle_inclusion(rekor_entry(index, size, content(index), proof, ROOTS[size]))
            with pytest.raises(VerificationError):
                verify_merkle_inclusion(rekor_entry(index, size, b"another", proof, ROOTS[size]))
            for place in range(len(proof)):
                wrong = [*proof[:place], flipped(proof[place]), *proof[place + 1 :]]
                with pytest.raises(VerificationError):
                    verify_merkle_inclusion(rekor_entry(index, size, content(index), wrong, ROOTS[size]))


def test_sigstore_reads_and_verifies_our_checkpoints() -> None:
    private = Ed25519PrivateKey.generate()
    signer = Signer(ORIGIN, private)
    note = signer.sign(TreeHead(ORIGIN, 700, ROOTS[700]).text())
    key_id = KeyID(signer.verifier_key.key_id)
    read = SignedCheckpoint.from_text(note)
    read.signed_note.verify(keyring(private), key_id)
    assert (read.checkpoint.origin, read.checkpoint.log_size) == (ORIGIN, 700)
    assert (read.checkpoint.log_hash, read.checkpoint.other_content) == (ROOTS[700].hex(), [])
    with pytest.raises(VerificationError):
        SignedNote.from_text(note.replace("\n700\n", "\n701\n")).verify(keyring(private), key_id)
    with pytest.raises(VerificationError):
        read.signed_note.verify(keyring(Ed25519PrivateKey.generate()), key_id)


def keyring(private: Ed25519PrivateKey) -> RekorKeyring:
    raw = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = common.PublicKey(
        raw_bytes=base64.b64encode(raw), key_details=common.PublicKeyDetails.PKIX_ED25519, valid_for=None
    )
    return RekorKeyring(Keyring([key]))


def test_tlog_scales_verifies_our_proofs() -> None:
    for second in SIZES:
        for index in some(second):
            leaf, proof = merkle.leaf_hash(content(index)), included(index, second)
            InclusionProof(index, second, proof).check(leaf, ROOTS[second])
            with pytest.raises(InclusionProofInvalid):
                InclusionProof(index, second, proof).check(flipped(leaf), ROOTS[second])
        for first in (size for size in SIZES if size <= second):
            linked = ConsistencyProof(first, second, consistent(first, second))
            linked.check(ROOTS[first], ROOTS[second])
            with pytest.raises(ConsistencyProofInvalid):
                linked.check(flipped(ROOTS[first]), ROOTS[second])


def test_tlog_scales_verifies_our_checkpoints() -> None:
    signer = Signer(ORIGIN, Ed25519PrivateKey.generate())
    note = signer.sign(TreeHead(ORIGIN, 700, ROOTS[700]).text())
    read = Checkpoint.from_text(note)
    read.verify(Vkey.from_string(signer.verifier_key.text()))
    assert (read.origin, read.size, read.root_hash, read.serialize()) == (ORIGIN, 700, ROOTS[700], note)
    another = Signer(ORIGIN, Ed25519PrivateKey.generate())
    with pytest.raises(RuntimeError):
        read.verify(Vkey.from_string(another.verifier_key.text()))


def test_tlog_scales_verifies_our_cosignatures() -> None:
    signer, cosigner = (
        Signer(ORIGIN, Ed25519PrivateKey.generate()),
        Cosigner("witness.example/w1", Ed25519PrivateKey.generate()),
    )
    text = TreeHead(ORIGIN, 700, ROOTS[700]).text()
    read = Checkpoint.from_text(with_cosignatures(signer.sign(text), [cosigner.cosign(text, 1679315147)]))
    witness = Vkey.from_string(cosigner.witness.text())
    read.verify(Vkey.from_string(signer.verifier_key.text()))
    read.verify(witness)
    assert witness.get_verifier().get_timestamp(read.signatures[1].payload) == 1679315147
    later = Checkpoint.from_text(with_cosignatures(signer.sign(text), [cosigner.cosign(text + "\n", 1679315147)]))
    with pytest.raises(InvalidSignature):
        later.verify(witness)


class OurTiles:
    """Tiles cut from the nodes that the log holds, as their paths name them."""

    def __init__(self, size: int) -> None:
        self.size, self.asked = size, list[tuple[str, ...]]()

    def get(self, *path: str) -> bytes | None:
        self.asked.append(path)
        level, number = int(path[1]), int(path[2].removesuffix(".p"))
        width = int(path[3]) if path[2].endswith(".p") else 256
        held = range(number * 256, min(number * 256 + width, self.size >> 8 * level))
        return b"".join(NODES[8 * level, position] for position in held) if len(held) == width else None


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 700])
def test_tlog_scales_makes_our_roots_and_proofs_from_our_tiles(size: int) -> None:
    tiles = OurTiles(size)
    reader = TilesReader(tiles)
    reader.set_size(size)
    assert reader.calculate_root_hash() == ROOTS[size]
    for index in some(size):
        assert reader.get_inclusion_proof(index, size).node_hashes == included(index, size)
    for first in (each for each in SIZES if each <= size):
        assert reader.get_consistency_proof(first, size).node_hashes == consistent(first, size)
    assert (("tile", "1", "000.p", str(size >> 8)) in tiles.asked) == (size >= 256)
