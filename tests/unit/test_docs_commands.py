"""The commands in the pages for people and programs: each is one that there is, with what it takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from recoup_client.cli import main
from recoup_verify.cli import main as verify

ROOT = Path(__file__).resolve().parents[2]
PAGES = (*sorted((ROOT / "docs" / "for").glob("*.md")), ROOT / "README.md", ROOT / "clients" / "README.md")
# A line of an indented or fenced block; a command may stand behind settings, or within another one's argument.
BLOCK = re.compile(r"^(?: {4,}|\t)(?=\S)(.*)$", re.MULTILINE)
AUDIENCES = ("INTERNAL-TEAMS", "PEOPLE", "REST", "SRE")


def commands(program: str) -> Iterator[tuple[str, str]]:
    """Each command of a program, with its page."""
    for page in PAGES:
        for line in BLOCK.findall(page.read_text()):
            for part in re.split(r"\s*(?:;|&&|\$\()\s*", line):
                found = re.match(rf"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?{program} (.*?)\)?$", part)
                if found:
                    yield page.name, found[1]


def test_each_audience_has_a_page_that_the_readme_names() -> None:
    readme = (ROOT / "README.md").read_text()
    assert {page.stem for page in (ROOT / "docs" / "for").glob("*.md")} == set(AUDIENCES)
    assert all(f"](docs/for/{name}.md)" in readme for name in AUDIENCES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_points_to_is_there(page: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", page.read_text()) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize(("page", "line"), list(commands("recoup")))
def test_a_command_is_taken_as_it_stands_there(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(line, comments=True)
    command: click.Command = main
    context = None
    while True:
        try:
            context = command.make_context(command.name, arguments, parent=context)
        except click.exceptions.Exit:  # --help
            return
        except click.UsageError as error:
            raise AssertionError(f"{page}: recoup {line}: {error.format_message()}") from error
        if not isinstance(command, click.Group):
            return
        name, found, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, f"{page}: recoup {line}: there is no {name}"
        command = found


@pytest.mark.parametrize(("page", "line"), list(commands("recoup-verify")))
def test_the_verifier_knows_what_is_to_be_verified(page: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(["--help"]) == 0
    assert re.search(rf"^\s+{line.split()[0]} ", capsys.readouterr().out, re.MULTILINE), page


@pytest.mark.parametrize(("page", "line"), list(commands("python")))
def test_a_program_and_its_files_are_there(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    assert find_spec(words[1]) if words[0] == "-m" else (ROOT / words[0]).exists(), page
    assert all((ROOT / word).exists() for word in words if word.startswith("deploy/"))


def named() -> Iterator[tuple[str, str]]:
    """Each command that a sentence names, such as one of the runbook's, with its page."""
    pages = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "services").glob("*/README.md"))]
    for page in pages:
        for code in re.findall(r"`([^`]+)`", re.sub(r"(?ms)^```.*?^```", "", page.read_text())):
            found = re.match(r"(?:[A-Z_]+=\S+ )*((?:recoup|python -m) .+)$", " ".join(code.split()))
            if found:
                yield page.name, found[1]


@pytest.mark.parametrize(("page", "line"), sorted(set(named())))
def test_a_command_that_a_sentence_names_is_one_that_there_is(page: str, line: str) -> None:
    """With its options; what stands in the place of arguments isn't looked at."""
    program, *words = shlex.split(line.removeprefix("python "), comments=True)
    if program == "-m":
        assert find_spec(words[0]), f"{page}: {line}"
        return
    command: click.Command = main
    context = click.Context(command)
    while words and isinstance(command, click.Group):
        word = words.pop(0)
        if word.startswith("-"):
            option = next((each for each in command.params if word in each.opts), None)
            assert option, f"{page}: {line}: there is no {word}"
            words = words if isinstance(option, click.Option) and option.is_flag else words[1:]
            continue
        found = [command.get_command(context, each) for each in word.split("|")]
        assert found[0], f"{page}: {line}: there is no {word}"
        assert all(found), f"{page}: {line}: there isn't all of {word}"
        command, context = found[0], click.Context(found[0], parent=context)
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    said = {each for word in words if word.startswith("--") for each in word.split("|")}
    assert not said - known, f"{page}: {line}: there is no {said - known}"
