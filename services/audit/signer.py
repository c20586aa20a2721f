"""The audit-signer process: `python -m services.audit.signer --config FILE`. It reaches no database and nobody."""

from __future__ import annotations

import sys

from recoup.audit.v1 import signer_service_pb2
from services._mesh.config import ConfigError, usable
from services._mesh.keys import read_private_key
from services._mesh.process import Mesh, run
from services.audit.config import SignerKeys, SignerSettings
from services.audit.model.notes import NoteInvalid, VerifierKey
from services.audit.rpc_signer import SignerRpc
from services.audit.shard_signing import ShardSigner
from services.audit.signer_memory import MemoryUnusable, SignerMemory
from services.audit.signing_keys import SigningKeys


async def compose(mesh: Mesh, settings: SignerSettings) -> None:
    """Load the key and the memory, and serve."""
    keys = settings.signer
    root, memory = _root(keys), _memory(keys, hold=not mesh.is_rehearsal)
    signing = _signing(keys, root)
    rpc = SignerRpc(signing, ShardSigner(keys.origin, signing, memory, root, mesh.clock))
    await mesh.serve([(signer_service_pb2.DESCRIPTOR.services_by_name["SignerService"], rpc)])


def _root(keys: SignerKeys) -> VerifierKey | None:
    with usable(keys.manifest, "signer.root", "Give the root's vkey, as the ceremony printed it.", NoteInvalid):
        return VerifierKey.parse(keys.root) if keys.root else None


def _signing(keys: SignerKeys, root: VerifierKey | None) -> SigningKeys:
    with usable(keys.key, "signer.key", "Put the log's key there, and those of a rotation into signer.more_keys."):
        read_private_key(keys.key)
    with usable(keys.manifest, "signer.manifest", "Put the manifest there that the root signed.", NoteInvalid):
        return SigningKeys(keys.origin, keys.key, keys.more_keys, keys.manifest, root)


def _memory(keys: SignerKeys, *, hold: bool) -> SignerMemory:
    try:
        with usable(keys.state, "signer.state", "Is it the signer's own memory? docs/RUNBOOK.md, LogSignerRefused."):
            return SignerMemory.opened(keys.state, hold=hold)
    except MemoryUnusable as error:
        way_out = "A new log: python -m services.audit.signer_begin. Otherwise: docs/RUNBOOK.md, LogSignerRefused."
        raise ConfigError(keys.state, "signer.state", str(error), way_out) from None


if __name__ == "__main__":
    sys.exit(run(SignerSettings, compose, "Recoup's audit signer"))
