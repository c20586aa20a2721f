"""The offline verifier on receipts of which one byte was changed: never proved, and always said to be changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recoup_verify.cli import main
from recoup_verify.documents import CannotTell, Disproved
from recoup_verify.log import Key, parse_key
from recoup_verify.receipts.receipt import check_receipt
from tests.support import receipt_cases as cases
from tests.support.receipt_log import Signatories
from tests.support.receipts import issue, load

# Of the parts that hold long lists every so many bytes, of all others every byte.
STEP = 13


@pytest.fixture(scope="module")
def genuine() -> tuple[bytes, Key]:
    signatories = Signatories()
    return issue(cases.deleted_volume(), signatories), parse_key(signatories.log.verifier_key.text())


def places(raw: bytes) -> list[int]:
    """Which bytes are changed: of the events each one of the last."""
    starts = [raw.index(name) for name in (b'{"baseline":', b'"events":[', b'"measurement":')]
    ends = [raw.index(b',"envelope":'), raw.rindex(b'{"leaf":'), raw.index(b',"plan":"')]
    long = [range(start + 20, end) for start, end in zip(starts, ends, strict=True)]
    return [place for place in range(len(raw)) if place % STEP == 0 or not any(place in part for part in long)]


@pytest.mark.parametrize("quarter", range(4))
def test_any_changed_byte_is_disproved(genuine: tuple[bytes, Key], quarter: int) -> None:
    raw, key = genuine
    check_receipt(raw, key)
    for place in places(raw)[quarter::4]:
        changed = bytearray(raw)
        changed[place] ^= 1 << (place * 5 // 3) % 8
        with pytest.raises(Disproved):
            check_receipt(bytes(changed), key)


@pytest.mark.parametrize("bit", range(8))
def test_any_bit_of_the_bundles_own_members_is_disproved(genuine: tuple[bytes, Key], bit: int) -> None:
    """Its type and version are signed by nobody: each bit of them must count all the same."""
    raw, key = genuine
    start = raw.index(b'","type":"recoup-receipt-bundle","v":1}')
    for place in range(start, len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 << bit
        with pytest.raises(Disproved):
            check_receipt(bytes(changed), key)


def test_what_was_cut_off_or_added_is_disproved(genuine: tuple[bytes, Key]) -> None:
    raw, key = genuine
    for changed in (raw[:-1], raw[1:], raw[: len(raw) // 2], raw + b"\n", b" " + raw, raw + raw, b"\xef\xbb\xbf" + raw):
        with pytest.raises(Disproved, match="isn't canonical JSON any more, near character"):
            check_receipt(changed, key)


def test_where_it_was_changed_is_said(genuine: tuple[bytes, Key]) -> None:
    raw, key = genuine
    place = raw.index(b'"envelope"') + 3
    for changed in (raw[:place] + b'"' + raw[place:], raw[:place] + b"\xff" + raw[place:]):
        with pytest.raises(Disproved, match=r"near character \d+: it was changed after it was issued"):
            check_receipt(changed, key)
    with pytest.raises(Disproved, match=f"near character {len(raw)}"):
        check_receipt(raw + b"\n", key)


def test_other_spellings_of_the_same_are_disproved(genuine: tuple[bytes, Key]) -> None:
    raw, key = genuine
    document = load(raw)
    for changed in (
        json.dumps(document).encode(),
        json.dumps(document, separators=(",", ":")).encode(),
        json.dumps(dict(reversed(document.items())), separators=(",", ":")).encode(),
        raw.replace(b'"v":1}', b'"v":1.0}'),
        raw.replace(b'"v":1}', b'"v":true}'),
        raw.replace(b'"v":1}', b'"v":NaN}'),
        raw.replace(b'"v":1}', b'"v":' + b"1" * 5000 + b"}"),
        raw.replace(b'"v":1}', b'"v":-1}'),
        raw.replace(b'"v":1}', b'"v":1,"v":1}'),
        raw.replace(b'"v":1}', b'"v":1,"w":1}'),
        raw.replace(b'"v":1}', b'"v":1,"w":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        raw.replace(b'"v":1}', b'"v":1,"w":' + b"[" * 900 + b"]" * 900 + b"}"),
        raw.replace(b'"v":1}', rb'"v":1,"w":"\ud800"}'),
        raw.replace(b"recoup-receipt-bundle", rb"recoup\u002dreceipt-bundle"),
    ):
        assert changed != raw
        with pytest.raises(Disproved):
            check_receipt(changed, key)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b"\xff", b"1", b"null", b'{"type":"receipt"}', b"[" * 100_000, b'"\\ud800"', b"9" * 10_000],
)
def test_what_is_no_receipt_cannot_be_told(genuine: tuple[bytes, Key], raw: bytes) -> None:
    with pytest.raises(CannotTell):
        check_receipt(raw, genuine[1])


def test_another_version_cannot_be_told(genuine: tuple[bytes, Key]) -> None:
    """A later bundle has something that this verifier doesn't know; one that is all version 1 was changed."""
    raw, key = genuine
    with pytest.raises(CannotTell, match="version 2"):
        check_receipt(raw.replace(b'"v":1}', b'"v":2,"witnesses":[]}'), key)
    with pytest.raises(Disproved, match="all in it is of version 1"):
        check_receipt(raw.replace(b'"v":1}', b'"v":2}'), key)


def test_wrong_use_is_told_with_what_to_do_next(
    genuine: tuple[bytes, Key], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, _ = genuine
    file, other, vkey = tmp_path / "receipt.json", tmp_path / "other", Signatories().log.verifier_key.text()
    file.write_bytes(raw)
    other.write_bytes(b"\xff\xfe")
    for arguments, why in (
        ([str(tmp_path / "nothing"), "--key", vkey], "can't be read"),
        ([str(tmp_path), "--key", vkey], "can't be read"),
        ([str(other), "--key", vkey], "this isn't a receipt"),
        ([str(file), "--key", "nonsense"], "this isn't a verifier key"),
        ([str(file), "--key", "\udcff+00+AA=="], "this isn't an Ed25519 verifier key"),
        ([str(file), "--key", f"@{other}"], "isn't a verifier key"),
        ([str(file), "--key", f"@{tmp_path / 'nothing'}"], "can't be read"),
    ):
        assert main(["receipt", *arguments]) == 2
        told = capsys.readouterr()
        assert why in told.err
        assert "Check that FILE is what Recoup gave you" in told.err
        assert not told.out
    assert main(["receipt", str(file), "--key", vkey]) == 1
    assert "Don't rely on it" in capsys.readouterr().err
    assert main(["receipt", str(file), "--key", vkey, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["local"]) == ("disproved", True)
    assert "isn't signed by the key that you gave" in told["why"]


def test_a_file_without_end_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["receipt", "/dev/zero", "--key", Signatories().log.verifier_key.text()]) == 2
    assert "larger than any receipt" in capsys.readouterr().err
