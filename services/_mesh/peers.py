"""Who is at the other end of a connection, by the certificate that it has proved to own, and whether it may call.

A peer is told by its SPIFFE URI alone; its DNS names serve TLS clients and say nothing about identity.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from services._mesh import tokens
from services._mesh.clock import Clock
from services._mesh.descriptors import MethodRule
from services._mesh.errors import Denied, Reason, Unauthenticated
from services._mesh.limits import BoundedCache

PEM_KEY = "x509_pem_cert"
_CACHED_PEERS = 1024
_CLIENT_CLASS = "client/*"
_CLIENT_PREFIX = "client/"


@dataclass(frozen=True, slots=True)
class Peer:
    """A process or client: its name without "spiffe://recoup/", and its certificate's RFC 8705 thumbprint."""

    name: str
    thumbprint: str
    expires_at: float


class PeerReader:
    """Reads peers out of gRPC's auth context. A certificate is parsed once, its expiry compared on every call."""

    def __init__(self, clock: Clock, profile: str) -> None:
        self._clock = clock
        self._profile = profile
        self._known: BoundedCache[bytes, Peer] = BoundedCache(_CACHED_PEERS)

    def read(self, auth_context: Mapping[str, Iterable[bytes]]) -> Peer:
        """The peer. Raises Unauthenticated where it has no certificate of this mesh that is in force."""
        pem = next(iter(auth_context.get(PEM_KEY, ())), b"")
        peer = self._known.get(pem)
        if peer is None:
            peer = self._parse(pem)
            self._known.put(pem, peer)
        # TLS checked it at the handshake; a connection may outlive the certificate that opened it.
        if self._clock.wall_seconds() >= peer.expires_at:
            raise Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_EXPIRED, "The peer's certificate has expired.")
        return peer

    def _parse(self, pem: bytes) -> Peer:
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        if not pem:
            raise Unauthenticated(Reason.ERROR_REASON_CREDENTIAL_MISSING, "The call came without a certificate.")
        certificate = x509.load_pem_x509_certificate(pem)
        if self._profile != "local" and tokens.LOCAL_ENV in certificate.issuer.rfc4514_string():
            raise Unauthenticated(
                Reason.ERROR_REASON_CREDENTIAL_INVALID, "Production takes no certificate of a local CA."
            )
        thumbprint = tokens.thumbprint(certificate.public_bytes(Encoding.DER))
        return Peer(_spiffe_name(certificate), thumbprint, certificate.not_valid_after_utc.timestamp())


def _spiffe_name(certificate: object) -> str:
    from cryptography import x509

    assert isinstance(certificate, x509.Certificate)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    # Exactly one, as the SPIFFE X.509-SVID standard demands: with two, which one is meant would be the reader's guess.
    if len(uris) != 1 or not uris[0].startswith(tokens.SPIFFE_PREFIX):
        raise Unauthenticated(
            Reason.ERROR_REASON_CREDENTIAL_INVALID, "The peer's certificate doesn't name one process of this mesh."
        )
    return uris[0].removeprefix(tokens.SPIFFE_PREFIX)


class AllowedCallers:
    """The callers of one RPC: process names, "client/<team>", or the class "client/*"."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = frozenset(names) - {_CLIENT_CLASS}
        self.any_client = _CLIENT_CLASS in names

    def __bool__(self) -> bool:
        return bool(self.names) or self.any_client

    def check(self, peer: str) -> None:
        """Raises Denied with PEER_NOT_ALLOWED."""
        if peer not in self.names and not (self.any_client and peer.startswith(_CLIENT_PREFIX)):
            raise Denied(Reason.ERROR_REASON_PEER_NOT_ALLOWED, "This process may not make this call.", {"peer": peer})


def allowed_callers(rule: MethodRule, default: Sequence[str], by_rpc: Mapping[str, Sequence[str]]) -> AllowedCallers:
    """Who may call `rule`: those that configuration names for it, else the default.

    An RPC of PEER scope has no default: it carries no passport, so that whoever may call it is named one by one.
    """
    if rule.name in by_rpc:
        return AllowedCallers(by_rpc[rule.name])
    return AllowedCallers(default if rule.needs_passport else ())
