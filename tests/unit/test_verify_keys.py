"""The key manifest of version 2 and cosigned heads: whom the verifier believes, and for what."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recoup_verify.cli import main
from recoup_verify.documents import CannotTell, Disproved
from recoup_verify.keys import read_manifest, trusted
from recoup_verify.log import Trust, parse_key, verified_head
from recoup_verify.receipts.receipt import check_receipt
from recoup_verify.receipts.words import receipt_lines
from services.audit.model.cosigning import Cosigner
from services.audit.model.notes import Note, Signer, TreeHead, VerifierKey
from tests.support import receipt_cases as cases
from tests.support.receipt_log import ORIGIN, Signatories, b64, log
from tests.support.receipts import issue

ISSUE, SIZE = 15, 18  # where the receipt's issue stands, and the size of the tree


def signer(name: str = ORIGIN) -> Signer:
    return Signer(name, Ed25519PrivateKey.generate())


def lines_of(note: str) -> str:
    return note.rpartition("\n\n")[2]


@dataclass
class Chorus:
    """Signs a note with several keys, as a log does while it rotates its own, and has it cosigned."""

    logs: Sequence[Signer]
    witnesses: Sequence[Cosigner] = ()

    @property
    def verifier_key(self) -> VerifierKey:
        return self.logs[0].verifier_key

    def sign(self, text: str) -> str:
        signed = [lines_of(each.sign(text)) for each in self.logs]
        return f"{text}\n{''.join([*signed, *(each.cosign(text, 1_780_000_000) for each in self.witnesses)])}"


@dataclass
class Rooted(Signatories):
    """Signatories with a root and a manifest of version 2."""

    root: Signer = field(default_factory=lambda: signer(f"{ORIGIN}/root"))
    logs: list[tuple[Signer, str]] = field(default_factory=lambda: [(signer(), "0:0 -")])
    valid: str = "0:0 -"
    witnesses: list[Cosigner] = field(default_factory=list)
    cosigning: list[Cosigner] = field(default_factory=list)
    quorum: str = "0"
    signing: list[Signer] = field(default_factory=list)
    extra: str = ""

    def __post_init__(self) -> None:
        self.log = Chorus(self.signing or [self.logs[0][0]], self.cosigning)  # type: ignore[assignment]

    def text(self) -> str:
        logs = "".join(f"log ed25519 {b64(each.verifier_key.public)} {valid}\n" for each, valid in self.logs)
        receipt = f"receipt ed25519 {b64(self.receipt_public)} {self.valid}\n"
        witnesses = "".join(f"witness {each.witness.text()}\n" for each in self.witnesses)
        head = f"{ORIGIN}/keys\nrecoup-keys/v2\nroot {self.root.verifier_key.text()}\n"
        return f"{head}{logs}{receipt}{self.extra}{witnesses}quorum {self.quorum}\n"

    def manifest(self) -> str:
        in_force = [each for each, valid in self.logs if valid.endswith(" -")]
        return Chorus([self.root, *in_force]).sign(self.text())


def checked(by: Rooted, key: Signer | None = None, **named: Any) -> list[str]:
    raw = issue(cases.deleted_volume(), by)
    given = (key or by.root).verifier_key.text()
    trust = trusted([given], named.get("witnesses", []), named.get("quorum", []))
    return receipt_lines(check_receipt(raw, trust))


def test_root_or_log_key_vouch_for_the_receipt() -> None:
    by = Rooted()
    for key in (by.root, by.logs[0][0]):
        assert "nobody else has countersigned its head" in checked(by, key)[-1]
    for stranger in (signer(), signer(f"{ORIGIN}/root"), signer("other.example/root")):
        with pytest.raises(Disproved, match=r"key that you gave|key manifest"):
            checked(by, stranger)


@pytest.mark.parametrize(
    ("valid", "good"),
    [
        (f"0:{ISSUE} -", True),
        (f"0:{ISSUE + 1} -", False),
        (f"0:0 0:{ISSUE + 1}", True),
        (f"0:0 0:{ISSUE}", False),
        ("0:0 1:0", True),
        ("1:0 -", False),
    ],
)
def test_a_receipt_key_is_good_from_its_first_leaf_to_before_its_last(valid: str, good: bool) -> None:
    by = Rooted(valid=valid)
    if good:
        assert checked(by)
    else:
        with pytest.raises(Disproved, match="outside of its range"):
            checked(by)


@pytest.mark.parametrize(
    ("old", "new", "good"),
    [
        (f"0:0 0:{SIZE + 1}", f"0:{SIZE} -", {0, 1}),
        (f"0:0 0:{SIZE}", f"0:{SIZE} -", {1}),
        (f"0:0 0:{SIZE + 1}", f"0:{SIZE + 1} -", {0}),
        ("0:0 1:0", "1:0 -", {0}),
        ("0:0 -", f"0:{SIZE} -", {0, 1}),
        (f"0:0 0:{SIZE - 1}", f"0:{SIZE - 1} -", {1}),
    ],
)
def test_at_the_boundary_of_a_rotation_each_key_signs_what_it_is_good_for(old: str, new: str, good: set[int]) -> None:
    """A head of size 18, by the key before, by the key after, and by both: one good key is enough, none isn't."""
    pair = (signer(), signer())
    for signing in ({0}, {1}, {0, 1}):
        by = Rooted(logs=[(pair[0], old), (pair[1], new)], signing=[pair[each] for each in sorted(signing)])
        if signing & good:
            assert checked(by)
            assert checked(by, pair[1])
        else:
            with pytest.raises(Disproved, match="wasn't good for that part"):
                checked(by)


def test_a_key_that_was_rotated_out_vouches_for_nothing_new() -> None:
    old, new = signer(), signer()
    by = Rooted(logs=[(old, "0:0 0:5"), (new, "0:5 -")], signing=[new])
    assert checked(by, new)
    with pytest.raises(Disproved, match="isn't signed by the key that you gave"):
        checked(by, old)


def test_as_many_witnesses_as_the_manifest_asks_for_have_cosigned() -> None:
    first, second, third = (Cosigner(f"w{n}.example", Ed25519PrivateKey.generate()) for n in range(3))
    known = [first, second]
    said = checked(Rooted(witnesses=known, cosigning=known, quorum="2"))
    assert "2 witnesses countersigned its head (w0.example, w1.example)" in said[-1]
    assert "under the operator's control" in said[-1]
    assert "1 witness countersigned" in checked(Rooted(witnesses=known, cosigning=[second], quorum="1"))[-1]
    with pytest.raises(Disproved, match="cosigned by 1 witnesses, but the key manifest asks for 2"):
        checked(Rooted(witnesses=known, cosigning=[second], quorum="2"))
    # Nobody else's line may stand there, and none twice.
    for cosigning in ([first, third], [first, first]):
        with pytest.raises(Disproved, match="that is nobody's"):
            checked(Rooted(witnesses=known, cosigning=cosigning, quorum="1"))
    # A witness that the user names counts instead of the manifest's, and all that are named must have cosigned.
    both = Rooted(witnesses=known, cosigning=[first, third], quorum="1")
    named = [third.witness.text()]
    assert checked(both, witnesses=named)
    with pytest.raises(Disproved, match="1 of the 2 witnesses that you ask for"):
        checked(both, witnesses=[*named, second.witness.text()])
    assert checked(both, witnesses=[*named, second.witness.text()], quorum=["1"])
    with pytest.raises(Disproved, match="1 of the 2 witnesses that you ask for"):
        checked(Rooted(witnesses=known, cosigning=[first], quorum="1"), quorum=["2"])
    for odd in (["x"], ["-1"], ["2"]):
        with pytest.raises(CannotTell, match="--quorum"):
            checked(both, witnesses=named, quorum=odd)
    # Neither a name nor a key counts twice.
    again = Cosigner(first.witness.name, Ed25519PrivateKey.generate())
    with pytest.raises(Disproved, match="can't be"):
        checked(Rooted(witnesses=[first, again], cosigning=[first], quorum="2"))
    keys = [first.witness.text(), again.witness.text()]
    assert checked(Rooted(witnesses=known, cosigning=[first], quorum="1"), witnesses=keys)
    for twice in (keys, [keys[0], keys[0]]):
        with pytest.raises(CannotTell, match="--quorum"):
            checked(both, witnesses=twice, quorum=["2"])
    with pytest.raises(CannotTell, match="of a witness"):
        checked(both, witnesses=[both.root.verifier_key.text()])


def test_any_changed_bit_of_a_cosigned_head_is_disproved() -> None:
    witness = Cosigner("w.example", Ed25519PrivateKey.generate())
    log = Chorus([signer()], [witness])
    note = log.sign(TreeHead(ORIGIN, 7, b"\7" * 32).text()).encode()
    trust = trusted([log.verifier_key.text()], [witness.witness.text()], [])
    assert verified_head(note.decode(), trust).cosigned == ("w.example",)
    for place in range(len(note)):
        for bit in range(8):
            changed = bytearray(note)
            changed[place] ^= 1 << bit
            try:
                text = changed.decode()
            except UnicodeDecodeError:
                continue
            with pytest.raises(Disproved):
                verified_head(text, trust)


KEY = b64(b"\1" * 32)
W = Cosigner("w.example", Ed25519PrivateKey.generate()).witness.text()


@pytest.mark.parametrize(
    "change",
    [
        ("recoup-keys/v2", "recoup-keys/v3"),
        (f"{ORIGIN}/keys", ORIGIN),
        ("quorum 0\n", "quorum 1\n"),
        ("quorum 0\n", "quorum 00\n"),
        ("quorum 0\n", "quorum 0\nquorum 0\n"),
        ("quorum 0\n", ""),
        ("quorum 0\n", f"quorum 0\nwitness {W}\n"),
        ("quorum 0\n", f"witness {W}\nwitness {W}\nquorum 0\n"),
        ("quorum 0\n", "other\nquorum 0\n"),
        ("quorum 0\n", "\nquorum 0\n"),
        ("quorum 0\n", f"evidence ed25519 {KEY} 0:5 0:5\nquorum 0\n"),
        ("quorum 0\n", f"evidence ed25519 {KEY} 0:5 0:4\nquorum 0\n"),
        ("quorum 0\n", f"evidence ed25519 {KEY} 5 -\nquorum 0\n"),
        ("quorum 0\n", f"evidence ed25519 {KEY} 0:05 -\nquorum 0\n"),
        ("quorum 0\n", f"evidence ed25519 {KEY} - -\nquorum 0\n"),
        ("quorum 0\n", f"evidence ed25519 {KEY} 0:0 - \nquorum 0\n"),
        ("quorum 0\n", f"evidence ed25519 {b64(b'x')} 0:0 -\nquorum 0\n"),
        ("quorum 0\n", f"evidence rsa {KEY} 0:0 -\nquorum 0\n"),
        ("quorum 0\n", f"evidence ed25519 {KEY} 0:0 -\nevidence ed25519 {KEY} 0:9 -\nquorum 0\n"),
        ("quorum 0\n", f"evidence ed25519 {KEY} 0:0 -\n" * 200 + "quorum 0\n"),
    ],
)
def test_a_text_that_is_no_manifest_is_disproved(change: tuple[str, str]) -> None:
    """Each is signed by the root and the log's key; what is wrong is what it says."""
    by = Rooted()
    assert change[0] in by.text()
    note = Chorus([by.root, by.logs[0][0]]).sign(by.text().replace(*change))
    with pytest.raises(Disproved, match="key manifest"):
        read_manifest(note, parse_key(by.root.verifier_key.text()))


def test_a_root_without_a_key_is_disproved() -> None:
    by = Rooted()
    text = by.text().replace(f"root {by.root.verifier_key.text()}\n", "root\n")
    with pytest.raises(Disproved, match="a line of the key manifest can't be"):
        read_manifest(Chorus([by.root, by.logs[0][0]]).sign(text), parse_key(by.root.verifier_key.text()))


def test_root_and_all_keys_in_force_have_signed_and_nobody_else() -> None:
    by, other = Rooted(), signer()
    log, root = by.logs[0][0], parse_key(by.root.verifier_key.text())
    assert read_manifest(by.manifest(), root).name == ORIGIN
    for signers in ([by.root], [log], [by.root, log, other], [by.root, log, log], [other, log]):
        with pytest.raises(Disproved, match="key manifest"):
            read_manifest(Chorus(signers).sign(by.text()), root)
    wrong = Note.parse(by.manifest()).lines[0].text()
    with pytest.raises(Disproved, match="signature is wrong"):
        read_manifest(
            Chorus([by.root, log]).sign(by.text().replace("0:0 -", "0:1 -")).rpartition("\n\n")[0] + "\n\n" + wrong,
            root,
        )


def test_the_manifest_in_a_file_helps_with_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The root's key alone says nothing of a head; with the manifest it does, also of one that two keys signed."""
    old, new = signer(), signer()
    by = Rooted(logs=[(old, "0:0 -"), (new, "0:5 -")])
    (tmp_path / "keys").write_text(by.manifest())
    (tmp_path / "head").write_text(Chorus([old, new]).sign(TreeHead(ORIGIN, 7, b"\7" * 32).text()))
    key, files = by.root.verifier_key.text(), ["checkpoint", str(tmp_path / "head")]
    assert main([*files, "--key", key, "--keys", str(tmp_path / "keys")]) == 0
    assert "PROVED" in capsys.readouterr().out
    assert main([*files, "--key", key]) == 2
    assert "with --keys" in capsys.readouterr().err
    assert main([*files, "--key", old.verifier_key.text()]) == 1
    assert main([*files, "--key", old.verifier_key.text(), "--keys", str(tmp_path / "keys")]) == 0
    capsys.readouterr()
    assert main([*files, "--key", key, "--keys", str(tmp_path / "keys"), "--quorum", "1"]) == 1
    assert "0 of the 1 witnesses that you ask for" in capsys.readouterr().err


def test_a_cosignature_of_no_time_at_all_is_none() -> None:
    key = Ed25519PrivateKey.generate()
    text = TreeHead(ORIGIN, 7, b"\7" * 32).text()
    log, witness = signer(), Cosigner("w.example", key)
    late = (2**63).to_bytes(8, "big") + key.sign(f"cosignature/v1\ntime {2**63}\n{text}".encode())
    line = f"\u2014 w.example {base64.b64encode(witness.witness.key_id + late).decode()}\n"
    trust = trusted([log.verifier_key.text()], [witness.witness.text()], [])
    assert isinstance(trust, Trust)
    with pytest.raises(Disproved, match="signature is wrong"):
        verified_head(log.sign(text) + line, trust)


def test_a_receipt_may_reach_over_two_shards_of_one_head_each() -> None:
    """The year turned between the steps: each shard's events lead to one head of it, and both must be cosigned."""
    key, witness = Ed25519PrivateKey.generate(), Cosigner("w.example", Ed25519PrivateKey.generate())
    chorus = {shard: Chorus([Signer(f"{ORIGIN}/{shard}" if shard else ORIGIN, key)], [witness]) for shard in range(3)}

    def told(later: Any, quorum: str = "1", *, swapped: bool = False) -> list[str]:
        by = Rooted(logs=[(Signer(ORIGIN, key), "0:0 -")], witnesses=[witness], quorum=quorum)
        by.log = chorus[0]  # type: ignore[assignment]
        third: Any = chorus[2]

        def over(issuing: Any) -> None:
            events = log(issuing.events, by.log, (4, later))
            if swapped:
                events[4:6] = log(issuing.events, by.log, (4, third))[4:6]
            issuing.bundle["events"] = events

        raw = issue(cases.deleted_volume(), by, end=over)
        return receipt_lines(check_receipt(raw, parse_key(by.root.verifier_key.text())))

    assert f"{ORIGIN}/1" in "".join(told(chorus[1]))
    # A second head of a shard, a shard that goes back, and one whose head nobody cosigned.
    for later, quorum, why in (
        (chorus[0], "1", "don't all lead to one checkpoint"),
        (Chorus([Signer(f"{ORIGIN}/1", key)]), "1", "cosigned by 0 witnesses"),
        (Chorus([Signer(f"{ORIGIN}/1", Ed25519PrivateKey.generate())], [witness]), "1", "isn't signed by the key"),
    ):
        with pytest.raises(Disproved, match=why):
            told(later, quorum)
    with pytest.raises(Disproved, match="order in which the log recorded them"):
        told(chorus[1], swapped=True)
