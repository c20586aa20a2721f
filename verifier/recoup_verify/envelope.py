"""Opens DSSE envelopes: what a key of the key manifest signed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recoup_verify.documents import Disproved, decode, shape, shaped
from recoup_verify.log import RangedKey, is_signed_by

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_ENVELOPE, _SIGNATURE = shape(texts="payloadType payload", lists="signatures"), shape(texts="keyid sig")


def open_envelope(envelope: Mapping[str, Any], keys: Mapping[str, RangedKey]) -> tuple[bytes, RangedKey]:
    """The statement, and the key that signed it. Raises Disproved, CannotTell."""
    found = shaped(envelope, "the envelope", _ENVELOPE)
    if found["payloadType"] != PAYLOAD_TYPE or len(found["signatures"]) != 1:
        raise Disproved("the envelope must hold one in-toto statement with one signature")
    signature = shaped(found["signatures"][0], "the envelope's signature", _SIGNATURE)
    payload, raw = decode(found["payload"], "the envelope's payload"), decode(signature["sig"], "its signature")
    if signature["keyid"] not in keys:
        raise Disproved("the key manifest doesn't list the key that the envelope names")
    key = keys[signature["keyid"]]
    if not is_signed_by(key.public, raw, _pre_authentication(payload)):
        raise Disproved("the envelope's signature is wrong: the statement or the signature was changed")
    return payload, key


def _pre_authentication(payload: bytes) -> bytes:
    """What DSSE v1 signs: "DSSEv1", the lengths, the type and the payload."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
