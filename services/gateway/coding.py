"""Content codings, gzip and zstd: of bodies that come, within their limit, and of answers that are worth it."""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import Any

from backports import zstd

from services._mesh.errors import Exhausted, Invalid, Reason

# The one that is taken where both are accepted alike stands first.
CODINGS = ("zstd", "gzip")
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
# As RFC 9659 limits it for HTTP: 8 MiB.
_ZSTD_WINDOW_LOG = 23
# What is smaller gains less than its header costs; what is larger isn't worked on in the event loop.
_WORTH_BYTES, _BESIDE_BYTES = 1024, 32 * 1024
_TEXTS = re.compile(r"(text/|application/([a-z.-]+\+)?json\b|application/([a-z.-]+\+)?xml\b)")
_PLAIN = ("", "identity")
# Of a list of what is accepted: a head has room for thousands, and browsers name a dozen.
_MOST_NAMES = 100
_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def decoded(body: bytes, coding: str, limit: int) -> bytes:
    """A body as it was before its coding. Raises Exhausted beyond `limit` bytes, Invalid for another coding or a body
    that isn't of it.
    """
    name = coding.strip().lower().removeprefix("x-")
    if name in _PLAIN:
        return body
    if name not in CODINGS:
        raise Invalid(
            Reason.ERROR_REASON_MEDIA_TYPE_UNSUPPORTED,
            f"Send the body as it is, or with one Content-Encoding of {', '.join(CODINGS)}.",
            {"content_type": coding[:100]},
        )
    reader: Any = zlib.decompressobj(_GZIP_WINDOW) if name == "gzip" else _zstd_reader()
    try:
        # Never more than the limit is unpacked, however small it came.
        plain: bytes = reader.decompress(body, limit + 1)
    except (zlib.error, zstd.ZstdError, ValueError) as error:
        raise _malformed(name) from error
    if len(plain) > limit:
        raise Exhausted(Reason.ERROR_REASON_TOO_LARGE, f"The body is larger than {limit} bytes.", {"limit": str(limit)})
    if not reader.eof or reader.unused_data:
        raise _malformed(name)
    return plain


def _zstd_reader() -> zstd.ZstdDecompressor:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


def _malformed(name: str) -> Invalid:
    return Invalid(Reason.ERROR_REASON_BODY_MALFORMED, f"The body isn't one of {name}.", {"position": "0"})


def chosen(accepted: str) -> str:
    """The coding that `Accept-Encoding` prefers of ours; empty for none."""
    given = weights(accepted)
    best = max(CODINGS, key=lambda name: given.get(name, given.get("*", 0.0)))
    weight = given.get(best, given.get("*", 0.0))
    return best if 0 < weight >= given.get("identity", 0.0) else ""


def weights(accepted: str) -> dict[str, float]:
    """What a list of `Accept` or `Accept-Encoding` names, each with its weight (RFC 9110, 12.4.2): of the first hundred
    in it.
    """
    found: dict[str, float] = {}
    for each in accepted.lower().split(",", _MOST_NAMES)[:_MOST_NAMES]:
        name, *parameters = each.split(";")
        found[name.strip()] = min((_weight(parameter.strip()) for parameter in parameters), default=1.0)
    return found


def _weight(parameter: str) -> float:
    """One that is no weight changes none; a weight that can't be read is nothing."""
    if not parameter.startswith("q="):
        return 1.0
    return float(parameter[2:]) if _WEIGHT.fullmatch(parameter[2:]) else 0.0


def is_worth(media_type: str, body: bytes) -> bool:
    """Whether a coding makes it smaller by much."""
    return len(body) >= _WORTH_BYTES and _TEXTS.match(media_type) is not None


async def encoded(body: bytes, coding: str) -> bytes:
    """The body under its coding."""
    if len(body) > _BESIDE_BYTES:
        return await asyncio.to_thread(encode, body, coding)
    return encode(body, coding)


def encode(body: bytes, coding: str) -> bytes:
    """The same, in this thread."""
    if coding == "zstd":
        return zstd.compress(body, level=3)
    packer = zlib.compressobj(4, zlib.DEFLATED, _GZIP_WINDOW)
    return packer.compress(body) + packer.flush()
