"""The audit-signer process: `python -m services.audit.signer --config FILE`. It reaches no database and nobody."""

from __future__ import annotations

import sys

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from recoup.audit.v1 import signer_service_pb2
from services._mesh.process import Mesh, run
from services.audit.config import SignerSettings
from services.audit.model.notes import Signer
from services.audit.rpc import SignerRpc
from services.audit.signer_state import SignerState


async def compose(mesh: Mesh, settings: SignerSettings) -> None:
    """Load the key and the memory, and serve."""
    keys = settings.signer
    key = load_pem_private_key(keys.key.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{keys.key} must hold an Ed25519 private key")
    rpc = SignerRpc(Signer(keys.origin, key), SignerState(keys.state), keys.origin, keys.manifest.read_text("utf-8"))
    await mesh.serve([(signer_service_pb2.DESCRIPTOR.services_by_name["SignerService"], rpc)])


if __name__ == "__main__":
    sys.exit(run(SignerSettings, compose, "Recoup's audit signer"))
