"""The `recoup-verify` command. Exit codes: 0 proved, 1 disproved, 2 can't tell (or wrong use)."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recoup_verify import bundle, event, words
from recoup_verify.documents import CannotTell, Disproved
from recoup_verify.event import check_event
from recoup_verify.log import Key, parse_key
from recoup_verify.receipt import check_receipt

PROVED, DISPROVED, CANNOT_TELL = 0, 1, 2
_EPILOG = "exit codes: 0 proved, 1 disproved, 2 can't tell"
_MAX_KEY = 4_096
_WIDTH = 100


@dataclass(frozen=True)
class Told:
    """What is told of something that was proved: in plain words, and as facts."""

    lines: Sequence[str]
    facts: Mapping[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    given = parser().parse_args(arguments)
    _speak_any_character()
    key: Key | None = None
    try:
        key = parse_key(_key_text(given.key))
        told: Told = given.check(_read(given.file, given.limit), key)
    except Disproved as error:
        return _tell(given, DISPROVED, "disproved", str(error), key)
    except CannotTell as error:
        return _tell(given, CANNOT_TELL, "can't tell", str(error), key)
    except OSError as error:
        return _tell(given, CANNOT_TELL, "can't tell", f"{error.filename} can't be read: {error.strerror}", key)
    return _tell_proved(given.json, told, key.is_local)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    found = argparse.ArgumentParser(
        prog="recoup-verify",
        description="Check offline what Recoup claims. Needs no access to Recoup, and trusts nothing but the key.",
        epilog=_EPILOG,
        formatter_class=_Formatter,
    )
    commands = found.add_subparsers(required=True, metavar="COMMAND")
    _command(
        commands.add_parser(
            "event",
            help="check the proof that an event stands in the log",
            description="Check the proof that an event stands in the log, as …/events/{event_id}/proof gives it.",
            epilog=_EPILOG,
            formatter_class=_Formatter,
        ),
        "the proof, as JSON",
        _check_event,
        event.MAX_BYTES,
    )
    _command(
        commands.add_parser(
            "receipt",
            help="check a savings receipt: who approved it, what was done, that the amounts follow",
            description="Check a savings receipt by its bundle: every byte of it, who requested, approved and did what"
            " in which order, and that amounts and decision follow from the bill's rows that it carries.",
            epilog=_EPILOG,
            formatter_class=_Formatter,
        ),
        "the receipt's bundle, byte by byte as it was issued",
        _check_receipt,
        bundle.MAX_BYTES,
    )
    return found


class _Formatter(argparse.HelpFormatter):
    """One width on every terminal, so that the help can be quoted."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_WIDTH)


def _command(command: argparse.ArgumentParser, file: str, check: Callable[[bytes, Key], Told], limit: int) -> None:
    command.add_argument("file", metavar="FILE", help=file)
    command.add_argument("--key", required=True, metavar="VKEY", help="the log's verifier key, or @FILE that holds it")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(check=check, limit=limit)


def _check_event(raw: bytes, key: Key) -> Told:
    proved = check_event(raw, key)
    return Told(words.event_lines(proved), words.event_facts(proved))


def _check_receipt(raw: bytes, key: Key) -> Told:
    proved = check_receipt(raw, key)
    return Told(words.receipt_lines(proved), words.receipt_facts(proved))


def _key_text(given: str) -> str:
    if not given.startswith("@"):
        return given
    try:
        return _read(given[1:], _MAX_KEY).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CannotTell(f"{given[1:]} isn't a verifier key") from error


def _read(file: str, limit: int) -> bytes:
    """At most one byte more than the limit, which says that there are too many."""
    with Path(file).open("rb") as opened:
        return opened.read(limit + 1)


def _speak_any_character() -> None:
    """A terminal that can't show a character gets its number, not a failure."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _tell(given: argparse.Namespace, code: int, verdict: str, why: str, key: Key | None) -> int:
    if given.json:
        print(json.dumps({"verdict": verdict, "local": bool(key and key.is_local), "why": why}))
        return code
    print(f"{verdict.upper()}: {words.shown(why)}.", file=sys.stderr)
    print(words.NEXT[verdict], file=sys.stderr)
    return code


def _tell_proved(as_json: bool, told: Told, local: bool) -> int:
    if as_json:
        print(json.dumps({"verdict": "proved", "local": local, **told.facts}))
        return PROVED
    if local:
        print("LOCAL: not evidence. The key says of itself that it belongs to somebody's own machine.")
    for line in told.lines:
        print(line)
    return PROVED


if __name__ == "__main__":
    sys.exit(main())
