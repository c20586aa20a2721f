"""The `recoup-verify` command. Exit codes: 0 proved, 1 disproved, 2 can't tell (or wrong use).

What a command needs is loaded when it is called: whoever checks one receipt waits for nothing else.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from recoup_verify.documents import CannotTell, Disproved, read_file, shown

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
  --version     print the version
  -h, --help    print this

exit codes: 0 proved, 1 disproved, 2 can't tell
"""
NEXT: Mapping[str, str] = {
    "disproved": "Don't rely on it. Fetch the file from Recoup once more, byte by byte as it is; if that is disproved"
    " too, show both files to your auditor.",
    "can't tell": "Nothing was proved or disproved. Check that FILE is what Recoup gave you, that VKEY is the log's key"
    " as its operator publishes it, and that this is the newest recoup-verify.",
}
LOCAL = "LOCAL: not evidence. The key says of itself that it belongs to somebody's own machine."
# What checks and tells it: a function of the files that were given, and whom to believe.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "event": ("event", "told"),
    "receipt": ("receipts.words", "told"),
    "bundle": ("evidence.words", "told"),
    "checkpoint": ("checkpoint", "told"),
    "consistency": ("checkpoint", "continued_told"),
}
_OPTIONS = ("--key", "--keys", "--proof", "--witness", "--quorum")


class WrongUse(Exception):
    """The command was called as nobody can; says how."""


def command() -> None:
    """The process. Nothing that fails, nor what the interpreter does at its end, makes another exit code of it."""
    gc.disable()  # what is read is bounded, and next to nothing refers to itself
    code = CANNOT_TELL
    try:
        code = main()
    finally:
        os._exit(code)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code. Only what was disproved gives 1, and only what was said gives 0."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal can't show gets its number
    words = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & {*words}:
        return _say(PROVED, HELP[:-1])
    if "--version" in words:
        return _say(PROVED, f"recoup-verify {import_module('importlib.metadata').version('recoup-verify')}")
    facts: dict[str, Any] = {"verdict": "can't tell", "local": False}
    code, lines = CANNOT_TELL, list[str]()
    try:
        code, lines = PROVED, _proved(*_given(words), facts)
    except WrongUse as error:
        return _say(CANNOT_TELL, f"recoup-verify: {error}", HELP.partition("\n")[0])
    except BaseException as error:  # a panic in cryptography's Rust isn't an Exception
        code = DISPROVED if isinstance(error, Disproved) else CANNOT_TELL
        lines = _unproved(error, facts)
    if "--json" in words:
        return _say(code, import_module("json").dumps(facts), on_stdout=True)
    return _say(code, *map(shown, lines))


def _proved(command: str, files: list[str], values: Mapping[str, list[str]], facts: dict[str, Any]) -> list[str]:
    """What was proved, in words; `facts` gets it too."""
    trust = _trust(command, values, facts)
    module, function = COMMANDS[command]
    tell = getattr(import_module(f"recoup_verify.{module}"), function)
    lines, proved = tell([*files, *values.get("--proof", [])], trust)
    facts.update(verdict="proved", **proved)
    return [LOCAL, *lines] if facts["local"] else lines


def _unproved(error: BaseException, facts: dict[str, Any]) -> list[str]:
    """Why nothing was proved, in words; `facts` gets it too."""
    verdict = facts["verdict"] = "disproved" if isinstance(error, Disproved) else "can't tell"
    facts["why"] = str(error)
    if isinstance(error, OSError):
        facts["why"] = f"{error.filename} can't be read: {error.strerror}"
    elif not isinstance(error, CannotTell | Disproved):
        facts["why"] = f"this wasn't foreseen: {type(error).__name__}: {error}"
        return [f"CAN'T TELL: {facts['why']}."]
    return [f"{verdict.upper()}: {facts['why']}.", NEXT[verdict]]


def _given(arguments: Sequence[str]) -> tuple[str, list[str], dict[str, list[str]]]:
    """The command, its files, and the values of the options that have one. Raises WrongUse."""
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
    return command, files, values


def _trust(command: str, values: Mapping[str, list[str]], facts: dict[str, Any]) -> Any:
    """Whom to believe, as the options say; `facts` gets whether the key signs nothing that counts."""
    from recoup_verify.keys import read_manifest, trusted

    trust = trusted(*(list(map(_text, values.get(name, []))) for name in ("--key", "--witness", "--quorum")))
    facts["local"] = trust.key.is_local
    if "--keys" in values:
        return read_manifest(_text(f"@{values['--keys'][0]}"), trust)
    if trust.key.name.endswith("/root") and command in ("event", "checkpoint", "consistency"):
        raise CannotTell("this is a root's key: give the log's key manifest too, with --keys")
    return trust


def _text(given: str) -> str:
    """What was given, or what is in the file that it names."""
    if not given.startswith("@"):
        return given
    try:
        return read_file(given[1:], _MAX_KEY).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CannotTell(f"{given[1:]} isn't a verifier key") from error


def _say(code: int, *lines: str, on_stdout: bool = False) -> int:
    """The exit code. Whom nobody could tell that it is proved, and with what left open, has no proof."""
    on_stdout = on_stdout or code == PROVED
    try:
        if sys.stdout is None and on_stdout:  # Python's word for a closed one
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        print(*lines, sep="\n", file=sys.stdout if on_stdout else sys.stderr, flush=True)
    except OSError as error:
        with suppress(OSError):
            print(f"recoup-verify: the answer can't be written: {error.strerror}", file=sys.stderr, flush=True)
        return code or CANNOT_TELL
    return code


if __name__ == "__main__":
    command()
