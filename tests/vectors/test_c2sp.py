"""C2SP's published examples: signed notes with their keys, and the text of a checkpoint.

The keys and notes are those of the format's first implementation (Go's x/mod/sumdb/note), which is what C2SP's
signed-note was written down from; the specifications' own examples come without keys, so that only their text can be
read.
"""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recoup_verify import log as verifier
from recoup_verify.documents import CannotTell, Disproved
from services.audit.model.notes import NoteInvalid, Signer, TreeHead, VerifierKey, verify

PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
BY_PETER = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
BY_ENOCH = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
# signed-note's example: a text with an empty line of its own.
SALVATORE = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n"
# tlog-checkpoint's example.
SOFA = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def peter() -> Signer:
    seed = base64.b64decode(PETER_SECRET.split("+", 4)[4])[1:]
    return Signer("PeterNeumann", Ed25519PrivateKey.from_private_bytes(seed))


def test_the_published_note_is_signed_and_read_as_it_was_published() -> None:
    signer = peter()
    assert signer.verifier_key.text() == PETER
    assert signer.sign(TEXT) == f"{TEXT}\n{BY_PETER}"
    assert verify(f"{TEXT}\n{BY_PETER}", VerifierKey.parse(PETER)) == TEXT
    assert verifier.signed_by(f"{TEXT}\n{BY_PETER}", [verifier.parse_key(PETER)], "the note")[0] == TEXT


def test_each_of_two_signatures_counts_for_its_own_key_and_in_any_order() -> None:
    for lines in (BY_PETER + BY_ENOCH, BY_ENOCH + BY_PETER):
        for key in (PETER, ENOCH):
            assert verify(f"{TEXT}\n{lines}", VerifierKey.parse(key)) == TEXT
    # A known key's signature that is wrong isn't saved by another's that is right.
    wrong = BY_PETER[:60] + "ABCD" + BY_PETER[60:]
    with pytest.raises(NoteInvalid, match="wrong"):
        verify(f"{TEXT}\n{BY_ENOCH}{wrong}", VerifierKey.parse(PETER))


def keys_that_are_none() -> list[str]:
    """Every part of the key, and the key with each character moved by one."""
    parts = [PETER[i:j] for i in range(len(PETER)) for j in range(i + 1, len(PETER) + 1) if j - i < len(PETER)]
    moved = [PETER[:i] + chr(ord(PETER[i]) + 1) + PETER[i + 1 :] for i in range(len(PETER))]
    return [
        *parts,
        *moved,
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",  # a key of another length
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",  # an unknown algorithm
    ]


def test_what_is_no_key_is_refused() -> None:
    for text in keys_that_are_none():
        with pytest.raises(NoteInvalid):
            VerifierKey.parse(text)
        with pytest.raises(CannotTell):
            verifier.parse_key(text)


@pytest.mark.parametrize(
    "note",
    [
        TEXT,
        f"{TEXT}\n",
        f"{TEXT}\n{BY_PETER[:-1]}",
        f"\x01{TEXT}\n{BY_PETER}",
        f"\xff{TEXT}\n{BY_PETER}",
        f"{TEXT}\n{BY_PETER.replace('PeterNeumann', 'Bad Name')}",
        f"{TEXT}\n{BY_PETER}Unexpected line.\n",
        f"{TEXT}\n{BY_PETER[:60]}ABCD{BY_PETER[60:]}",
        f"{TEXT}\n{BY_ENOCH}",
        f"{TEXT} \n{BY_PETER}",
    ],
)
def test_what_is_no_note_of_this_key_is_refused(note: str) -> None:
    with pytest.raises(NoteInvalid):
        verify(note, VerifierKey.parse(PETER))
    with pytest.raises(Disproved):
        verifier.signed_by(note, [verifier.parse_key(PETER)], "the note")


def test_the_last_empty_line_ends_a_notes_text() -> None:
    note = peter().sign(SALVATORE)
    assert verify(note, VerifierKey.parse(PETER)) == SALVATORE
    assert verifier.signed_by(note, [verifier.parse_key(PETER)], "the note")[0] == SALVATORE


def test_the_published_checkpoint_is_read_and_written() -> None:
    head = TreeHead.parse(SOFA)
    assert (head.origin, head.size, head.text()) == ("example.com/behind-the-sofa", 20852163, SOFA)
    signer = Signer("example.com/behind-the-sofa", Ed25519PrivateKey.generate())
    read = verifier.verified_head(signer.sign(SOFA), verifier.parse_key(signer.verifier_key.text()))
    assert (read.origin, read.size, read.root) == (head.origin, head.size, head.root)
