"""The offline verifier on evidence bundles: honest ones, and those that somebody changed who can't sign."""

from __future__ import annotations

import json
import re
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recoup_verify.cli import main
from recoup_verify.documents import CannotTell, Disproved
from recoup_verify.evidence.bundle import check_evidence
from recoup_verify.log import Trust, parse_key
from services.audit.model.notes import Signer
from tests.support.evidence_bundle import NAME, bundled, folder, zipped
from tests.support.evidence_checks import LOG, OTHER_KEY, RECEIPT_FILE, TRUST, check, new
from tests.support.receipt_log import sha256
from tests.support.receipts import RECEIPT


@pytest.mark.parametrize("write", [folder, zipped])
def test_an_honest_bundle_is_proved(write: Callable[[dict[str, bytes], Path], str], tmp_path: Path) -> None:
    made = bundled(new())
    proved = check_evidence(write(made.files, tmp_path / "bundle"), TRUST)
    assert (proved.claim["counts"]["events"], proved.withheld, list(proved.receipts)) == (17, 3, [RECEIPT])
    assert proved.published.org_seq == 17
    assert [head.shard for head in proved.heads] == [0, 1]


def test_the_roots_key_is_enough(tmp_path: Path) -> None:
    root = Signer(f"{NAME}/root", LOG.root).verifier_key.text()
    assert check(bundled(new()), tmp_path, Trust.of(parse_key(root))).receipts


def test_a_head_that_is_behind_is_proved_as_far_as_it_goes(tmp_path: Path) -> None:
    assert check(bundled(new(head_seq=10)), tmp_path / "old").published.org_seq == 10
    without = bundled(new(), state=lambda made: made.files.pop("head.json"))
    assert check(without, tmp_path / "none").published is None


def test_what_was_proved_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = bundled(new())
    arguments = ["bundle", zipped(made.files, tmp_path / "bundle.zip"), "--key", made.vkey()]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    for words in (
        "LOCAL: not evidence",
        "events     17: the organization's, from its first on, without a gap",
        "13 shown, 1 said to be erased, 3 not shown",
        f"log        {NAME}/1: in its tree of",
        f"receipt    {RECEIPT}: VERIFIED, 59.5 USD in 7 days",
        "complete   to number 17, as the log published it",
        "Not proved: what CSV and HTML files show",
        "Not proved: that the 1 payloads that are said to be erased can't be read any more",
        "nobody else has countersigned its head",
    ):
        assert words in told
    assert main([*arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["verdict"], facts["withheld"], facts["published"]["org_seq"]) == ("proved", 3, 17)
    assert len(facts["not_proved"]) >= 6


def test_a_receipt_that_is_left_out_is_told(tmp_path: Path) -> None:
    """The bundle needn't have it, but then whoever reads it knows that there is one."""
    assert not check(bundled(new()), tmp_path / "with").unfinished
    assert check(bundled(new(), state=lambda made: made.files.pop(RECEIPT_FILE)), tmp_path / "without").unfinished


# --- What somebody does who can't sign: any file changed, dropped, added, exchanged.


@pytest.fixture(scope="module")
def honest() -> dict[str, bytes]:
    return bundled(new()).files


NAMES = sorted(bundled(new()).files)


@pytest.mark.parametrize("name", NAMES)
def test_any_file_that_was_changed_is_disproved_by_name(name: str, honest: dict[str, bytes], tmp_path: Path) -> None:
    """A byte in the middle, the first, the last; one less, one more; and all of it gone."""
    raw = honest[name]
    places = sorted({0, len(raw) // 3, len(raw) // 2, len(raw) - 1} & set(range(len(raw))))
    changed = [raw[:place] + bytes([raw[place] ^ 1 << place % 8]) + raw[place + 1 :] for place in places]
    for number, content in enumerate([*changed, raw[:-1], raw + b"\n", raw + b"x", b""]):
        if content == raw:
            continue
        path = folder({**honest, name: content}, tmp_path / str(number))
        with pytest.raises(Disproved, match=None if name in ("manifest.json", "seal.json") else re.escape(name)):
            check_evidence(path, TRUST)
    path = folder({other: content for other, content in honest.items() if other != name}, tmp_path / "without")
    with pytest.raises(Disproved, match=f"lacks the file {re.escape(name)}"):
        check_evidence(path, TRUST)


@pytest.mark.parametrize("name", ["manifest.json", "seal.json"])
def test_any_byte_of_manifest_and_seal_that_was_changed_is_disproved(
    name: str, honest: dict[str, bytes], tmp_path: Path
) -> None:
    path = folder(honest, tmp_path / "bundle")
    for place in range(0, len(honest[name]), 3):
        raw = bytearray(honest[name])
        raw[place] ^= 1 << place % 8
        (tmp_path / "bundle" / name).write_bytes(raw)
        with pytest.raises(Disproved):
            check_evidence(path, TRUST)


def test_a_file_more_is_disproved(honest: dict[str, bytes], tmp_path: Path) -> None:
    for name in ("extra.json", "log/2/checkpoint", "receipts/other.json", "log/.hidden"):
        with pytest.raises(Disproved, match=f"has the file that nobody signed: {re.escape(name)}"):
            check_evidence(folder({**honest, name: b"{}"}, tmp_path / sha256(name.encode())), TRUST)


def test_the_manifest_or_seal_of_another_bundle_is_disproved(honest: dict[str, bytes], tmp_path: Path) -> None:
    other = bundled(new()).files
    for number, (name, why) in enumerate(
        (
            ("manifest.json", "its digest isn't what the signed manifest says|lacks the file|seals another bundle"),
            ("seal.json", "seals another bundle"),
            ("events.jsonl", "events.jsonl: its digest isn't what the signed manifest says"),
            ("log/0/checkpoint", "log/0/checkpoint: its digest isn't"),
        )
    ):
        with pytest.raises(Disproved, match=why):
            check_evidence(folder({**honest, name: other[name]}, tmp_path / str(number)), TRUST)
    both = {name: other[name] for name in ("manifest.json", "seal.json")}
    with pytest.raises(Disproved, match="its digest isn't what the signed manifest says"):
        check_evidence(folder({**honest, **both}, tmp_path / "both"), TRUST)


def test_another_logs_key_proves_nothing(honest: dict[str, bytes], tmp_path: Path) -> None:
    other = Trust.of(parse_key(Signer(NAME, OTHER_KEY).verifier_key.text()))
    with pytest.raises(Disproved, match="isn't signed by the key that you gave"):
        check_evidence(folder(honest, tmp_path / "bundle"), other)


def test_what_is_no_bundle_cannot_be_told(tmp_path: Path) -> None:
    for number, files in enumerate(({}, {"events.jsonl": b""}, {"a": b""})):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(CannotTell, match="isn't an evidence bundle"):
            check_evidence(folder(files, tmp_path / str(number)), TRUST)
    (tmp_path / "file").write_bytes(b"x" * 100)
    with pytest.raises(CannotTell, match="neither a folder nor a zip"):
        check_evidence(str(tmp_path / "file"), TRUST)
    assert main(["bundle", str(tmp_path / "nothing"), "--key", new().vkey()]) == 2


# --- Folders and zips that are made to hurt.


def test_links_and_pipes_in_a_folder_are_refused(honest: dict[str, bytes], tmp_path: Path) -> None:
    path = Path(folder(honest, tmp_path / "bundle"))
    outside = tmp_path / "outside"
    outside.write_bytes(honest["events.csv"])
    (path / "events.csv").unlink()
    (path / "events.csv").symlink_to(outside)
    with pytest.raises(Disproved, match=r"'events.csv' isn't a plain file"):
        check_evidence(str(path), TRUST)
    shutil.copytree(path / "log", tmp_path / "log")
    (path / "events.csv").unlink()
    shutil.rmtree(path / "log")
    (path / "log").symlink_to(tmp_path / "log")
    with pytest.raises(Disproved, match="'log' isn't a plain file"):
        check_evidence(str(path), TRUST)


def entry(name: str, **odd: Any) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name)
    for key, value in odd.items():
        setattr(found, key, value)
    return found


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (entry("/etc/passwd"), "no bundle has such a name"),
        (entry("../outside"), "no bundle has such a name"),
        (entry("log/../../outside"), "no bundle has such a name"),
        (entry("log/./0"), "no bundle has such a name"),
        (entry("log//0"), "no bundle has such a name"),
        (entry("log\\0"), "no bundle has such a name"),
        (entry("C:/x"), "no bundle has such a name"),
        (entry("\u202elmth"), "no bundle has such a name"),
        (entry("empty/"), "no bundle has such a name|isn't a plain file"),
        (entry("events.jsonl"), "has the file events.jsonl twice"),
        (entry("link", external_attr=(stat.S_IFLNK | 0o777) << 16), "isn't a plain file"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_no_zip_may_have_is_refused(
    odd: zipfile.ZipInfo, why: str, honest: dict[str, bytes], tmp_path: Path
) -> None:
    path = zipped(honest, tmp_path / "bundle.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(odd, b"x" if not odd.filename.endswith("/") else b"")
    with pytest.raises(Disproved, match=why):
        check_evidence(path, TRUST)


def test_a_zip_that_would_burst_is_refused_before_it_is_read(
    honest: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = zipped(honest, tmp_path / "bundle.zip")
    monkeypatch.setattr("recoup_verify.evidence.files.MAX_TOTAL", sum(map(len, honest.values())))
    check_evidence(path, TRUST)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0")
    with pytest.raises(Disproved, match="has more than 200000 files or 0 GiB"):
        check_evidence(path, TRUST)
    monkeypatch.setattr("recoup_verify.evidence.files.MAX_FILES", 3)
    with pytest.raises(Disproved, match="has more than 3 files"):
        check_evidence(zipped(honest, tmp_path / "again.zip"), TRUST)


def test_a_zip_whose_sizes_lie_is_refused(honest: dict[str, bytes], tmp_path: Path) -> None:
    """It says that a file is small: no more than that is ever read, and then it isn't the file."""
    path = Path(zipped({**honest, "events.csv": b"\0" * 100_000}, tmp_path / "bundle.zip"))
    raw = path.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(raw)
    with pytest.raises(Disproved, match=r"events.csv can't be read from the zip|events.csv: its digest"):
        check_evidence(str(path), TRUST)


def test_a_line_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recoup_verify.evidence.files.MAX_LINE", 2_000)
    made = bundled(new(), state=lambda made: made.files.update({"log/0/tree.txt": b"A" * 5_000}))
    with pytest.raises(Disproved, match=r"log/0/tree.txt has a line that doesn't end"):
        check(made, tmp_path)
