"""The offline verifier on a genuine proof, and on that proof with any one byte changed."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recoup.audit.v1 import audit_pb2
from recoup_verify.cli import main
from recoup_verify.documents import CannotTell, Disproved, canonical, read_canonical, read_json
from recoup_verify.event import check_event
from recoup_verify.log import parse_key
from services.audit.model import merkle
from services.audit.model.leaf import Leaf, commitment
from services.audit.model.notes import Signer, TreeHead

ORIGIN = "recoup-test.local.invalid/log"


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@pytest.fixture(scope="module")
def genuine() -> tuple[bytes, str]:
    """A proof as the audit service makes it, and the key."""
    signer, event_id, salt = Signer(ORIGIN, Ed25519PrivateKey.generate()), uuid4(), b"s" * 32
    content = {"event_id": str(event_id), "organization_id": str(UUID(int=1)), "action": "x.y.z", "target": "t/1"}
    payload = rfc8785.dumps({**content, "result": "OK", "actor": "user:1", "role": "ADMIN", "occurred_at": "now"})
    leaf = Leaf(
        event_id, UUID(int=1), 3, b"\x07" * 32, "identity", 3, datetime.now(UTC), commitment(payload, salt)
    ).encode()
    frontier, nodes = merkle.Frontier(), {}
    for each in (b"a", b"b", leaf, b"c", b"d"):
        nodes |= {(h, p): d for h, p, d in frontier.append(merkle.leaf_hash(each))}
    proof = merkle.hash_ranges(merkle.inclusion_ranges(2, 5), nodes)
    checkpoint = {
        "note": signer.sign(TreeHead(ORIGIN, 5, frontier.root()).text()),
        "size": "5",
        "root": b64(frontier.root()),
        "shard": 0,
        "origin": ORIGIN,
    }
    document = {
        "event": {
            "checkpoint": checkpoint,
            "leaf": b64(leaf),
            "index": "2",
            "payload": b64(payload),
            "salt": b64(salt),
            "proof": [b64(item) for item in proof],
            "shard": 0,
        },
        "checkpoint": checkpoint,
    }
    return json.dumps(document).encode(), signer.verifier_key.text()


def test_a_genuine_proof_is_proved(
    genuine: tuple[bytes, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, key = tmp_path / "proof.json", tmp_path / "log.vkey"
    file.write_bytes(genuine[0])
    key.write_text(genuine[1] + "\n")
    assert main(["event", str(file), "--key", f"@{key}"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("LOCAL: not evidence")
    assert "is leaf 2 of 5" in told
    assert "Not proved" in told
    assert main(["event", str(file), "--key", genuine[1], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "proved"


def test_any_changed_byte_is_never_proved(genuine: tuple[bytes, str]) -> None:
    raw, key = genuine[0], parse_key(genuine[1])
    check_event(raw, key)
    whitespace = {place for place, byte in enumerate(raw) if byte == 0x20 and raw[place - 1 : place] in (b",", b":")}
    for place in range(len(raw)):
        if place in whitespace:
            continue  # JSON's own spacing says nothing.
        for flip in (0x01, 0x20):
            changed = bytearray(raw)
            changed[place] ^= flip
            with pytest.raises((Disproved, CannotTell)):
                check_event(bytes(changed), key)


def test_a_changed_byte_of_leaf_payload_or_note_is_disproved_by_name(genuine: tuple[bytes, str]) -> None:
    document = json.loads(genuine[0])
    for part, why in (("leaf", "signed root"), ("payload", "commits to"), ("salt", "commits to")):
        for place in range(0, len(base64.b64decode(document["event"][part])), 7):
            raw = bytearray(base64.b64decode(document["event"][part]))
            raw[place] ^= 0x80
            changed = {**document, "event": {**document["event"], part: b64(bytes(raw))}}
            with pytest.raises(Disproved, match=why):
                check_event(json.dumps(changed).encode(), parse_key(genuine[1]))


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        (("event", "index"), "3", "doesn't lead to the signed root"),
        (("event", "index"), "9", "outside of the signed tree"),
        (("event", "proof"), [], "doesn't lead to the signed root"),
        (("event", "salt"), b64(b"t" * 32), "isn't the one that the leaf commits to"),
        (("event", "payload"), b64(b"{}"), "isn't the one that the leaf commits to"),
        (("checkpoint", "size"), "6", "isn't what the signed note says"),
        (("checkpoint", "shard"), 1, "isn't the shard of the signed note"),
        (("checkpoint", "origin"), f"{ORIGIN}/1", "isn't the shard of the signed note"),
        (("event", "shard"), 1, "isn't the shard of the signed note"),
    ],
)
def test_what_is_wrong_is_named(genuine: tuple[bytes, str], path: tuple[str, str], value: object, why: str) -> None:
    document = json.loads(genuine[0])
    document[path[0]][path[1]] = value
    document["event"]["checkpoint"] = document["checkpoint"]
    with pytest.raises(Disproved, match=why):
        check_event(json.dumps(document).encode(), parse_key(genuine[1]))


def test_the_checkpoint_of_the_event_is_the_checkpoint(genuine: tuple[bytes, str]) -> None:
    for name, value in (("size", "6"), ("shard", False), ("note", ""), ("extra", "")):
        document = json.loads(genuine[0])
        document["event"]["checkpoint"][name] = value
        with pytest.raises(Disproved, match=r"event.checkpoint isn't the same as checkpoint"):
            check_event(json.dumps(document).encode(), parse_key(genuine[1]))


def test_a_shard_is_a_number(genuine: tuple[bytes, str]) -> None:
    for part in ("event", "checkpoint"):
        document = json.loads(genuine[0])
        document[part]["shard"] = False
        with pytest.raises(CannotTell, match=f"{part}'s shard must be a whole number"):
            check_event(json.dumps(document).encode(), parse_key(genuine[1]))


def test_of_an_erased_event_the_leaf_is_proved_and_no_more_can_be_told(genuine: tuple[bytes, str]) -> None:
    document = json.loads(genuine[0])
    document["event"] |= {"payload": "", "salt": ""}
    with pytest.raises(CannotTell, match=r"leaf 2 of 5 .* as signed, but not what it said"):
        check_event(json.dumps(document).encode(), parse_key(genuine[1]))
    for half in ("payload", "salt"):  # Only both together are what an erasure leaves.
        with pytest.raises(Disproved):
            check_event(
                json.dumps({**document, "event": {**json.loads(genuine[0])["event"], half: ""}}).encode(),
                parse_key(genuine[1]),
            )
    document["event"]["index"] = "3"
    with pytest.raises(Disproved, match="doesn't lead to the signed root"):
        check_event(json.dumps(document).encode(), parse_key(genuine[1]))


def test_the_document_has_the_fields_that_the_gateway_gives(genuine: tuple[bytes, str]) -> None:
    """What the protos gain the verifier must learn at once: it refuses what it doesn't know."""
    document = json.loads(genuine[0])
    for part, message in (("event", audit_pb2.ProvenEvent), ("checkpoint", audit_pb2.Checkpoint)):
        assert set(document[part]) == {field.json_name for field in message.DESCRIPTOR.fields}


def test_another_logs_key_proves_nothing(genuine: tuple[bytes, str]) -> None:
    other = Signer(ORIGIN, Ed25519PrivateKey.generate()).verifier_key.text()
    with pytest.raises(Disproved, match="isn't signed by the key"):
        check_event(genuine[0], parse_key(other))


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"event": 1, "checkpoint": 2}', b'{"a":1,"a":2}', b"\xff"])
def test_what_is_no_proof_cannot_be_told(genuine: tuple[bytes, str], raw: bytes) -> None:
    with pytest.raises(CannotTell):
        check_event(raw, parse_key(genuine[1]))


def test_wrong_use_is_said(genuine: tuple[bytes, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["event", str(tmp_path / "nothing"), "--key", genuine[1]]) == 2
    assert "can't be read" in capsys.readouterr().err
    assert main(["event", str(tmp_path / "nothing"), "--key", "nonsense"]) == 2


def test_both_canonicalizations_agree() -> None:
    for document in ({"b": [1, "é\n\u2028", {"ä": None, "a": True}], "a": ""}, {"\U0001f600": 1, "\ufb33": 2}):
        assert canonical(document) == rfc8785.dumps(document)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_a_number_that_json_does_not_know_is_not_read(number: bytes) -> None:
    with pytest.raises(CannotTell, match="numbers too large"):
        read_json(b'{"a":' + number + b"}")


TEXTS = ["a", "", "é\u2028\x7f", "\ud7ff\ue000", "\uffff", "\U0001f600", '"\\\n\x01', "z" * 300]


@pytest.mark.parametrize("spelling", ["quick", "thorough"])
def test_every_canonical_spelling_is_read_and_no_other(spelling: str) -> None:
    """There are two ways to tell: one for most documents, one for those with rare characters."""
    for text in TEXTS:
        if (spelling == "thorough") != any(character > "\ud7ff" for character in text):
            continue
        document = {"b": [1, -2, 2**53 - 1, None, True], "a": {text: text, "B": text, "\u00e9": []}, "": {}}
        raw = rfc8785.dumps(document)
        assert read_canonical(raw, "it") == document
        others = [
            json.dumps(document).encode(),
            json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(),
            raw.replace(b'"a"', rb'"\u0061"'),
            raw.replace(b"-2", b"-2.0"),
            raw.replace(b"-2", b"-0"),
            raw.replace(b"-2", b"02"),
            raw.replace(b"-2", str(2**53).encode()),
            raw.replace(b"null", b"NaN"),
            raw.replace(b'"":{}', b'"":{},"":{}'),
            raw + b" ",
        ]
        for other in others:
            assert other != raw
            with pytest.raises(CannotTell):
                read_canonical(other, "it")


def test_keys_are_sorted_as_rfc_8785_sorts_them() -> None:
    """By UTF-16: a character beyond U+FFFF comes before U+E000, though its number is larger."""
    right = '{"\U0001f600":1,"\ue000":2}'.encode()
    assert rfc8785.dumps(json.loads(right)) == right
    assert read_canonical(right, "it") == json.loads(right)
    with pytest.raises(CannotTell, match="isn't canonical JSON"):
        read_canonical('{"\ue000":2,"\U0001f600":1}'.encode(), "it")
