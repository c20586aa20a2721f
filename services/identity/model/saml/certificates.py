"""The certificates that an identity provider signs with: pinned when its metadata is imported, and nothing else.

No chain is built and no authority is asked: what counts is the key. Pure.
"""

from __future__ import annotations

import base64
import binascii
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.identity.model.saml.documents import SamlRefused

MIN_RSA_BITS, MAX_RSA_BITS = 2048, 8192
MAX_CERTIFICATES = 5
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


def read_certificate(text: str) -> str:
    """The certificate in base64 DER, as metadata has it, or in PEM; returned as PEM. Raises SamlRefused."""
    bare = "".join(line for line in text.strip().splitlines() if not line.startswith("-----"))
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode("".join(bare.split()), validate=True))
        _require_strong(certificate)
    except (ValueError, binascii.Error, TypeError) as error:
        raise SamlRefused("CERTIFICATE", "A signing certificate isn't base64 of an X.509 certificate.") from error
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _require_strong(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        return
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return
    raise SamlRefused(
        "WEAK_KEY", f"A signing key must be RSA with at least {MIN_RSA_BITS} bits, or on P-256, P-384 or P-521."
    )


def load(pem: str) -> x509.Certificate:
    """The certificate of a stored PEM text."""
    return x509.load_pem_x509_certificate(pem.encode())


def fingerprint(pem: str) -> str:
    """SHA-256 of the certificate, in hex: how people and events name it."""
    return load(pem).fingerprint(hashes.SHA256()).hex()


def expires_at(pem: str) -> datetime:
    """When the certificate ends; from then on nothing that it signs is accepted."""
    return load(pem).not_valid_after_utc
