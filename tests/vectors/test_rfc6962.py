"""Published vectors of RFC 6962: those of its reference implementation, and the folder beside the repository.

The eight leaves, their nodes, roots and proofs are those that the Certificate Transparency project has published with
each of its implementations (today transparency-dev/merkle), and that other people's code is tested with.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recoup_verify import log, tree
from recoup_verify.documents import Disproved
from services.audit.model import merkle
from services.audit.model.notes import Signer

DATA = Path(os.environ.get("RECOUP_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CASES = DATA / "merkle" / "inclusion"

LEAVES = [
    bytes.fromhex(each)
    for each in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
# By height: the complete nodes over the eight leaves.
NODES = [
    [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "0298d122906dcfc10892cb53a73992fc5b9f493ea4c9badb27b791b4127a7fe7",
        "07506a85fd9dd2f120eb694f86011e5bb4662e5c415a62917033d4a9624487e7",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "4271a26be0d8a84f0bd54c8c302e7cb3a3b5d1fa6780a40bcce2873477dab658",
        "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
        "46f6ffadd3d06a09ff3c5860d2755c8b9819db7df44251788c7d8e3180de8eb1",
    ],
    [
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    ],
    [
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    ["5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"],
]
# By size, the empty tree's first.
ROOTS = [
    bytes.fromhex(each)
    for each in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
ORIGIN = "recoup-test.local.invalid/log"
SIGNER = Signer(ORIGIN, Ed25519PrivateKey.generate())
KEY = log.parse_key(SIGNER.verifier_key.text())
H = {(height, place): bytes.fromhex(each) for height, row in enumerate(NODES) for place, each in enumerate(row)}
# (index, size): the path, as (height, position) of the nodes above.
INCLUSIONS = {
    (0, 1): [],
    (0, 8): [(0, 1), (1, 1), (2, 1)],
    (5, 8): [(0, 4), (1, 3), (2, 0)],
    (2, 3): [(1, 0)],
    (1, 5): [(0, 0), (1, 1), (0, 4)],
}
CONSISTENCIES = {
    (1, 1): [],
    (1, 8): [(0, 1), (1, 1), (2, 1)],
    (6, 8): [(1, 2), (1, 3), (2, 0)],
    (2, 5): [(1, 1), (0, 4)],
    (6, 7): [(1, 2), (0, 6), (2, 0)],
}


def test_leaves_nodes_and_roots() -> None:
    frontier, nodes = merkle.Frontier(), {}
    assert frontier.root() == merkle.EMPTY_ROOT == ROOTS[0]
    for size, leaf in enumerate(LEAVES, 1):
        nodes |= {(h, p): digest for h, p, digest in frontier.append(merkle.leaf_hash(leaf))}
        assert frontier.root() == ROOTS[size]
        assert tree.leaf_hash(leaf) == merkle.leaf_hash(leaf) == H[0, size - 1]
    assert nodes == H


def checkpoint(size: int, root: bytes) -> str:
    return SIGNER.sign(f"{ORIGIN}\n{size}\n{base64.b64encode(root).decode()}\n")


def refuses_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> set[str]:
    """Which of our two implementations refuse the proof for a leaf's hash."""
    refused = set()
    try:
        merkle.verify_inclusion(leaf, index, size, proof, root)
    except merkle.ProofInvalid:
        refused.add("audit")
    try:
        # Through a signed checkpoint, as in life: that is where sizes and roots that can't be are refused.
        head = log.verified_head(checkpoint(size, root), KEY)
        tree.check_inclusion(leaf, index, proof, head.size, head.root)
    except Disproved:
        refused.add("verifier")
    return refused


BOTH = {"audit", "verifier"}


@pytest.fixture
def _hashes_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors name leaves by their hashes; the verifier, which has the leaf, mustn't hash them once more."""
    monkeypatch.setattr(tree, "leaf_hash", lambda leaf: leaf)


@pytest.mark.usefixtures("_hashes_given")
@pytest.mark.skipif(not CASES.is_dir(), reason=f"no published vectors at {CASES}")
def test_the_shared_inclusion_vectors() -> None:
    found = sorted(CASES.rglob("*.json"))
    wanted = set()
    for path in found:
        case = json.loads(path.read_text())
        leaf, root = base64.b64decode(case["leafHash"] or ""), base64.b64decode(case["root"] or "")
        proof = [base64.b64decode(item) for item in case["proof"] or []]
        refused = refuses_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, root)
        assert refused == (BOTH if case["wantErr"] else set()), f"{path.relative_to(CASES)}: {case['desc']}"
        wanted.add(case["wantErr"])
    assert (len(found), wanted) == (98, {True, False})


@pytest.mark.usefixtures("_hashes_given")
@pytest.mark.parametrize(("where", "path"), INCLUSIONS.items())
def test_inclusion_proofs(where: tuple[int, int], path: list[merkle.Node]) -> None:
    index, size = where
    proof = [H[node] for node in path]
    assert merkle.hash_ranges(merkle.inclusion_ranges(index, size), H) == proof
    leaf, root = H[0, index], ROOTS[size]
    assert refuses_inclusion(leaf, index, size, proof, root) == set()
    wrong = [
        (leaf, index - 1, size, proof, root),
        (leaf, index + 1, size, proof, root),
        (leaf, index ^ 2, size, proof, root),
        (leaf, index, size * 2, proof, root),
        (leaf, index, size // 2, proof, root),
        (b"WrongLeaf", index, size, proof, root),
        (leaf, index, size, proof, ROOTS[0]),
        (leaf, index, size, [*proof, b""], root),
        (leaf, index, size, [*proof, root], root),
        (leaf, index, size, [b"", *proof], root),
        (leaf, index, size, [root, *proof], root),
        *((leaf, index, size, changed, root) for changed in each_changed(proof)),
    ]
    assert [case for case in wrong if refuses_inclusion(*case) != BOTH] == []


def refuses_consistency(first: int, second: int, old: bytes, new: bytes, proof: list[bytes]) -> set[str]:
    """Which of our two implementations refuse the proof."""
    refused = set()
    try:
        merkle.verify_consistency(first, second, old, new, proof)
    except merkle.ProofInvalid:
        refused.add("audit")
    try:
        older, newer = (log.verified_head(checkpoint(*each), KEY) for each in ((first, old), (second, new)))
        tree.check_consistency((older.size, older.root), (newer.size, newer.root), proof)
    except Disproved:
        refused.add("verifier")
    return refused


@pytest.mark.parametrize(("sizes", "path"), CONSISTENCIES.items())
def test_consistency_proofs(sizes: tuple[int, int], path: list[merkle.Node]) -> None:
    first, second = sizes
    proof = [H[node] for node in path]
    assert merkle.hash_ranges(merkle.consistency_ranges(first, second), H) == proof
    old, new = ROOTS[first], ROOTS[second]
    assert refuses_consistency(first, second, old, new, proof) == set()
    wrong = [
        (first, second, b"WrongRoot", new, proof),
        (first, second, old, b"WrongRoot", proof),
        (first, second // 2, old, new, proof),
        (first, second, old, new, [*proof, b""]),
        (first, second, old, new, [*proof, old]),
        (first, second, old, new, [*proof, new]),
        (first, second, old, new, [b"", *proof]),
        (first, second, old, new, [old, *proof]),
        (first, second, old, new, [new, *proof]),
    ]
    if proof:
        wrong += [
            (first - 1, second, old, new, proof),
            (first + 1, second, old, new, proof),
            (first ^ 2, second, old, new, proof),
            (first, second * 2, old, new, proof),
            (first, second, new, old, proof),
            (first, second, old, new, []),
            (first, second, old, new, [proof[0], *proof]),
            *((first, second, old, new, changed) for changed in each_changed(proof)),
        ]
    assert [case for case in wrong if refuses_consistency(*case) != BOTH] == []


def each_changed(proof: list[bytes]) -> list[list[bytes]]:
    """The proof with a bit of each hash flipped, one hash too few, and one too many in its midst."""
    changed = []
    for place, digest in enumerate(proof):
        flipped = bytes([digest[0] ^ 8]) + digest[1:]
        changed.append([*proof[:place], flipped, *proof[place + 1 :]])
    if proof:
        changed.append(proof[:-1])
    if len(proof) > 1:
        changed.append([proof[0], bytes(32), *proof[1:]])
    return changed
