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

from services._mesh.config import usable
from services._mesh.keys import read_private_key
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
    listener = mesh.listen(own.listen, "witness.listen")
    witness = Witness(_cosigner(own), _log_keys(own), WitnessState(own.state), mesh.clock)
    server = _Server(_configuration(WitnessApp(witness, mesh.metrics, own.header_seconds), own, settings))
    mesh.task(_serve(mesh, server, listener), "add-checkpoint")
    try:
        await mesh.serve([])
    finally:
        server.should_exit = True
        witness.close()


def _cosigner(own: WitnessSettings) -> Cosigner:
    with usable(own.key, "witness.key", "Put the witness's own key there."):
        return Cosigner(own.name, read_private_key(own.key))


def _log_keys(own: WitnessSettings) -> LogKeys:
    keys = LogKeys(own.log_keys)
    with usable(own.log_keys, "witness.log_keys", "Write one vkey a line, as the log's operator has it.", NoteInvalid):
        keys.read()
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
