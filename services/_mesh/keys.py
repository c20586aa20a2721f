"""Reads the Ed25519 private keys that evidence is signed with: receipts, statements, heads, cosignatures."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The key in a PEM file (PKCS #8). Raises OSError; ValueError, which names no file, for whatever else is in it."""
    content = path.read_bytes()
    try:
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("must hold an Ed25519 private key, as PEM (PKCS #8)")
    return key
