"""`recoup-verify checkpoint` and `consistency`: on logs that grow, on forked ones, and on all that they must refuse."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recoup_verify.checkpoint import check_checkpoint, check_continued
from recoup_verify.cli import main
from recoup_verify.documents import CannotTell, Disproved
from recoup_verify.log import parse_key
from services.audit.model import merkle
from services.audit.model.notes import Signer, TreeHead

NAME = "recoup.example/log"
# The same in every test process: what it signs stands in the names of tests.
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(32))
SIGNER = Signer(NAME, PRIVATE)
KEY = parse_key(SIGNER.verifier_key.text())
LAST = 20


class Tree:
    """A tree that keeps all its heads; `other` leaves make a forked one."""

    def __init__(self, other: bytes = b"") -> None:
        frontier, self.nodes, self.roots = merkle.Frontier(), dict[merkle.Node, bytes](), [merkle.EMPTY_ROOT]
        for number in range(LAST):
            content = other + b"%d" % number if number > 5 else b"%d" % number
            self.nodes |= {(h, p): d for h, p, d in frontier.append(merkle.leaf_hash(content))}
            self.roots.append(frontier.root())

    def note(self, size: int, origin: str = NAME) -> bytes:
        return Signer(origin, PRIVATE).sign(TreeHead(origin, size, self.roots[size]).text()).encode()

    def proof(self, first: int, second: int) -> list[str]:
        hashes = merkle.hash_ranges(merkle.consistency_ranges(first, second), self.nodes)
        return [base64.b64encode(item).decode() for item in hashes]


TREE, FORK = Tree(), Tree(b"other")


def lines(proof: list[str]) -> bytes:
    return "".join(f"{item}\n" for item in proof).encode()


def test_every_two_heads_of_a_log_continue_each_other() -> None:
    for second in range(1, LAST + 1):
        for first in range(1, second + 1):
            proof = lines(TREE.proof(first, second))
            old, new = check_continued(TREE.note(first), TREE.note(second), proof, KEY)
            assert (old.size, new.size) == (first, second)


def test_no_head_of_a_forked_log_continues_ours() -> None:
    for first in range(1, LAST + 1):
        for second in range(max(first, 7), LAST + 1):
            if first <= 6:
                check_continued(TREE.note(first), FORK.note(second), lines(FORK.proof(first, second)), KEY)
                continue
            for proof in (TREE.proof(first, second), FORK.proof(first, second)):
                with pytest.raises(Disproved, match=r"rewritten|forked"):
                    check_continued(TREE.note(first), FORK.note(second), lines(proof), KEY)


def test_any_changed_bit_of_a_proof_disproves() -> None:
    proof = TREE.proof(7, 19)
    for number, item in enumerate(proof):
        for bit in range(0, 256, 5):
            raw = bytearray(base64.b64decode(item))
            raw[bit // 8] ^= 1 << bit % 8
            changed = [*proof[:number], base64.b64encode(raw).decode(), *proof[number + 1 :]]
            with pytest.raises(Disproved, match="doesn't lead from the old root to the new one"):
                check_continued(TREE.note(7), TREE.note(19), lines(changed), KEY)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda proof: proof[:-1], "shorter than the tree is high|doesn't lead from the old root"),
        (lambda _: [], "shorter than it must be"),
        (lambda proof: [*proof, proof[0]], "longer than the tree is high"),
        (lambda proof: [*proof[:-1], proof[-1][:-4]], "isn't base64|hasn't 32 bytes"),
        (lambda proof: [*proof[:-1], "AAAA"], "hasn't 32 bytes"),
        (lambda proof: ["AAAA", *proof[1:]], "hasn't 32 bytes"),
        (lambda proof: [proof[0][:-2] + "B=", *proof[1:]], "isn't canonical base64"),
        (lambda proof: [f" {proof[0]}", *proof[1:]], "isn't base64"),
        (lambda proof: list(reversed(proof)), "doesn't lead from the old root"),
    ],
)
def test_a_proof_that_is_none_disproves(change: Callable[[list[str]], list[str]], why: str) -> None:
    with pytest.raises(Disproved, match=why):
        check_continued(TREE.note(7), TREE.note(19), lines(change(TREE.proof(7, 19))), KEY)


def test_a_proof_between_heads_of_one_size_is_not_needed_and_has_nothing() -> None:
    assert check_continued(TREE.note(9), TREE.note(9), None, KEY)[1].size == 9
    with pytest.raises(Disproved, match="two roots: the log was forked"):
        check_continued(TREE.note(9), FORK.note(9), None, KEY)
    with pytest.raises(Disproved, match="there is nothing to prove"):
        check_continued(TREE.note(9), TREE.note(9), lines(TREE.proof(8, 9)), KEY)


def test_what_is_missing_is_said() -> None:
    with pytest.raises(CannotTell, match=r"from_size=7&to_size=19, and give its answer with --proof"):
        check_continued(TREE.note(7), TREE.note(19), None, KEY)
    with pytest.raises(CannotTell, match="give the smaller one first"):
        check_continued(TREE.note(19), TREE.note(7), lines(TREE.proof(7, 19)), KEY)
    with pytest.raises(CannotTell, match=r"are two trees.* evidence bundles hold"):
        check_continued(TREE.note(7), TREE.note(19, f"{NAME}/1"), lines(TREE.proof(7, 19)), KEY)
    with pytest.raises(CannotTell, match="OLD isn't a signed note"):
        check_continued(b"\xff", TREE.note(19), None, KEY)
    with pytest.raises(CannotTell, match="at most 63 hashes"):
        check_continued(TREE.note(7), TREE.note(19), lines(TREE.proof(7, 19) * 20), KEY)


def signed(text: str, name: str = NAME) -> bytes:
    return Signer(name, PRIVATE).sign(text).encode()


ROOT = base64.b64encode(b"r" * 32).decode()


@pytest.mark.parametrize(
    ("note", "why"),
    [
        (signed(f"{NAME}\n0\n{ROOT}\n"), "root or size can't be"),
        (signed(f"{NAME}\n1\n{ROOT[:40]}\n"), "root or size can't be"),
        (signed(f"{NAME}\n01\n{ROOT}\n"), "isn't a tree head of this log"),
        (signed(f"{NAME}\n-1\n{ROOT}\n"), "isn't a tree head of this log"),
        (signed(f"{NAME}\n{2**63}\n{ROOT}\n"), "isn't a tree head of this log"),
        (signed(f"{NAME}\n1\n{ROOT}\nextra\n"), "isn't a tree head of this log"),
        (signed(f"other.example/log\n1\n{ROOT}\n"), "isn't a tree head of this log"),
        (signed(f"other.example/log\n1\n{ROOT}\n", "other.example/log"), "isn't signed by the key that you gave"),
        (signed(f"{NAME}/01\n1\n{ROOT}\n", f"{NAME}/01"), "isn't signed by the key that you gave"),
        (signed(f"{NAME}/0\n1\n{ROOT}\n", f"{NAME}/0"), "isn't signed by the key that you gave"),
        (signed(f"{NAME}/1\n1\n{ROOT}\n"), "isn't signed by the key that you gave"),
        (signed(f"{NAME}\n1\n{ROOT}\n", f"{NAME}/1"), "isn't signed by the key that you gave"),
        (TREE.note(3) + b"\n", "isn't a note with one signature line|signature line"),
        (TREE.note(3) + "\u2014 other.example AAAA\n".encode(), "one signature line|nobody"),
        (TREE.note(3).replace(b"\n3\n", b"\n4\n"), "signature is wrong"),
        (TREE.note(3)[:-3] + b"B=\n", "base64"),
    ],
)
def test_a_head_that_cannot_be_or_is_anothers_is_disproved(note: bytes, why: str) -> None:
    with pytest.raises(Disproved, match=why):
        check_checkpoint(note, KEY)


@pytest.mark.parametrize("note", [b"", b"{}", b"\xff\n\n", b"x" * 70_000 + b"\n\n"])
def test_what_is_no_note_cannot_be_told(note: bytes) -> None:
    with pytest.raises(CannotTell, match="isn't a signed note"):
        check_checkpoint(note, KEY)


def test_any_changed_bit_of_a_checkpoint_is_never_proved() -> None:
    raw = TREE.note(11, f"{NAME}/3")
    assert check_checkpoint(raw, KEY).origin == f"{NAME}/3"
    for place in range(len(raw)):
        for bit in range(8):
            changed = bytearray(raw)
            changed[place] ^= 1 << bit
            with pytest.raises((Disproved, CannotTell)):
                check_checkpoint(bytes(changed), KEY)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """OLD, NEW, the gateway's answer, and the key's option."""
    contents = {
        "old": TREE.note(7),
        "new": TREE.note(19),
        "proof": json.dumps({"proof": TREE.proof(7, 19)}).encode(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [str(tmp_path / name) for name in contents]


def test_the_commands_say_what_was_proved(
    files: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, proof = files
    key = ["--key", SIGNER.verifier_key.text()]
    assert main(["checkpoint", new, *key]) == 0
    told = capsys.readouterr().out
    assert f"PROVED: the log {NAME} signed this head" in told
    assert "19 leaves" in told
    assert TREE.roots[19].hex() in told
    assert "Not proved" in told
    assert main(["consistency", old, new, f"--proof={proof}", *key]) == 0
    assert "NEW continues OLD" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(proof).read_bytes())))
    assert main(["consistency", old, new, "--proof", "-", *key, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["verdict"] == "proved"
    assert (facts["old"]["size"], facts["new"]["root"]) == (7, TREE.roots[19].hex())
    assert main(["consistency", old, old, *key]) == 0
    assert "is the same tree as" in capsys.readouterr().out
    assert main(["consistency", new, old, "--proof", proof, *key]) == 2
    Path(proof).write_bytes(lines(TREE.proof(6, 19)))
    assert main(["consistency", old, new, "--proof", proof, *key]) == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "the first word must be one of event, receipt"),
        (["nonsense"], "the first word must be one of event, receipt"),
        (["consistency", "a", "--key", "k"], "consistency takes 2 FILE and --key VKEY and --proof FILE"),
        (["checkpoint", "a"], "checkpoint takes 1 FILE and --key VKEY"),
        (["checkpoint", "a", "--key", "k", "--proof", "p"], "checkpoint takes 1 FILE and --key VKEY"),
        (["checkpoint", "a", "--key"], "--key needs a value"),
        (["checkpoint", "a", "--key", "k", "--key", "l"], "--key is given twice"),
        (["checkpoint", "a", "--kee", "k"], "there is no option --kee"),
        (["consistency", "-", "-", "--key", "k"], "only one FILE can be the standard input"),
    ],
)
def test_wrong_use_is_said(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert why in told.err
    assert told.err.endswith("[--json]\n")
    assert not told.out
