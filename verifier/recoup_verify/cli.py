"""The `recoup-verify` command. Exit codes: 0 proved, 1 disproved, 2 can't tell (or wrong use)."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from recoup_verify.documents import CannotTell, Disproved
from recoup_verify.event import Proved, check_event
from recoup_verify.log import parse_key

PROVED, DISPROVED, CANNOT_TELL = 0, 1, 2
_EPILOG = "exit codes: 0 proved, 1 disproved, 2 can't tell"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    given = _parser().parse_args(arguments)
    try:
        key_text = Path(given.key[1:]).read_text("utf-8") if given.key.startswith("@") else given.key
        key = parse_key(key_text)
        proved = check_event(Path(given.file).read_bytes(), key)
    except Disproved as error:
        return _tell(given.json, DISPROVED, "disproved", str(error))
    except CannotTell as error:
        return _tell(given.json, CANNOT_TELL, "can't tell", str(error))
    except OSError as error:
        return _tell(given.json, CANNOT_TELL, "can't tell", f"{error.filename} can't be read: {error.strerror}")
    return _tell_proved(given.json, proved, key.is_local)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="recoup-verify",
        description="Check offline what Recoup claims. Needs no access to Recoup, and trusts nothing but the key.",
        epilog=_EPILOG,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    event = commands.add_parser(
        "event",
        help="check the proof that an event stands in the log",
        description="Check the proof that an event stands in the log, as …/events/{event_id}/proof gives it.",
        epilog=_EPILOG,
    )
    event.add_argument("file", metavar="FILE", help="the proof, as JSON")
    event.add_argument("--key", required=True, metavar="VKEY", help="the log's verifier key, or @FILE that holds it")
    event.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _tell(as_json: bool, code: int, verdict: str, why: str) -> int:
    if as_json:
        print(json.dumps({"verdict": verdict, "why": why}))
    else:
        print(f"{verdict.upper()}: {why}.", file=sys.stderr)
    return code


def _tell_proved(as_json: bool, proved: Proved, local: bool) -> int:
    payload, leaf = proved.payload, proved.leaf
    if as_json:
        facts = {"verdict": "proved", "local": local, "index": proved.index, "size": proved.size}
        print(json.dumps({**facts, "origin": proved.origin, "event": payload}))
        return PROVED
    if local:
        print("LOCAL: not evidence. The key says of itself that it belongs to somebody's own machine.")
    print(f"PROVED: event {leaf['event_id']} is leaf {proved.index} of {proved.size} in the log {proved.origin}.")
    print(f"  what       {payload.get('action')} on {payload.get('target')}: {payload.get('result')}")
    print(f"  who        {payload.get('actor')} as {payload.get('role')}")
    print(f"  when       {payload.get('occurred_at')}, appended {leaf['appended_at']} by {leaf['producer']}")
    print(f"  chain      number {leaf['org_seq']} of organization {leaf['organization_id']}")
    print("Not proved: that what the event says is true, and that no other event was left out.")
    return PROVED


if __name__ == "__main__":
    sys.exit(main())
