"""The process's own certificate, read again when its files change: new handshakes get the new one, no restart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import grpc

from services._mesh.clock import monotonic
from services._mesh.config import ConfigError
from services._mesh.settings import TlsSettings

Stamp = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Material:
    """Certificate chain, private key and the installation's CA, as PEM."""

    ca: bytes
    cert: bytes
    key: bytes


class CertificateFiles:
    """The files behind `[tls]`. `generation` rises when they change; a pair that doesn't load is never taken.

    Raises ConfigError where there is no such pair to begin with.
    """

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._stamps = self._look()
        self._looked_at = monotonic()
        self.material = self._first()
        self.generation = 1
        self._tell_end: Callable[[float], None] = lambda _: None

    def tell_end(self, tell: Callable[[float], None]) -> None:
        """Tell when the certificate in force ends, in seconds since 1970: now, and whenever another one is taken."""
        self._tell_end = tell
        tell(_end(self.material))

    def _first(self) -> Material:
        material = self._read()
        try:
            _check(material)
        except ValueError as error:
            rule = "isn't the certificate's key, or one of [tls] isn't PEM"
            raise ConfigError(self._settings.key, "(file)", rule, "Put the pair there that was issued.") from error
        return material

    def refresh(self) -> int:
        """Look for changed files, at most every `check_seconds`; returns the generation."""
        now = monotonic()
        if now - self._looked_at < self._settings.check_seconds:
            return self.generation
        self._looked_at = now
        try:
            stamps = self._look()
            if stamps != self._stamps:
                material = self._read()
                _check(material)
                self.material, self._stamps = material, stamps
                self.generation += 1
                self._tell_end(_end(material))
        except (OSError, ValueError):
            pass  # Half-written: the pair in force stays, and the next look tries again.
        return self.generation

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials that demand a client certificate, and follow the files."""
        served = [self.generation]

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            if self.refresh() == served[0]:
                return None
            served[0] = self.generation
            return self._configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            fetch,  # type: ignore[arg-type]  # None means unchanged, which the stubs don't know.
            require_client_authentication=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Credentials of today's files, for one channel."""
        return grpc.ssl_channel_credentials(self.material.ca, self.material.key, self.material.cert)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(self.material.key, self.material.cert)], root_certificates=self.material.ca
        )

    def _look(self) -> tuple[Stamp, ...]:
        files = (self._settings.ca, self._settings.cert, self._settings.key)
        return tuple((status.st_mtime_ns, status.st_ino) for status in (file.stat() for file in files))

    def _read(self) -> Material:
        return Material(
            self._settings.ca.read_bytes(), self._settings.cert.read_bytes(), self._settings.key.read_bytes()
        )


def _end(material: Material) -> float:
    from cryptography import x509

    return x509.load_pem_x509_certificate(material.cert).not_valid_after_utc.timestamp()


def _check(material: Material) -> None:
    """Raise ValueError unless key and certificate belong together, and the CA's certificates can be read."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    certified = x509.load_pem_x509_certificate(material.cert).public_key()
    held = load_pem_private_key(material.key, None).public_key()
    x509.load_pem_x509_certificates(material.ca)
    spki = PublicFormat.SubjectPublicKeyInfo
    if certified.public_bytes(Encoding.DER, spki) != held.public_bytes(Encoding.DER, spki):
        raise ValueError("the key isn't the certificate's")
