"""Session tokens and one-time codes of sign-ins: an organization and 256 random bits, of which we keep a digest. Pure.

The organization in it is no secret and proves nothing: it says where to look, so that no policy lets anybody see a
row of an organization that they don't name.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from uuid import UUID

SESSION_PREFIX, CODE_PREFIX = "rcs_", "rcc_"
_RANDOM_BYTES = 32


def new_token(prefix: str, organization_id: UUID) -> str:
    """A token that nobody can guess."""
    return prefix + _encoded(organization_id.bytes + os.urandom(_RANDOM_BYTES))


def digest(token: str) -> bytes:
    """What is kept of it: SHA-256."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def organization_of(prefix: str, token: str) -> UUID | None:
    """The organization that a token names; None for what isn't one of ours in its one spelling."""
    if not token.startswith(prefix) or not token.isascii():
        return None
    try:
        raw = base64.b64decode(token.removeprefix(prefix), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return UUID(bytes=raw[:16]) if len(raw) == 16 + _RANDOM_BYTES and _encoded(raw) == token[len(prefix) :] else None


def challenge_of(verifier: str) -> str:
    """The S256 challenge of a verifier (RFC 7636); of none, none."""
    return _encoded(hashlib.sha256(verifier.encode()).digest()).rstrip("=") if verifier else ""


def answers(verifier: str, challenge: str) -> bool:
    """Whether a verifier is the one of a challenge; where there was no challenge, there must be no verifier."""
    return hmac.compare_digest(challenge_of(verifier).encode(), challenge.encode())


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()
