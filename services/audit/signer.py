"""The audit-signer process: `python -m services.audit.signer --config FILE`. It reaches no database and nobody."""

from __future__ import annotations

import sys

from recoup.audit.v1 import signer_service_pb2
from services._mesh.process import Mesh, run
from services.audit.config import SignerSettings
from services.audit.model.notes import VerifierKey
from services.audit.rpc import SignerRpc
from services.audit.shard_signing import ShardSigner
from services.audit.signer_memory import SignerMemory
from services.audit.signing_keys import SigningKeys


async def compose(mesh: Mesh, settings: SignerSettings) -> None:
    """Load the key and the memory, and serve."""
    keys = settings.signer
    root = VerifierKey.parse(keys.root) if keys.root else None
    signing = SigningKeys(keys.origin, keys.key, keys.more_keys, keys.manifest, root)
    rpc = SignerRpc(signing, ShardSigner(keys.origin, signing, SignerMemory(keys.state), root))
    await mesh.serve([(signer_service_pb2.DESCRIPTOR.services_by_name["SignerService"], rpc)])


if __name__ == "__main__":
    sys.exit(run(SignerSettings, compose, "Recoup's audit signer"))
