"""The audit-witness process: `python -m services.audit.witness --config FILE`.

It cosigns other logs' checkpoints, ours among them. It reaches no database and nobody; own key, own state. Run by the
log's own operator it proves nothing to others: witnesses count only outside of the operator's control.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator

import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services._mesh.config import ConfigError
from services._mesh.listening import listening_socket
from services._mesh.process import Mesh, run
from services.audit.config import WitnessProcessSettings, WitnessSettings
from services.audit.model.cosigning import Cosigner
from services.audit.model.notes import NoteInvalid
from services.audit.witness_http import LogKeys, Witness, WitnessApp, WitnessProtocol
from services.audit.witness_state import WitnessState


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the process has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def compose(mesh: Mesh, settings: WitnessProcessSettings) -> None:
    """Load key and state, and serve HTTPS; the mesh side serves health only."""
    own = settings.witness
    listener = listening_socket(own.listen, "witness.listen")
    witness = Witness(_cosigner(own), _log_keys(own), WitnessState(own.state), mesh.clock)
    server = _Server(_configuration(WitnessApp(witness, mesh.metrics, own.header_seconds), own, settings))
    mesh.task(_serve(mesh, server, listener), "add-checkpoint")
    try:
        await mesh.serve([])
    finally:
        server.should_exit = True
        witness.close()


def _cosigner(own: WitnessSettings) -> Cosigner:
    key = load_pem_private_key(own.key.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(own.key, "witness.key", "must hold an Ed25519 private key", "Make one: PEM, PKCS #8.")
    return Cosigner(own.name, key)


def _log_keys(own: WitnessSettings) -> LogKeys:
    keys = LogKeys(own.log_keys)
    try:
        keys.read()
    except NoteInvalid as error:
        way_out = "Write one vkey a line, as the log's operator publishes it."
        raise ConfigError(own.log_keys, "witness.log_keys", str(error), way_out) from error
    return keys


async def _serve(mesh: Mesh, server: _Server, listener: socket.socket) -> None:
    await server.serve([listener])
    mesh.stop()


def _configuration(app: WitnessApp, own: WitnessSettings, settings: WitnessProcessSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="none",
        http=WitnessProtocol,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=own.connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.limits.drain_seconds),
        ssl_certfile=str(settings.tls.cert),
        ssl_keyfile=str(settings.tls.key),
    )


if __name__ == "__main__":
    sys.exit(run(WitnessProcessSettings, compose, "Recoup's witness of transparency logs"))
