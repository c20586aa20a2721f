"""Signs and checks the compact JWTs of the mesh: one algorithm, one type per purpose, keys by issuer and
key id.

What the claims mean is the business of `passports` and `grants`. RFC 7515, 7519, 8725 (typ per kind of
token) and 9864 ("Ed25519" as a fully specified algorithm name).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services._mesh import compact
from services._mesh.clock import monotonic
from services._mesh.config import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from joserfc.jwk import OKPKey

ALGORITHM = "Ed25519"
MAX_TOKEN_BYTES = 8192
MAX_LIFETIME_SECONDS = 300
# What clocks of two machines may differ by; the health check takes a process out at the same difference.
SKEW_SECONDS = 2
LOCAL_ENV = "local.invalid"
SPIFFE_PREFIX = "spiffe://recoup/"
_LOOK_SECONDS = 1.0
_log = logging.getLogger(__name__)
_SHAPE = re.compile(r"[A-Za-z0-9_-]{1,1024}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")


class TokenInvalid(Exception):
    """The token can't be accepted. The text is for our own log; a caller must not learn which check failed."""


class TokenExpired(TokenInvalid):
    """The token was good once."""


@dataclass(frozen=True)
class Unverified:
    """What a token says about itself, to choose the key by; nothing of it is trusted before the signature
    is checked.
    """

    header: Mapping[str, Any]
    claims: Mapping[str, Any]


class SigningKey:
    """A process's own Ed25519 private key. `env` is stamped on all that the local profile signs.

    A key from a file is read again when the file changes, so that it is rotated without a restart; a file that holds no
    key any more leaves the last one in force.
    """

    def __init__(self, key: OKPKey, env: str | None, path: Path | None = None) -> None:
        self._key, self._env, self._path = key, env, path
        self._kid: str = key.thumbprint()
        self._stamp = _stamp(path) if path else None
        self._looked_at = monotonic()

    @classmethod
    def load(cls, path: Path, profile: str) -> SigningKey:
        """The key in the PEM file (PKCS #8). Raises ConfigError if it is another kind of key, or none."""
        return cls(_read_key(path), LOCAL_ENV if profile == "local" else None, path)

    @property
    def kid(self) -> str:
        """Its RFC 7638 thumbprint."""
        self._look()
        return self._kid

    def sign(self, typ: str, claims: Mapping[str, Any]) -> str:
        """The compact JWT of type `typ`."""
        from joserfc import jwt

        self._look()
        body = dict(claims) if self._env is None else {**claims, "env": self._env}
        header = {"alg": ALGORITHM, "typ": typ, "kid": self._kid}
        return jwt.encode(header, body, self._key, algorithms=[ALGORITHM])

    def public_jwks(self) -> dict[str, Any]:
        """The JWKS document that belongs into the trust folders of others."""
        public = {**self._key.as_dict(private=False), "kid": self._kid, "alg": ALGORITHM, "use": "sig"}
        return {"keys": [public]}

    def _look(self) -> None:
        """Read the file again if it changed, which is looked for once a second."""
        if self._path is None or monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = monotonic()
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        try:
            key = _read_key(self._path)
        except (ConfigError, OSError) as error:
            _log.error("the signing key's file changed and holds no key: %s", error)
            return
        self._key, self._kid, self._stamp = key, key.thumbprint(), stamp


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read_key(path: Path) -> OKPKey:
    from joserfc.errors import JoseError
    from joserfc.jwk import OKPKey

    try:
        key = OKPKey.import_key(path.read_bytes())
    except (JoseError, ValueError, TypeError) as error:
        raise _no_key(path) from error
    if not key.is_private or key.curve_name != "Ed25519":
        raise _no_key(path)
    return key


def _no_key(path: Path) -> ConfigError:
    return ConfigError(path, "(file)", "must hold an Ed25519 private key", "Put one there, as PEM (PKCS #8).")


def peek(token: str, typ: str) -> Unverified:
    """Header and claims of a well-formed token of type `typ`, before any signature check. Raises
    TokenInvalid.
    """
    if len(token) > MAX_TOKEN_BYTES or not _SHAPE.fullmatch(token):
        raise TokenInvalid("shape")
    first, second, third = token.split(".")
    header, claims = _json_part(first), _json_part(second)
    _strict_decode(third)
    # The header may say nothing else: no jwk, jku, x5u, crit, and the algorithm is ours, not the token's
    # choice.
    if header.keys() != {"alg", "typ", "kid"} or header["alg"] != ALGORITHM or header["typ"] != typ:
        raise TokenInvalid("header")
    return Unverified(header, claims)


def check_signature(token: str, key: OKPKey) -> None:
    """Raises TokenInvalid unless `key` signed the token, which `peek` has looked at.

    By the primitive itself, which saves a sixth: whatever a library would look at before it, `peek` has.
    """
    invalid, kind = _primitive()
    signed, _, signature = token.rpartition(".")
    public = key.public_key
    if not isinstance(public, kind):
        raise TokenInvalid("key")
    try:
        public.verify(_strict_decode(signature), signed.encode("ascii"))
    except (invalid, ValueError) as error:
        raise TokenInvalid("signature") from error


@functools.cache
def _primitive() -> tuple[type[Exception], type[Ed25519PublicKey]]:
    """Imported when first needed, as all of cryptography here, and looked up once."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    return InvalidSignature, Ed25519PublicKey


def check_times(claims: Mapping[str, Any], now: float) -> None:
    """Raises unless `iat`, `nbf` and `exp` are present, span at most five minutes, and `now` lies between
    them.
    """
    iat, nbf, exp = (integer(claims, key) for key in ("iat", "nbf", "exp"))
    if exp - iat > MAX_LIFETIME_SECONDS or exp <= iat:
        raise TokenInvalid("lifetime")
    if iat > now + SKEW_SECONDS or nbf > now + SKEW_SECONDS:
        raise TokenInvalid("not yet valid")
    if now >= exp:
        raise TokenExpired("expired")


def check_environment(claims: Mapping[str, Any], profile: str) -> None:
    """Raises TokenInvalid where production is shown what the local profile signed."""
    if profile != "local" and LOCAL_ENV in json.dumps([claims.get("env"), claims.get("iss")]):
        raise TokenInvalid("local token")


def text(claims: Mapping[str, Any], key: str) -> str:
    """The non-empty string claim. Raises TokenInvalid."""
    value = claims.get(key)
    if not isinstance(value, str) or not value:
        raise TokenInvalid(f"claim {key}")
    return value


def integer(claims: Mapping[str, Any], key: str) -> int:
    """The integer claim. Raises TokenInvalid."""
    value = claims.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TokenInvalid(f"claim {key}")
    return value


def confirmed_thumbprint(claims: Mapping[str, Any]) -> str:
    """The certificate that the token is bound to (RFC 8705). Raises TokenInvalid where there is none."""
    cnf = claims.get("cnf")
    return text(cnf, "x5t#S256") if isinstance(cnf, dict) else text({}, "cnf")


def spiffe(process: str) -> str:
    """The SPIFFE id of a process."""
    return SPIFFE_PREFIX + process


def process_of(spiffe_id: str) -> str:
    """The process that a SPIFFE id names. Raises TokenInvalid if it isn't one of this mesh."""
    if not spiffe_id.startswith(SPIFFE_PREFIX):
        raise TokenInvalid("issuer")
    return spiffe_id.removeprefix(SPIFFE_PREFIX)


def thumbprint(certificate_der: bytes) -> str:
    """RFC 8705 x5t#S256 of a certificate."""
    return base64.urlsafe_b64encode(hashlib.sha256(certificate_der).digest()).rstrip(b"=").decode()


def _json_part(part: str) -> dict[str, Any]:
    try:
        return compact.members(compact.octets(part))
    except ValueError as error:
        raise TokenInvalid("json") from error


def _strict_decode(part: str) -> bytes:
    try:
        return compact.octets(part)
    except ValueError as error:
        raise TokenInvalid("base64url") from error
