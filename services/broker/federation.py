"""The broker as an issuer of its own, whom Azure and Google Cloud trust: an assertion for one connection.

The documents that the clouds read are made by `python -m services.broker.federation --issuer URL --out FOLDER KEY...`,
and served by the operator at the issuer's address, like those of any issuer (OpenID Connect Discovery 1.0). A key is
exchanged by naming both until nobody has the old documents any more.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from joserfc import jwt
from joserfc.jwk import RSAKey

from services._mesh.aws import Failure
from services.broker.clients import AssumeFailed

# Azure takes no other algorithm of an external issuer.
_ALGORITHM, _LEAST_BITS = "RS256", 2048
# Azure and Google take an assertion once it is there; nobody needs it longer.
_SECONDS = 300

log = logging.getLogger(__name__)


class Issuer:
    """Signs assertions. The key is read once: the broker is restarted for another one."""

    def __init__(self, issuer: str, key: RSAKey) -> None:
        self.url, self._key, self._kid = issuer, key, key.thumbprint()

    @classmethod
    def load(cls, issuer: str, path: Path) -> Issuer:
        """The issuer whose key lies in a PEM file. Raises ValueError where it is no RSA key that is large enough."""
        return cls(issuer, _read(path))

    def assertion(self, subject: str, audience: str) -> str:
        """That we are `subject`, to `audience` alone, for five minutes (RFC 7523)."""
        now = int(time.time())
        claims = {
            "iss": self.url, "sub": subject, "aud": audience, "iat": now, "nbf": now, "exp": now + _SECONDS,
            "jti": str(uuid4()),
        }  # fmt: skip
        header = {"alg": _ALGORITHM, "typ": "JWT", "kid": self._kid}
        return jwt.encode(header, claims, self._key, algorithms=[_ALGORITHM])


def own_assertion(issuer: Issuer | None, subject: str, audience: str, named: str) -> str:
    """Who a connection without a secret is: `subject` comes from the grant, never from what was sealed, so that nobody
    is another tenant's. `named` is the issuer that the customer was told to trust. Raises AssumeFailed where we're
    none, or another one: the trust that the customer has made then isn't in us, and may be in somebody else.
    """
    if issuer is None:
        raise AssumeFailed(Failure.DENIED, "NoIssuer")
    if named != issuer.url:
        log.error("federation_issuer under [scanner] is %s, and issuer under [federation] is %s", named, issuer.url)
        raise AssumeFailed(Failure.DENIED, "OtherIssuer")
    return issuer.assertion(subject, audience)


def documents(issuer: str, keys: Sequence[RSAKey]) -> dict[str, dict[str, Any]]:
    """What is served at the issuer's address: each document by its path."""
    public = [
        {**key.as_dict(private=False), "kid": key.thumbprint(), "alg": _ALGORITHM, "use": "sig"} for key in keys
    ]  # fmt: skip
    discovery = {
        "issuer": issuer,
        "jwks_uri": f"{issuer}/jwks.json",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [_ALGORITHM],
    }
    return {".well-known/openid-configuration": discovery, "jwks.json": {"keys": public}}


def _read(path: Path) -> RSAKey:
    try:
        key = RSAKey.import_key(path.read_bytes())
    except Exception as error:  # Its text could hold some of the key.
        raise ValueError(f"{path} must hold an RSA private key in PEM: {type(error).__name__}") from None
    private: Any = key.private_key
    if private is None or private.key_size < _LEAST_BITS:
        raise ValueError(f"{path} must hold an RSA private key of at least {_LEAST_BITS} bits")
    return key


def main(arguments: Sequence[str]) -> int:
    """Write the documents."""
    parser = argparse.ArgumentParser(description="Write what Azure and Google Cloud read of the broker as an issuer")
    parser.add_argument("--issuer", required=True, help="its https address, as in the broker's settings")
    parser.add_argument("--out", required=True, type=Path, help="the folder that is served there")
    parser.add_argument("keys", nargs="+", type=Path, help="the broker's key, and those that it had or will have")
    given = parser.parse_args(arguments)
    try:
        made = documents(given.issuer, [_read(path) for path in given.keys])
        for name, document in made.items():
            (given.out / name).parent.mkdir(parents=True, exist_ok=True)
            (given.out / name).write_text(json.dumps(document, indent=2) + "\n")
    except (ValueError, OSError) as error:
        print(f"can't write the documents: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
