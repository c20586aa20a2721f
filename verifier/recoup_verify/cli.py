"""The `recoup-verify` command. Exit codes: 0 proved, 1 disproved, 2 can't tell (or wrong use).

What a command needs is loaded when it is called: whoever checks one receipt waits for nothing else.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, NamedTuple

from recoup_verify.documents import CannotTell, Disproved, shown

PROVED, DISPROVED, CANNOT_TELL = 0, 1, 2
_MAX_KEY = 65_536
HELP = """\
usage: recoup-verify COMMAND FILE... --key VKEY [--keys FILE] [--witness VKEY]... [--quorum K] [--proof FILE] [--json]

Checks offline what Recoup claims. Needs no access to Recoup, and trusts nothing but the key.

commands:
  event FILE           that an event stands in the log; FILE is what .../events/{event_id}/proof answers
  receipt FILE         a savings receipt, byte by byte as it was issued: who requested, approved and did what in
                       which order, and that amounts and decision follow from the bill's rows that it carries
  bundle DIR|ZIP       an evidence bundle: that nobody changed a file of it, and that its events are all that the log
                       has of the organization up to a head, each receipt proved
  checkpoint FILE      a checkpoint of the log: whose it is, its size and its root
  consistency OLD NEW  that the log of the checkpoint NEW continues that of OLD: nothing was changed or dropped

options (FILE, but not of bundle, may be - for the standard input):
  --key VKEY    the verifier key of the log, or of its offline root, or @FILE that holds it
  --keys FILE   the log's key manifest, which receipts hold themselves: for the root's key, and while a key is rotated
  --witness VKEY, --quorum K
                whom you count on to have cosigned the log's head, and how many of them must have (else all)
  --proof FILE  of consistency: what .../log/consistency answers, or its hashes, one a line
  --json        print JSON
  -h, --help    print this

exit codes: 0 proved, 1 disproved, 2 can't tell
"""
NEXT: Mapping[str, str] = {
    "disproved": "Don't rely on it. Fetch the file from Recoup once more, byte by byte as it is; if that is disproved"
    " too, show both files to your auditor.",
    "can't tell": "Nothing was proved or disproved. Check that FILE is what Recoup gave you, that VKEY is the log's key"
    " as its operator publishes it, and that this is the newest recoup-verify.",
}
# What checks and tells it: a function of the files that were given, how to read one, and whom to believe.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "event": ("event", "told"),
    "receipt": ("savings.words", "told"),
    "bundle": ("evidence.bundle", "told"),
    "checkpoint": ("checkpoint", "told"),
    "consistency": ("checkpoint", "continued_told"),
}
_OPTIONS = ("--key", "--keys", "--proof", "--witness", "--quorum")


class WrongUse(Exception):
    """The command was called as nobody can; says how."""


class Given(NamedTuple):
    """What the command was called with. `values` are those of the options that have one."""

    command: str
    files: Sequence[str]
    values: Mapping[str, Sequence[str]]


class Answer(NamedTuple):
    """The exit code, and the lines that say why, on stdout or on stderr."""

    code: int
    lines: Sequence[str]
    on_stdout: bool = False


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code. Only what was disproved gives 1, and only what was said gives 0."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal can't show gets its number
    try:
        return _say(_answer(sys.argv[1:] if arguments is None else arguments))
    finally:
        _let_go()


def _answer(arguments: Sequence[str]) -> Answer:
    if {"-h", "--help"} & set(arguments):
        return Answer(PROVED, [HELP[:-1]], on_stdout=True)
    facts: dict[str, Any] = {"verdict": "can't tell", "local": False}
    try:
        code, lines = _proved(_given(arguments), facts)
    except WrongUse as error:
        return Answer(CANNOT_TELL, [f"recoup-verify: {error}", HELP.partition("\n")[0]])
    except BaseException as error:  # a panic in cryptography's Rust isn't an Exception
        code, lines = _unproved(error, facts)
    if "--json" in arguments:
        return Answer(code, [import_module("json").dumps(facts)], on_stdout=True)
    return Answer(code, lines, on_stdout=code == PROVED)


def _proved(given: Given, facts: dict[str, Any]) -> tuple[int, list[str]]:
    """What was proved, in words; `facts` gets it too."""
    trust = _trust(given, facts)
    module, function = COMMANDS[given.command]
    tell = getattr(import_module(f"recoup_verify.{module}"), function)
    lines, proved = tell([*given.files, *given.values.get("--proof", [])], _read, trust)
    facts.update(verdict="proved", **proved)
    banner = "LOCAL: not evidence. The key says of itself that it belongs to somebody's own machine."
    return PROVED, [shown(line) for line in ([banner, *lines] if facts["local"] else lines)]


def _unproved(error: BaseException, facts: dict[str, Any]) -> tuple[int, list[str]]:
    code, facts["why"] = CANNOT_TELL, str(error)
    if isinstance(error, Disproved):
        code, facts["verdict"] = DISPROVED, "disproved"
    elif isinstance(error, OSError):
        facts["why"] = f"{error.filename} can't be read: {error.strerror}"
    elif not isinstance(error, CannotTell):
        facts["why"] = f"this wasn't foreseen: {type(error).__name__}: {error}"
        return code, [f"CAN'T TELL: {shown(facts['why'])}."]
    return code, [f"{facts['verdict'].upper()}: {shown(facts['why'])}.", NEXT[facts["verdict"]]]


def _given(arguments: Sequence[str]) -> Given:
    """Read the command line. Raises WrongUse."""
    words, found, values = iter(arguments), list[str](), dict[str, list[str]]()
    for word in words:
        name, equals, value = word.partition("=")
        if word == "-" or not word.startswith("-"):
            found.append(word)
        elif name in _OPTIONS:
            if name in values and name != "--witness":
                raise WrongUse(f"{name} is given twice")
            values.setdefault(name, []).append(value if equals else next(words, ""))
            if not values[name][-1]:
                raise WrongUse(f"{name} needs a value")
        elif word != "--json":
            raise WrongUse(f"there is no option {shown(word)}")
    if not found or found[0] not in COMMANDS:
        raise WrongUse(f"the first word must be one of {', '.join(COMMANDS)}")
    command, *files = found
    two = command == "consistency"
    if len(files) != 1 + two or "--key" not in values or ("--proof" in values and not two):
        raise WrongUse(f"{command} takes {1 + two} FILE and --key VKEY{' and --proof FILE' * two}")
    if [*files, *values.get("--proof", []), *values.get("--keys", [])].count("-") > (command != "bundle"):
        raise WrongUse("only one FILE can be the standard input, and no bundle")
    return Given(command, files, values)


def _trust(given: Given, facts: dict[str, Any]) -> Any:
    """Whom to believe, as the options say; `facts` gets whether the key signs nothing that counts."""
    from recoup_verify.keys import read_manifest, trusted

    trust = trusted(*(list(map(_text, given.values.get(name, []))) for name in ("--key", "--witness", "--quorum")))
    facts["local"] = trust.key.is_local
    if "--keys" in given.values:
        return read_manifest(_text(f"@{given.values['--keys'][0]}"), trust)
    if trust.key.name.endswith("/root") and given.command in ("event", "checkpoint", "consistency"):
        raise CannotTell("this is a root's key: give the log's key manifest too, with --keys")
    return trust


def _text(given: str) -> str:
    """What was given, or what is in the file that it names."""
    if not given.startswith("@"):
        return given
    try:
        return _read(given[1:], _MAX_KEY).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CannotTell(f"{given[1:]} isn't a verifier key") from error


def _read(file: str, limit: int) -> bytes:
    """At most one byte more than the limit, which says that there are too many."""
    if file == "-":
        return sys.stdin.buffer.read(limit + 1)
    with open(file, "rb") as opened:
        return opened.read(limit + 1)


def _say(answer: Answer) -> int:
    """The exit code. Whom nobody could tell that it is proved, and with what left open, has no proof."""
    try:
        if sys.stdout is None and answer.on_stdout:  # Python's word for a closed one
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        print(*answer.lines, sep="\n", file=sys.stdout if answer.on_stdout else sys.stderr, flush=True)
    except OSError as error:
        with suppress(OSError):
            print(f"recoup-verify: the answer can't be written: {error.strerror}", file=sys.stderr, flush=True)
        return answer.code or CANNOT_TELL
    return answer.code


def _let_go() -> None:
    """Give up what can't be written, or else the interpreter tries again at its end and changes the exit code."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
