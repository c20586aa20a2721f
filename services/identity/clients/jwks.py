"""The session issuer's public keys: fetched once for all who wait, kept while good, never fetched in a flood.

An unknown key id costs at most one fetch in thirty seconds, however many are made up; keys that can't be refreshed
stay good for twenty minutes, then nothing is accepted.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import httpx
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from services._mesh import compact
from services._mesh.clock import monotonic
from services._mesh.errors import Unavailable, dependency_down
from services._mesh.limits import BoundedCache
from services.identity.model.session import ALGORITHMS, SessionInvalid, read_header

log = logging.getLogger(__name__)

COOLDOWN_SECONDS = 30.0
# The process asks for the keys this often by itself, so that no call waits for them.
KEEP_SECONDS = 240.0
FRESH_SECONDS = 300.0
LAST_GOOD_SECONDS = 20 * 60.0
FETCH_SECONDS = 5.0
MAX_BYTES = 64 * 1024
MAX_KEYS = 20
_UNKNOWN_KIDS = 1000
_RSA_BITS = range(2048, 8193)
_TYPES = {"ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519"), "RS256": ("RSA", None)}

Key = ECKey | OKPKey | RSAKey
_KINDS: dict[str, type[ECKey] | type[OKPKey] | type[RSAKey]] = {"ES256": ECKey, "EdDSA": OKPKey, "RS256": RSAKey}
Keys = dict[str, tuple[str, Key]]


class _Pinned(JWSRegistry):
    """The one algorithm of a key. Projects publish "EdDSA", and joserfc would warn each time that RFC 9864 has a more
    exact name for it.
    """

    def __init__(self, algorithm: str) -> None:
        super().__init__(algorithms=[algorithm])
        self._pinned = algorithm

    def get_alg(self, name: str) -> Any:
        if name != self._pinned:
            raise UnsupportedAlgorithmError(f"{name} isn't the algorithm of this key")
        return self.algorithms[name]


_REGISTRIES = {name: _Pinned(name) for name in ALGORITHMS}


class SessionKeys:
    """The public keys of one issuer, by key id, each with its pinned algorithm."""

    def __init__(self, address: str, ca: Path | None) -> None:
        self._address = address
        self._verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca)) if ca else True
        self._keys: Keys = {}
        self._unknown: BoundedCache[str, bool] = BoundedCache(_UNKNOWN_KIDS)
        self._good_at = -LAST_GOOD_SECONDS
        self._tried_at = -COOLDOWN_SECONDS
        self._fetching: asyncio.Task[None] | None = None
        self._answers = 0
        self.fetches = 0

    async def keep(self) -> None:
        """Fetch the keys before they are old, for as long as the process runs."""
        while True:
            await self._refresh()
            await asyncio.sleep(KEEP_SECONDS if self._age() < COOLDOWN_SECONDS else COOLDOWN_SECONDS)

    async def claims(self, token: str) -> dict[str, Any]:
        """The claims of a token that one of the keys signed. Raises SessionInvalid, Unavailable."""
        kid, algorithm = read_header(token)
        pinned, key = await self._key(kid)
        if pinned != algorithm:
            raise SessionInvalid("algorithm")
        try:
            verified = jws.deserialize_compact(token, key, registry=_REGISTRIES[pinned])
            return compact.members(verified.payload or b"")
        except (JoseError, ValueError) as error:
            raise SessionInvalid("signature") from error

    async def _key(self, kid: str) -> tuple[str, Key]:
        known, answered = self._keys.get(kid), self._answers
        if self._age() > FRESH_SECONDS or (known is None and not self._unknown.get(kid)):
            await self._refresh(wait=known is None or self._age() > LAST_GOOD_SECONDS)
            known = self._keys.get(kid)
        if self._age() > LAST_GOOD_SECONDS:
            raise _unreachable()
        if known is None:
            if self._answers > answered:  # The issuer was asked for this one, and need not be asked again.
                self._unknown.put(kid, True, FRESH_SECONDS)
            raise SessionInvalid("unknown key")
        return known

    def _age(self) -> float:
        return monotonic() - self._good_at

    async def _refresh(self, *, wait: bool = True) -> None:
        """Fetch the keys, unless that was tried a moment ago; all who wait share one fetch, which none of them ends."""
        if self._fetching is None:
            if monotonic() - self._tried_at < COOLDOWN_SECONDS:
                return
            self._tried_at = monotonic()
            self._fetching = asyncio.create_task(self._fetch_once(), name="session keys")
        if wait:
            await asyncio.shield(self._fetching)

    async def _fetch_once(self) -> None:
        self.fetches += 1
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                self._keys = lint(compact.members(await self._fetch()))
            self._unknown.clear()
            self._good_at = monotonic()
            self._answers += 1
        except (httpx.HTTPError, OSError, ValueError) as error:
            log.warning("the session keys can't be fetched, and the last good ones stand: %s", _why(error))
        finally:
            self._fetching = None

    async def _fetch(self) -> bytes:
        body = b""
        async with (
            httpx.AsyncClient(verify=self._verify, timeout=FETCH_SECONDS, follow_redirects=False) as client,
            client.stream("GET", self._address) as answer,
        ):
            if answer.status_code != 200:
                raise ValueError(f"the answer is {answer.status_code}")
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) > MAX_BYTES:
                    raise ValueError("the answer is too large")
        return body


def lint(document: dict[str, Any]) -> Keys:
    """The keys of a JWKS document. Raises ValueError for a set that no careful issuer publishes."""
    entries = document.get("keys")
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError("not a list of a few keys")
    found: Keys = {}
    for entry in entries:
        if not isinstance(entry, dict):
            raise ValueError("not a key")
        kid, algorithm = entry.get("kid"), entry.get("alg")
        if not isinstance(kid, str) or not kid or kid in found:
            raise ValueError("each key needs an id of its own")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise ValueError("each key pins one of the accepted algorithms")
        found[kid] = (algorithm, _import(entry, algorithm))
    return found


def _import(entry: dict[str, Any], algorithm: str) -> Key:
    kind, curve = _TYPES[algorithm]
    # Whatever symmetric or private material is in a public set, everybody knows by now.
    if entry.get("kty") != kind or (curve and entry.get("crv") != curve) or entry.keys() & {"d", "k", "p", "q"}:
        raise ValueError("the key isn't a public one of its algorithm's type")
    if entry.get("use", "sig") != "sig" or entry.get("key_ops", ["verify"]) != ["verify"]:
        raise ValueError("the key isn't for signatures")
    try:
        if algorithm == "RS256" and _bits(entry["n"]) not in _RSA_BITS:
            raise ValueError(f"an RSA key has {_RSA_BITS.start} to {_RSA_BITS.stop - 1} bits")
        return _KINDS[algorithm].import_key(entry)
    except (JoseError, KeyError, TypeError) as error:
        raise ValueError("the key can't be read") from error


def _bits(modulus: str) -> int:
    return int.from_bytes(compact.octets(modulus)).bit_length()


def _why(error: Exception) -> str:
    """What we say of it: our own rules by their words, anything else by its kind, since it may quote the answer."""
    return str(error) if type(error) is ValueError else type(error).__name__


def _unreachable() -> Unavailable:
    return dependency_down("session issuer")
