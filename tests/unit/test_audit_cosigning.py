"""Cosignatures: the byte layouts of C2SP tlog-cosignature, and what isn't one."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.model.cosigning import (
    Cosigner,
    WitnessKey,
    check_cosignature,
    find_cosignature,
    with_cosignatures,
)
from services.audit.model.notes import Note, NoteInvalid, Signer, TreeHead, VerifierKey, verify

ORIGIN = "recoup-test.local.invalid/log"
HEAD = TreeHead(ORIGIN, 5, b"\x05" * 32).text()
# The example of C2SP tlog-cosignature; its keys aren't published, so only its layout can be held against ours.
PUBLISHED = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "\u2014 witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)


def cosigner(name: str = "witness.example/w1") -> Cosigner:
    return Cosigner(name, Ed25519PrivateKey.generate())


def test_a_cosignature_is_laid_out_as_published() -> None:
    key = Ed25519PrivateKey.generate()
    made = Cosigner("witness.example/w1", key)
    line = made.cosign(HEAD, 1679315147)
    dash, name, encoded = line.rstrip("\n").split(" ")
    raw, public = base64.b64decode(encoded), key.public_key().public_bytes_raw()
    assert (dash, name) == ("\u2014", "witness.example/w1")
    assert raw[:4] == hashlib.sha256(b"witness.example/w1\n\x04" + public).digest()[:4]
    assert raw[4:12] == (1679315147).to_bytes(8, "big")
    key.public_key().verify(raw[12:], b"cosignature/v1\ntime 1679315147\n" + HEAD.encode())
    assert made.witness.text() == f"witness.example/w1+{raw[:4].hex()}+{base64.b64encode(bytes([4]) + public).decode()}"
    published = Note.parse(PUBLISHED)
    assert TreeHead.parse(published.text).size == 20852163
    log, witness = published.lines
    assert (witness.name, witness.key_id.hex(), len(witness.signature)) == ("witness.example.com/w1", "8d66cf3f", 72)
    assert int.from_bytes(witness.signature[:8], "big") == 1679315147
    assert len(log.signature) == 64
    assert "".join(each.text() for each in published.lines) == PUBLISHED.partition("\n\n")[2]


def test_a_cosignature_holds_for_its_checkpoint_its_key_and_its_time() -> None:
    made, other = cosigner(), cosigner()
    line = Note.parse(f"{HEAD}\n{made.cosign(HEAD, 7)}").lines[0]
    assert check_cosignature(HEAD, line, WitnessKey.parse(made.witness.text())).at == 7
    for text, witness in ((HEAD.replace("\n5\n", "\n6\n"), made.witness), (HEAD, other.witness)):
        with pytest.raises(NoteInvalid):
            check_cosignature(text, line, witness)
    later = type(line)(line.name, line.key_id, (8).to_bytes(8, "big") + line.signature[8:])
    with pytest.raises(NoteInvalid, match="wrong"):
        check_cosignature(HEAD, later, made.witness)
    with pytest.raises(NoteInvalid, match="length"):
        check_cosignature(HEAD, type(line)(line.name, line.key_id, line.signature + b"\0"), made.witness)


def test_a_key_of_a_log_is_none_of_a_witness() -> None:
    signer, witness = Signer(ORIGIN, Ed25519PrivateKey.generate()), cosigner().witness
    with pytest.raises(NoteInvalid):
        WitnessKey.parse(signer.verifier_key.text())
    with pytest.raises(NoteInvalid):
        VerifierKey.parse(witness.text())


def test_the_cosignature_is_found_among_lines_of_others() -> None:
    signer, mine, other = Signer(ORIGIN, Ed25519PrivateKey.generate()), cosigner(), cosigner("other.example/w")
    note = signer.sign(HEAD)
    lines = other.cosign(HEAD, 3) + mine.cosign(HEAD, 4)
    found = find_cosignature(note, lines, mine.witness)
    assert found.at == 4
    whole = with_cosignatures(note, [found.line])
    assert verify(whole, signer.verifier_key) == HEAD
    with pytest.raises(NoteInvalid, match="no cosignature"):
        find_cosignature(note, other.cosign(HEAD, 3), mine.witness)
    with pytest.raises(NoteInvalid):
        find_cosignature(note, "", mine.witness)


@pytest.mark.parametrize(
    "note",
    [
        "text\n",
        "text\n\n",
        "text\n\nno dash\n",
        "text\n\n\u2014 name\n",
        "text\n\n\u2014 name AAAA\n",
        "text\n\n\u2014 na+me AAAAAAAA\n",
        "text\n\n\u2014 name AAAAAAB=\n",
        "text\n\n\u2014 name AAAAAAAA",
        "te\rxt\n\n\u2014 name AAAAAAAA\n",
        "text\n\n" + "\u2014 name AAAAAAAA\n" * 33,
    ],
)
def test_what_is_no_note_is_refused(note: str) -> None:
    with pytest.raises(NoteInvalid):
        Note.parse(note)


@pytest.mark.parametrize("size", ["05", "", "-1", "+5", "5 ", "\u0665", str(2**63), "1" * 5000])
def test_what_is_no_checkpoint_is_refused(size: str) -> None:
    with pytest.raises(NoteInvalid):
        TreeHead.parse(HEAD.replace("\n5\n", f"\n{size}\n"))
    with pytest.raises(NoteInvalid):
        TreeHead.parse(HEAD.rstrip("\n"))
