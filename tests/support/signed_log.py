"""A small log with signed checkpoints, for tests that change its rows: two organizations, two producers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.clock import Clock
from services.audit import store, usecases
from services.audit.checking import Checker
from services.audit.checkpointer import Checkpointer
from services.audit.model.cosigning import Cosigner, find_cosignature
from services.audit.model.events import Checkpoint
from services.audit.model.manifest import ListedKey
from services.audit.model.note_check import Held
from services.audit.model.notes import Note, Signer
from services.audit.model.signing import OfferedHead, SignedHead
from services.audit.pace import Pace
from services.audit.sequencer import Sequencer
from services.audit.signer_state import SignerState
from services.audit.signing import sign_checkpoint
from services.audit.store import checking
from tests.support.log import ACME, ACTORS, DIGEST, GLOBEX, LOG, event, one_shard, opener, sequencer
from tests.support.postgres import TestDatabase

BATCHES = 5
LEAVES = 3 * BATCHES


@dataclass(frozen=True)
class SignedLog:
    """The log's database, the signer with its memory, and a check of it."""

    database: TestDatabase
    signer: Signer
    state: SignerState
    checker: Checker

    async def sign(self, head: OfferedHead) -> str:
        """The signer's answer, as the signer's process gives it."""
        return sign_checkpoint(self.signer, self.state, LOG, head.size, head.root, head.from_size, head.proof)

    async def last_signed(self, shard: int) -> SignedHead:
        """What the signer signed last."""
        return self.state.head

    def checkpointer(self, log: Sequencer) -> Checkpointer:
        """The checkpoint task of a sequencer, with this signer."""
        role = self.database.role("audit_sequencer")
        return Checkpointer(role, log, Clock(), self.sign, self.last_signed, 0.01, one_shard)

    async def append(self, batches: int, first: int = 0, actor: str = "user:1") -> None:
        """Append batches of three events, and have each of them signed. `actor` did the first two."""
        async with sequencer(self.database) as log:
            checkpointer = self.checkpointer(log)
            try:
                for n in range(first, first + batches):
                    await usecases.append_events(log, "identity", [event(2 * n + k, actor=actor) for k in (1, 2)])
                    scan = event(n + 1, GLOBEX, "scanner.scan.start", actor="process:scanner", request_id=f"r{n}")
                    await usecases.append_events(log, "scanner", [scan])
                    await checkpointer.sign_now()
            finally:
                await checkpointer._database.close()


async def _cosign(database: TestDatabase, size: int) -> None:
    """Have a witness cosign one checkpoint."""
    cosigner, role = Cosigner("witness.example/w", Ed25519PrivateKey.generate()), database.role("audit_sequencer", 1)
    async with role.unscoped() as connection:
        row = (await checking.read_checkpoints(connection, 0, size - 1, size))[0]
        line = cosigner.cosign(Note.parse(row.note).text, 1_800_000_000)
        cosignature = find_cosignature(row.note, line, cosigner.witness)
        checkpoint = Checkpoint(0, size, row.root, row.note, row.signed_at)
        await store.insert_cosignature(connection, checkpoint, cosignature)
    await role.close()


@asynccontextmanager
async def signed_log(database: TestDatabase, folder: Path) -> AsyncIterator[SignedLog]:
    """A log of `LEAVES` leaves under `BATCHES` checkpoints."""
    signer = Signer(LOG, Ed25519PrivateKey.generate())
    role = database.role("audit_checker", 1)

    state = SignerState(folder / "signed.json")

    async def held(shard: int) -> Held:
        return Held([ListedKey("log", signer.verifier_key.public)], state.head.note if shard == 0 else "")

    async def no_rest(seconds: float) -> None:
        assert seconds > 0

    async with opener(database) as opening:
        checker = Checker(role, Clock(), LOG, ACTORS, DIGEST, opening.contents, held, Pace(1e6, no_rest), chunk=4)
        made = SignedLog(database, signer, state, checker)
        await made.append(BATCHES)
        await _cosign(database, 9)
        yield made
    await role.close()


__all__ = ["ACME", "BATCHES", "GLOBEX", "LEAVES", "SignedLog", "signed_log"]
