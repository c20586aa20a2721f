"""The `recoup-verify` command's exit code: 1 only for what is disproved, 0 only for what was said to be proved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recoup_verify import cli
from recoup_verify.receipts import receipt, words
from tests.support import receipt_cases as cases
from tests.support.receipt_log import Signatories
from tests.support.receipts import issue

PROVED, DISPROVED, CANNOT_TELL = 0, 1, 2
COMMAND = [sys.executable, "-m", "recoup_verify.cli"]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments for a receipt that is proved."""
    signatories = Signatories()
    file = tmp_path_factory.mktemp("receipt") / "receipt.json"
    file.write_bytes(issue(cases.deleted_volume(), signatories))
    return ["receipt", str(file), "--key", signatories.log.verifier_key.text()]


@pytest.fixture
def forged(intact: list[str], tmp_path: Path) -> list[str]:
    """The arguments for a receipt that is disproved."""
    file = tmp_path / "forged.json"
    file.write_text(Path(intact[1]).read_text("utf-8").replace("59.5", "69.5"), "utf-8")
    return [intact[0], str(file), *intact[2:]]


def ended(
    arguments: list[str], before: Callable[[], Any] | None = None, stderr: Any = subprocess.PIPE, **streams: Any
) -> tuple[int, str]:
    done = subprocess.run([*COMMAND, *arguments], stderr=stderr, text=True, preexec_fn=before, **streams)
    return done.returncode, done.stderr


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_what_is_proved_and_could_not_be_said_is_not_told(more: list[str], intact: list[str]) -> None:
    assert ended([*intact, *more], stdout=subprocess.DEVNULL) == (PROVED, "")
    with Path("/dev/full").open("wb") as full:
        code, told = ended([*intact, *more], stdout=full)
    assert (code, told) == (CANNOT_TELL, "recoup-verify: the answer can't be written: No space left on device\n")
    code, told = ended([*intact, *more], before=lambda: os.close(1))
    assert (code, len(told.splitlines())) == (CANNOT_TELL, 1)


def test_a_reader_who_went_away_disproves_nothing(intact: list[str]) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    code, told = ended(intact, stdout=theirs)
    os.close(theirs)
    assert (code, told) == (CANNOT_TELL, "recoup-verify: the answer can't be written: Broken pipe\n")


def test_what_is_disproved_stays_so_wherever_it_is_said(forged: list[str]) -> None:
    assert ended(forged, stdout=subprocess.DEVNULL)[0] == DISPROVED
    with Path("/dev/full").open("wb") as full:
        assert ended([*forged, "--json"], stdout=full)[0] == DISPROVED
        assert ended(forged, stdout=full, stderr=full)[0] == DISPROVED


def test_wrong_use_and_help_end_alike_on_a_full_disk() -> None:
    with Path("/dev/full").open("wb") as full:
        assert ended(["receipt"], stdout=full, stderr=full)[0] == CANNOT_TELL
        assert "Traceback" not in ended(["--help"], stdout=full)[1]


class _Panic(BaseException):
    """As cryptography's Rust raises it: no Exception."""


@pytest.mark.parametrize("error", [ZeroDivisionError("one\ntwo"), RecursionError(), MemoryError(), _Panic("panicked")])
def test_what_is_not_foreseen_disproves_nothing(
    error: BaseException, intact: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(receipt, "check_receipt", fail)
    assert cli.main(intact) == CANNOT_TELL
    told = capsys.readouterr()
    assert (told.out, len(told.err.splitlines())) == ("", 1)
    assert type(error).__name__ in told.err
    assert cli.main([*intact, "--json"]) == CANNOT_TELL
    assert json.loads(capsys.readouterr().out)["verdict"] == "can't tell"


def test_a_command_that_breaks_disproves_nothing() -> None:
    code = "from recoup_verify import cli; cli.main = lambda: 1 / 0; cli.command()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == CANNOT_TELL


def test_words_that_fail_disprove_nothing(intact: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "receipt_lines", lambda _: 1 / 0)
    assert cli.main(intact) == CANNOT_TELL


def test_an_installation_without_cryptography_disproves_nothing(intact: list[str], tmp_path: Path) -> None:
    (tmp_path / "cryptography.py").write_text("raise ImportError('no such library')")
    done = subprocess.run(
        [*COMMAND, *intact], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (CANNOT_TELL, "", 1)
