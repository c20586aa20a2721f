"""The session issuer's public keys: fetched once for all who wait, kept while good, never fetched in a flood.

An unknown key id costs at most one fetch in thirty seconds, however many are made up; keys that can't be refreshed
stay good for twenty minutes, then nothing is accepted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from pathlib import Path
from typing import Any

import httpx
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from services._mesh.clock import monotonic
from services._mesh.errors import Unavailable, dependency_down
from services.identity.model.session import ALGORITHMS, SessionInvalid, read_header

log = logging.getLogger(__name__)

COOLDOWN_SECONDS = 30.0
FRESH_SECONDS = 300.0
LAST_GOOD_SECONDS = 20 * 60.0
FETCH_SECONDS = 5.0
MAX_BYTES = 64 * 1024
MAX_KEYS = 20
_MIN_RSA_BITS = 2048

Key = ECKey | OKPKey | RSAKey


class SessionKeys:
    """The public keys of one issuer, by key id, each with its pinned algorithm."""

    def __init__(self, address: str, ca: Path | None) -> None:
        self._address = address
        self._verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca)) if ca else True
        self._keys: dict[str, tuple[str, Key]] = {}
        self._good_at = -LAST_GOOD_SECONDS
        self._tried_at = -COOLDOWN_SECONDS
        self._fetching = asyncio.Lock()
        self.fetches = 0

    async def claims(self, token: str) -> dict[str, Any]:
        """The claims of a token that one of the keys signed. Raises SessionInvalid, Unavailable."""
        kid, algorithm = read_header(token)
        pinned, key = await self._key(kid)
        if pinned != algorithm:
            raise SessionInvalid("algorithm")
        try:
            verified = jws.deserialize_compact(token, key, registry=JWSRegistry(algorithms=[pinned]))
            claims = json.loads(verified.payload or b"")
        except (JoseError, ValueError) as error:
            raise SessionInvalid("signature") from error
        if not isinstance(claims, dict):
            raise SessionInvalid("claims")
        return claims

    async def _key(self, kid: str) -> tuple[str, Key]:
        now = monotonic()
        known = self._keys.get(kid)
        if known is None or now - self._good_at > FRESH_SECONDS:
            await self._refresh()
            known = self._keys.get(kid)
        if monotonic() - self._good_at > LAST_GOOD_SECONDS:
            raise _unreachable()
        if known is None:
            raise SessionInvalid("unknown key")
        return known

    async def _refresh(self) -> None:
        """Fetch the keys, unless that was tried a moment ago; those who wait share one fetch."""
        async with self._fetching:
            if monotonic() - self._tried_at < COOLDOWN_SECONDS:
                return
            self._tried_at = monotonic()
            self.fetches += 1
            try:
                self._keys = lint(await self._fetch())
                self._good_at = monotonic()
            except (httpx.HTTPError, ValueError, KeyError, JoseError) as error:
                log.warning("the session keys can't be fetched: %s", type(error).__name__)

    async def _fetch(self) -> dict[str, Any]:
        async with httpx.AsyncClient(verify=self._verify, timeout=FETCH_SECONDS, follow_redirects=False) as client:
            answer = await client.get(self._address)
            answer.raise_for_status()
            if len(answer.content) > MAX_BYTES:
                raise ValueError("too large")
            document: dict[str, Any] = answer.json()
            return document


def lint(document: dict[str, Any]) -> dict[str, tuple[str, Key]]:
    """The keys of a JWKS document. Raises ValueError for a set that no careful issuer publishes."""
    entries = document["keys"]
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError("not a list of a few keys")
    found: dict[str, tuple[str, Key]] = {}
    for entry in entries:
        kid, algorithm = entry["kid"], entry.get("alg")
        if kid in found or algorithm not in ALGORITHMS or "d" in entry:
            raise ValueError(f"key {kid} has a twin, no accepted algorithm, or a private part")
        found[kid] = (algorithm, _import(entry, algorithm))
    return found


def _import(entry: dict[str, Any], algorithm: str) -> Key:
    wanted = {"ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519"), "RS256": ("RSA", None)}[algorithm]
    if entry.get("kty") != wanted[0] or (wanted[1] and entry.get("crv") != wanted[1]):
        raise ValueError("the key isn't of its algorithm's type")
    if algorithm == "ES256":
        return ECKey.import_key(entry)
    if algorithm == "EdDSA":
        return OKPKey.import_key(entry)
    key = RSAKey.import_key(entry)
    if key.public_key.key_size < _MIN_RSA_BITS:
        raise ValueError(f"an RSA key has at least {_MIN_RSA_BITS} bits")
    return key


def _unreachable() -> Unavailable:
    return dependency_down("session issuer")
