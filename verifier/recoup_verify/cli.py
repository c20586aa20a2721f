"""The `recoup-verify` command. Exit codes: 0 proved, 1 disproved, 2 can't tell (or wrong use)."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

try:
    from recoup_verify import bundle, event, words
    from recoup_verify.documents import CannotTell, Disproved
    from recoup_verify.event import check_event
    from recoup_verify.log import Key, parse_key
    from recoup_verify.receipt import check_receipt
except ImportError as failed:
    # Python would end with 1, the code of what is disproved, where cryptography is missing or can't be loaded.
    print(f"CAN'T TELL: recoup-verify isn't installed as a whole: {failed}", file=sys.stderr)
    sys.exit(2)

PROVED, DISPROVED, CANNOT_TELL = 0, 1, 2
_EPILOG = "exit codes: 0 proved, 1 disproved, 2 can't tell"
_MAX_KEY = 4_096
_WIDTH = 100


@dataclass(frozen=True)
class Told:
    """What is told of something that was proved: in plain words, and as facts."""

    lines: Sequence[str]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """The exit code, and the lines that say why, on stdout or on stderr."""

    code: int
    lines: Sequence[str]
    on_stdout: bool = False


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code. Only what was disproved gives 1, and only what was said gives 0."""
    _speak_any_character()
    try:
        given = parser().parse_args(arguments)
        return _say(_answer(given))
    finally:
        _let_go()


def _answer(given: argparse.Namespace) -> Answer:
    key: Key | None = None
    try:
        key = parse_key(_key_text(given.key))
        told: Told = given.check(_read(given.file, given.limit), key)
        return _proved(given.json, told, key.is_local)
    except Disproved as error:
        return _unproved(given.json, DISPROVED, "disproved", str(error), key)
    except CannotTell as error:
        return _unproved(given.json, CANNOT_TELL, "can't tell", str(error), key)
    except OSError as error:
        why = f"{error.filename or given.file} can't be read: {error.strerror}"
        return _unproved(given.json, CANNOT_TELL, "can't tell", why, key)
    except BaseException as error:  # a panic in cryptography's Rust isn't an Exception
        why = f"this wasn't foreseen: {type(error).__name__}: {error}"
        found = _unproved(given.json, CANNOT_TELL, "can't tell", why, key)
        return found if given.json else Answer(CANNOT_TELL, found.lines[:1])


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


def _unproved(as_json: bool, code: int, verdict: str, why: str, key: Key | None) -> Answer:
    if as_json:
        facts = {"verdict": verdict, "local": bool(key and key.is_local), "why": why}
        return Answer(code, [json.dumps(facts)], on_stdout=True)
    return Answer(code, [f"{verdict.upper()}: {words.shown(why)}.", words.NEXT[verdict]])


def _proved(as_json: bool, told: Told, local: bool) -> Answer:
    if as_json:
        facts = {"verdict": "proved", "local": local, **told.facts}
        return Answer(PROVED, [json.dumps(facts)], on_stdout=True)
    banner = "LOCAL: not evidence. The key says of itself that it belongs to somebody's own machine."
    return Answer(PROVED, [banner, *told.lines] if local else told.lines, on_stdout=True)


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
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
