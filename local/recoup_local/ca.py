"""A certificate authority for one machine: one certificate for each process, told by its SPIFFE URI.

Everything that it signs carries `local.invalid`, which the production profile refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOCAL = "local.invalid"
_PERIOD = timedelta(days=30)
_BACK = timedelta(minutes=5)


@dataclass(frozen=True)
class Issued:
    """The files of one certificate."""

    cert: Path
    key: Path


class LocalCa:
    """The authority. Its key stays in its own folder, which no process is told about."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.cert_file, self._key_file = folder / "ca.pem", folder / "ca.key"
        if not self._key_file.exists():
            self._create()
        self._key = load_pem_private_key(self._key_file.read_bytes(), None)
        self._cert = x509.load_pem_x509_certificate(self.cert_file.read_bytes())

    def issue(self, spiffe: str, folder: Path, *, dns: tuple[str, ...] = ()) -> Issued:
        """A certificate for `spiffe://recoup/<spiffe>`, good on loopback under its own name too."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in (*dns, "localhost")]
        names += [x509.IPAddress(ip_address("127.0.0.1")), x509.UniformResourceIdentifier(f"spiffe://recoup/{spiffe}")]
        builder = (
            self._builder(spiffe, key)
            .issuer_name(self._cert.subject)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
        )
        certificate = builder.sign(self._key, hashes.SHA256())  # type: ignore[arg-type]  # ours is an EC key
        issued = Issued(folder / "tls.pem", folder / "tls.key")
        write_secret(issued.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        issued.cert.write_bytes(certificate.public_bytes(Encoding.PEM))
        return issued

    def _create(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            self._builder(f"Recoup local CA ({LOCAL})", key)
            .issuer_name(_name(f"Recoup local CA ({LOCAL})"))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_CA_USAGE, critical=True)
        )
        write_secret(self._key_file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.cert_file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))

    @staticmethod
    def _builder(common_name: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACK)
            .not_valid_after(now + _PERIOD)
        )


_CA_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def write_secret(path: Path, content: bytes | str) -> Path:
    """Write a file that only we may read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
