"""`--check`: a process is put together as it will be, from all of its files, and does nothing. What a start would
refuse, this refuses; beside a process that runs it changes nothing, and nobody hears of it.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from services._mesh.config import ConfigError, Missing
from services._mesh.errors import Problem
from services._mesh.listening import Unlistenable, check_address
from services._mesh.peers import PEM_KEY, PeerReader
from services._mesh.process import Mesh
from services._mesh.server import MeshServer, Refused, Service
from services._mesh.settings import MeshSettings

S = TypeVar("S", bound=MeshSettings)


class Rehearsal(Mesh):
    """A process that has all of its parts: no task of it runs, and it listens at nothing."""

    is_rehearsal = True

    def task(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Not begun."""
        work.close()

    def listen(self, address: str, key: str) -> socket.socket:
        """A socket that isn't bound: the process that runs may have the address."""
        check_address(address, key)
        made = socket.socket()
        made.close()
        return made

    async def serve(self, services: Sequence[Service]) -> None:
        """Every RPC has its rule, its callers and what answers it."""
        MeshServer(services, self.checks(), self.settings.callers, self.files, self.profile)


async def rehearse(settings: S, compose: Callable[[Mesh, S], Awaitable[None]], file: Path) -> datetime:
    """Put the process together. Returns when its certificate ends. Raises ConfigError."""
    process = settings.process
    try:
        for key, address in (("process.listen", process.listen), ("process.metrics", process.metrics)):
            if address is not None:
                check_address(address, key)
        mesh = Rehearsal(settings)
        try:
            ends_at = check_certificate(mesh)
            await compose(mesh, settings)
        finally:
            await mesh.close()
    except ConfigError:
        raise
    except Missing as missing:
        raise ConfigError(file, missing.key, "is missing", missing.way_out) from missing
    except Refused as refused:
        raise ConfigError(file, "callers", str(refused).replace("\n", "; "), "Name what there is.") from refused
    except Unlistenable as error:
        raise ConfigError(file, error.key, error.why, "Choose another address.") from error
    except Exception as error:
        rule = f"its parts can't be made: {type(error).__name__}: {' '.join(str(error).split())}"
        raise ConfigError(file, "(top)", rule, "Start it, and its log says more.") from error
    return ends_at


def check_certificate(mesh: Mesh) -> datetime:
    """When the process's certificate ends. Raises ConfigError for one that its peers would refuse."""
    settings, material = mesh.settings.tls, mesh.files.material

    def refused(rule: str) -> ConfigError:
        return ConfigError(settings.cert, "tls.cert", rule, f"Have one issued for {mesh.name}, by the CA of tls.ca.")

    try:
        peer = PeerReader(mesh.clock, mesh.profile).read({PEM_KEY: [material.cert]})
    except Problem as problem:
        raise refused(f"is refused by every peer: {problem.message.rstrip('.')}") from problem
    if peer.name != mesh.name:
        raise refused(f"is of {peer.name}, and this is {mesh.name}")
    leaf, *between = x509.load_pem_x509_certificates(material.cert)
    if leaf.not_valid_before_utc > mesh.clock.wall_now():
        raise refused(f"is good from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on")
    if not any(_issued(leaf, each) for each in (*between, *x509.load_pem_x509_certificates(material.ca))):
        raise refused(f"isn't issued by a certificate in {settings.ca}")
    return leaf.not_valid_after_utc


def _issued(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
