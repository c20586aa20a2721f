"""The audit-signer process: `python -m services.audit.signer --config FILE`. It reaches no database and nobody."""

from __future__ import annotations

import sys

from recoup.audit.v1 import signer_service_pb2
from services._mesh.config import ConfigError
from services._mesh.process import Mesh, run
from services.audit.config import SignerKeys, SignerSettings
from services.audit.model.notes import VerifierKey
from services.audit.rpc_signer import SignerRpc
from services.audit.shard_signing import ShardSigner
from services.audit.signer_memory import MemoryUnusable, SignerMemory
from services.audit.signing_keys import SigningKeys


async def compose(mesh: Mesh, settings: SignerSettings) -> None:
    """Load the key and the memory, and serve."""
    keys = settings.signer
    root = VerifierKey.parse(keys.root) if keys.root else None
    signing = SigningKeys(keys.origin, keys.key, keys.more_keys, keys.manifest, root)
    rpc = SignerRpc(signing, ShardSigner(keys.origin, signing, _memory(keys), root, mesh.clock))
    await mesh.serve([(signer_service_pb2.DESCRIPTOR.services_by_name["SignerService"], rpc)])


def _memory(keys: SignerKeys) -> SignerMemory:
    try:
        return SignerMemory.opened(keys.state)
    except MemoryUnusable as error:
        way_out = "A new log: python -m services.audit.signer_begin. Otherwise: docs/RUNBOOK.md, LogSignerRefused."
        raise ConfigError(keys.state, "signer.state", str(error), way_out) from None


if __name__ == "__main__":
    sys.exit(run(SignerSettings, compose, "Recoup's audit signer"))
