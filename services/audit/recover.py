"""Recovers the log after its database was set back or rewritten: `python -m services.audit.recover …`.

The signer can't be set back: a recovery opens a new shard whose first leaf commits to the last head that was signed,
of whichever shard, and states what is lost, and which leaves are given up: those after the last checkpoint that the
database still bears out. The offline root key authorises it. With the audit process stopped:

    … statement --config FILE --signed NOTE        says what the root is to sign
    … sign --root-key KEY --name NAME --text FILE  on the offline machine; writes the signed statement
    … open --config FILE --signed NOTE --statement FILE --root VKEY

NOTE is the newest checkpoint that was signed: from the signer's memory, a witness, or a copy held outside. Exit code 0:
done; 1: refused, and it says why; 2: unusable.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from services._mesh.clock import Clock, open_clock
from services._mesh.config import ConfigError, load_settings
from services._mesh.database import Database
from services._mesh.keys import read_private_key
from services._mesh.uow import PLATFORM, Store
from services.audit import store as sql
from services.audit.config import AuditSettings
from services.audit.model.notes import NoteInvalid, Signer, TreeHead, VerifierKey, verify
from services.audit.model.openings import ACTION, RECOVERY, Restored, opening_metadata, recovery_text
from services.audit.model.shards import origin_of, shard_of
from services.audit.model.signing import SignedHead
from services.audit.refusals import find_common, root_at

ROOT_SUFFIX = "/root"


class CannotRecover(Exception):
    """The recovery isn't possible; says why."""


class Recovery:
    """A recovery of the log `name`. `head` is under the sequencer's role; `store` writes audit's outbox."""

    def __init__(self, head: Database, store: Store, name: str, clock: Clock) -> None:
        self._head, self._store, self._name, self._clock = head, store, name, clock

    async def statement(self, note: str) -> str:
        """What the offline root key is to sign. Raises CannotRecover."""
        signed = signed_head(note)
        async with self._head.unscoped() as connection:
            last, restored = await self._require_other(connection, await sql.read_head(connection), signed)
        return recovery_text(self._name, last + 1, signed, restored)

    async def open(self, note: str, statement: str, root: VerifierKey) -> int:
        """Close the shard where the restored database ends, and open the next; returns it. Safe to repeat.

        The event waits in the outbox until the audit process runs: it is the new shard's first leaf. Raises
        CannotRecover.
        """
        signed = signed_head(note)
        shard, restored = await self._turned(signed, statement, root)
        async with self._store.read(PLATFORM) as connection:
            if await sql.find_opening(connection, shard) is not None:
                return shard
        metadata = opening_metadata(self._name, shard, RECOVERY, signed)
        async with self._store.begin(PLATFORM) as work:
            said = {**metadata, **restored.metadata(self._name), "statement": statement}
            work.emit(ACTION, f"log/{metadata['origin']}", said)
        return shard

    async def _turned(self, signed: SignedHead, statement: str, root: VerifierKey) -> tuple[int, Restored]:
        """The new shard, and where the database ended before it."""
        last = self._shard_of(signed)
        async with self._head.unscoped() as connection:
            head = await sql.take_over(connection)  # Whoever still appends is fenced from here on.
            at = head.shard, head.frontier.size
            if at == (last + 1, 0) and (await sql.read_shard(connection, last + 1)).kind == RECOVERY:
                restored = await self._restored(connection, await sql.find_restored(connection, last + 1), last, signed)
                self._require_authorised(last + 1, signed, restored, statement, root)
                return last + 1, restored
            _, restored = await self._require_other(connection, at, signed)
            self._require_authorised(last + 1, signed, restored, statement, root)
            opened = sql.OpenShard(RECOVERY, self._clock.now())
            await sql.turn(connection, self._name, at, last + 1, opened)
        return last + 1, restored

    def _shard_of(self, signed: SignedHead) -> int:
        origin = TreeHead.parse(_text(signed.note)).origin
        shard = shard_of(self._name, origin)
        if shard is None:
            raise CannotRecover(f"{origin} is no shard of {self._name}")
        return shard

    async def _require_other(
        self, connection: sql.Connection, at: tuple[int, int], signed: SignedHead
    ) -> tuple[int, Restored]:
        """The shard of what was signed last, which the database doesn't continue, and where the database ends."""
        last, (shard, size) = self._shard_of(signed), at
        if last < shard:
            given, there = origin_of(self._name, last), origin_of(self._name, shard)
            raise CannotRecover(f"the database is in {there}, but {given} was signed last: give the newest note")
        if last + 1 > await sql.read_last_partition(connection):
            raise CannotRecover("the database has no partition for another shard: run deploy/add_shards.sql")
        if last == shard and size >= signed.size and await root_at(connection, shard, signed.size) == signed.root:
            raise CannotRecover(
                f"nothing is lost: the database has what was signed at size {signed.size}, and goes on to {size};"
                " if the signer refuses that, give the newest note"
            )
        return last, await self._restored(connection, at, last, signed)

    async def _restored(
        self, connection: sql.Connection, at: tuple[int, int], last: int, signed: SignedHead
    ) -> Restored:
        """Where the database ends, and how much of it is as it was signed: by the checkpoints that it has kept.

        What stands behind the last of them may be the signed leaves, unless there are more of them, or other ones.
        """
        shard, size = at
        beyond = shard == last and size >= signed.size
        through = signed.size - 1 if beyond else size
        newest = await sql.find_checkpoint_between(connection, shard, 0, through, newest=True)
        common = await find_common(connection, shard, through)
        if not beyond and (newest is None or common == newest.size):
            return Restored(shard, size, size)
        return Restored(shard, size, common, await root_at(connection, shard, size))

    def _require_authorised(
        self, shard: int, signed: SignedHead, restored: Restored, statement: str, root: VerifierKey
    ) -> None:
        try:
            authorised = verify(statement, root)
        except NoteInvalid as error:
            raise CannotRecover(f"the statement isn't signed by {root.name}: {error}") from error
        if authorised != recovery_text(self._name, shard, signed, restored):
            raise CannotRecover("the statement authorises another recovery: sign what `statement` says now")


def signed_head(note: str) -> SignedHead:
    """The head of a checkpoint, or of a signer's memory file (JSON). Raises CannotRecover."""
    try:
        if note.startswith("{"):
            note = str(json.loads(note)["note"])
        head = TreeHead.parse(_text(note))
    except (NoteInvalid, KeyError, json.JSONDecodeError) as error:
        raise CannotRecover(f"this isn't a signed checkpoint: {error}") from error
    return SignedHead(head.size, head.root, note)


def _text(note: str) -> str:
    return note.partition("\n\n")[0] + "\n"


def sign_statement(key: Path, name: str, text: str) -> str:
    """The statement, signed by the offline root key. Raises ValueError."""
    return Signer(f"{name}{ROOT_SUFFIX}", read_private_key(key)).sign(text)


async def _with_database(given: argparse.Namespace) -> str:
    settings = load_settings(AuditSettings, given.config)
    if settings.database is None:
        raise ConfigError(given.config, "database", "is missing", "Use the audit process's own configuration.")
    clock = open_clock(settings.process.profile, settings.clock.file if settings.clock else None)
    own, role = settings.database, settings.log.sequencer
    head, api = Database(own, role.user, role.password_file, 1), Database(own, own.user, own.password_file, 1)
    recovery, note = (
        Recovery(head, Store(api, "audit", clock), settings.log.name, clock),
        given.signed.read_text("utf-8"),
    )
    try:
        if given.command == "statement":
            return await recovery.statement(note)
        shard = await recovery.open(note, given.statement.read_text("utf-8"), VerifierKey.parse(given.root))
        return f"shard {shard} is opened when the audit process is started\n"
    finally:
        await head.close()
        await api.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m services.audit.recover", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("statement", "open"):
        command = commands.add_parser(name)
        command.add_argument("--config", type=Path, required=True, help="the audit process's configuration file")
        command.add_argument("--signed", type=Path, required=True, help="the newest signed checkpoint")
    command.add_argument("--statement", type=Path, required=True, help="what the root signed")
    command.add_argument("--root", required=True, metavar="VKEY", help="the offline root's verifier key")
    sign = commands.add_parser("sign")
    sign.add_argument("--root-key", type=Path, required=True, help="the offline root's private key (PEM)")
    sign.add_argument("--name", required=True, help="the log's name")
    sign.add_argument("--text", type=Path, required=True, help="what `statement` said")
    given = parser.parse_args(arguments)
    try:
        if given.command == "sign":
            print(sign_statement(given.root_key, given.name, given.text.read_text("utf-8")), end="")
        else:
            print(asyncio.run(_with_database(given)), end="")
    except CannotRecover as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 1
    except (ConfigError, NoteInvalid, OSError, ValueError) as error:
        print(f"recover: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
