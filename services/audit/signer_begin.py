"""Begins the signer's memory, once, when a log is set up: `python -m services.audit.signer_begin --config FILE`.

A signer without its memory doesn't start: it would sign anything. Where the memory was lost, `--signed NOTE` begins it
with the newest checkpoint that was signed, from a witness or a copy held outside; with an older one the signer would
sign what contradicts the newer. Exit code 0: done; 1: refused, and it says why; 2: unusable.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from services._mesh.clock import Clock, open_clock
from services._mesh.config import ConfigError, load_settings
from services.audit.config import SignerSettings
from services.audit.model.note_check import log_keys, read_stored_note
from services.audit.model.notes import NoteInvalid, TreeHead, VerifierKey
from services.audit.model.shards import shard_of
from services.audit.model.signing import SignedHead
from services.audit.signer_memory import MemoryUnusable, SignerMemory
from services.audit.signing_keys import SigningKeys


def begin(settings: SignerSettings, clock: Clock, note: str = "") -> str:
    """Make the memory; says what it knows. Raises MemoryUnusable, NoteInvalid, OSError."""
    own = settings.signer
    if not note:
        SignerMemory.begin(own.state, clock.now().year)
        return "nothing is signed yet"
    shard = shard_of(own.origin, TreeHead.parse(note.partition("\n\n")[0] + "\n").origin)
    if shard is None:
        raise NoteInvalid(f"the checkpoint is of no shard of {own.origin}")
    root = VerifierKey.parse(own.root) if own.root else None
    keys = SigningKeys(own.origin, own.key, own.more_keys, own.manifest, root)
    head = read_stored_note(note, log_keys(keys.manifest(), keys.verifier_key), shard)
    # When the shard was opened isn't known: one that is to be closed at this year's turn must not be held up.
    SignerMemory.begin(own.state, clock.now().year - 1, shard, SignedHead(head.size, head.root, note))
    return f"size {head.size} of {head.origin} was signed last"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m services.audit.signer_begin", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the signer's configuration file")
    parser.add_argument("--signed", type=Path, help="the newest signed checkpoint, where the memory was lost")
    given = parser.parse_args(arguments)
    try:
        note = given.signed.read_text("utf-8") if given.signed else ""
        settings = load_settings(SignerSettings, given.config)
        clock = open_clock(settings.process.profile, settings.clock.file if settings.clock else None)
        print(begin(settings, clock, note))
    except MemoryUnusable as refused:
        print(f"refused: {refused}", file=sys.stderr)
        return 1
    except (ConfigError, NoteInvalid, OSError, ValueError) as error:
        print(f"signer_begin: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
