"""What people give to connect Azure: what is wrong with it, and the way out. Pure; never says what a secret is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.scanner.model.connection import NewConnection

_SECRET = re.compile(r"[!-~]{16,256}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----[A-Za-z0-9+/=\s]{1,12000}?-----END \1-----")
_KEYS = ("PRIVATE KEY", "RSA PRIVATE KEY")
_LEAST_BITS, _MOST_BITS = 2048, 8192
_BOTH = "must hold a CERTIFICATE and its RSA PRIVATE KEY, both in PEM"
_AGAIN = "copy it again from the application's page, Certificates & secrets"


def azure_faults(given: NewConnection, now: datetime) -> Iterator[tuple[str, str]]:
    """Each field that is wrong, with its rule and the way out."""
    yield from directory_faults(given)
    secret = given.identity.secret
    client_secret, certificate = secret.get("client_secret", ""), secret.get("certificate", "")
    if bool(client_secret) == bool(certificate):
        yield (
            "azure_client_secret",
            "must be given, or azure_certificate in its stead, and not both; give one of the two",
        )
    elif client_secret:
        yield from _secret_faults(client_secret)
    elif rule := certificate_fault(certificate, now):
        yield "azure_certificate", rule


def directory_faults(given: NewConnection) -> Iterator[tuple[str, str]]:
    """What is wrong with who we are to be, whatever shows it."""
    public = given.identity.public
    if public.get("tenant_id", "").lower() == public.get("client_id", "").lower():
        yield "azure.client_id", "must be the application's id, and is the directory's; copy it from the overview"


def _secret_faults(secret: str) -> Iterator[tuple[str, str]]:
    if secret != secret.strip():
        yield "azure_client_secret", "has a blank or a line break before or after it; copy it again without"
    elif _UUID.fullmatch(secret):
        yield (
            "azure_client_secret",
            f"must be the secret's value, and is its id; {_AGAIN}, column Value, or make a new one",
        )
    elif not _SECRET.fullmatch(secret):
        yield "azure_client_secret", f"must be 16 to 256 characters without blanks; {_AGAIN}, or make a new one"


def certificate_fault(text: str, now: datetime) -> str:
    """What is wrong with a certificate and its key in PEM; empty where nothing is."""
    kinds = [found[1] for found in _PEM.finditer(text)]
    if wrong := [kind for kind in kinds if kind not in (*_KEYS, "CERTIFICATE")]:
        return f"{_BOTH}, and has a {wrong[0]}; {_convert(wrong[0])}"
    keys = [kind for kind in kinds if kind in _KEYS]
    if len(keys) != 1 or "CERTIFICATE" not in kinds:
        held = f"has {' and '.join(f'a {kind}' for kind in kinds)}" if kinds else "has nothing in PEM"
        return f"{_BOTH}, and {held}; put both into one file"
    try:
        # What a whole validation takes grows with the key; the broker does it, in a thread, with a deadline.
        key = load_pem_private_key(text.encode(), None, unsafe_skip_rsa_key_validation=True)
        certificate = x509.load_pem_x509_certificate(text.encode())
        ends_at, is_its = certificate.not_valid_after_utc, key.public_key() == certificate.public_key()
    except (ValueError, TypeError, OverflowError, x509.InvalidVersion):  # Its text could hold some of the key.
        return f"{_BOTH}, and can't be read; export it again"
    except Exception as error:  # cryptography's own, for algorithms that it doesn't know.
        if type(error).__module__.partition(".")[0] != "cryptography":
            raise
        return f"{_BOTH}, and is of a kind that isn't known; make one with RSA"
    if not isinstance(key, RSAPrivateKey) or not _LEAST_BITS <= key.key_size <= _MOST_BITS:
        return f"{_BOTH}, of {_LEAST_BITS} to {_MOST_BITS} bits; make a new one"
    if not is_its:
        return f"{_BOTH}, and the key is another certificate's; export the two together"
    if ends_at <= now:
        return f"is expired since {ends_at:%Y-%m-%d}; make a new one and upload it to the application"
    return ""


def _convert(kind: str) -> str:
    if kind == "ENCRYPTED PRIVATE KEY":
        return "take its password off (openssl pkey), as it is sealed here"
    if kind == "EC PRIVATE KEY":
        return "make one with RSA: Entra takes no other"
    return "export the certificate with its private key"
