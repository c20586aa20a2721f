"""Reads the key manifest: which keys are good for which part of the log, which witnesses, how many must cosign.

And opens what its keys signed: DSSE envelopes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from recoup_verify.documents import CannotTell, Disproved, decode, shape, shaped
from recoup_verify.log import WITNESS, Key, Place, RangedKey, Trust, is_signed_by, parse_key, signed_by, whole_number

_WHAT = "the key manifest"
_CANNOT_BE = f"a line of {_WHAT} can't be"
_USES = ("root", "log", "receipt", "evidence", "witness", "quorum")
_MAX_LINES = 200
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_ENVELOPE = shape(texts="payloadType payload", signatures=[shape(texts="keyid sig")])


def trusted(keys: Sequence[str], witnesses: Sequence[str], quorum: Sequence[str]) -> Trust:
    """What --key, --witness and --quorum say. Raises CannotTell."""
    named = [parse_key(text, WITNESS) for text in witnesses]
    count = len({each.name for each in named})  # Two keys of one name are one witness.
    wanted = whole_number(quorum[0]) if quorum else count
    if wanted is None or (named and wanted > count):
        raise CannotTell("--quorum must be a number, and no larger than that of the witnesses that you name")
    return Trust.of(parse_key(keys[0]))._replace(witnesses=named, wanted=wanted)


def read_manifest(manifest: str, given: Key | Trust) -> Trust:
    """What a key manifest adds to the key that was given, which must have signed it. Raises Disproved."""
    trust = Trust.of(given)
    lines = manifest.rpartition("\n\n")[0].split("\n")
    name, version = lines[0].removesuffix("/keys"), "".join(lines[1:2])
    if version == "recoup-keys/v2" and trust.key.name in (name, f"{name}/root"):
        return _second(manifest, lines, trust._replace(name=name))
    # Version 1: the log's one key vouches for itself, and for receipt keys, with places of the first shard.
    text, _ = signed_by(manifest, [trust.key], _WHAT)
    if version != "recoup-keys/v1" or not text.startswith(f"{trust.key.name}/keys\n") or len(lines) < 3:
        raise Disproved(f"{_WHAT}'s text isn't that of this log")
    if any(not line.startswith("receipt ") for line in lines[2:]):
        raise Disproved(f"a line of {_WHAT} isn't a receipt key")
    return trust._replace(keys=_by_use(lines[2:], "0:"))


def _second(manifest: str, lines: Sequence[str], trust: Trust) -> Trust:
    """Version 2: the root vouches for all, and each of the log's keys in force agrees."""
    if len(lines) > _MAX_LINES or lines[0] != f"{trust.name}/keys":
        raise Disproved(f"{_WHAT}'s text isn't that of this log")
    pairs = [line.partition(" ")[::2] for line in lines[2:]]
    uses = [use for use, _ in pairs]
    if not {*uses} <= {*_USES} or sorted(uses, key=_USES.index) != uses or uses[:1] != ["root"]:
        raise Disproved(f"the lines of {_WHAT} aren't those of one, in their order")
    said = {use: [value for its, value in pairs if its == use] for use in _USES}
    keys = _by_use(lines[2:])
    try:
        root = parse_key(said["root"][0])
        witnesses = [parse_key(text, WITNESS) for text in said["witness"]]
    except CannotTell as error:
        raise Disproved(_CANNOT_BE) from error
    logs = list(keys["log"].values())
    signers = [root, *(Key(trust.name, each.public) for each in logs if each.end is None)]
    _, by = signed_by(manifest, signers, _WHAT)
    if root.name != f"{trust.name}/root" or {*by} != {*signers} or trust.key not in by:
        raise Disproved(f"{_WHAT} isn't signed by the key that you gave, its root and each key of the log in force")
    quorum = whole_number(said["quorum"][0]) if len(said["quorum"]) == len(said["root"]) == 1 else None
    twice = any(len({each[part] for each in witnesses}) != len(witnesses) for part in (0, 1))  # A name or a key.
    if quorum is None or quorum > len(witnesses) or twice:
        raise Disproved(_CANNOT_BE)
    return trust._replace(logs=logs, keys=keys, listed=witnesses, quorum=quorum, root=root)


def _by_use(lines: Sequence[str], shard: str = "") -> dict[str, dict[str, RangedKey]]:
    """The keys with their ranges by use and SHA-256; `shard` comes before each place. Raises Disproved."""
    found: dict[str, dict[str, RangedKey]] = {"log": {}, "receipt": {}, "evidence": {}}
    for line in lines:
        use, *words = line.split(" ")
        if use not in found:
            continue
        if len(words) != 4 or words[0] != "ed25519":
            raise Disproved(_CANNOT_BE)
        start, end = _place(shard + words[2]), None if words[3] == "-" else _place(shard + words[3])
        key = RangedKey(decode(words[1], f"a key of {_WHAT}"), start, end)
        if len(key.public) != 32 or (end is not None and end <= start):
            raise Disproved(_CANNOT_BE)
        if found[use].setdefault(sha256(key.public).hexdigest(), key) is not key:
            raise Disproved(f"{_WHAT} lists a key twice")
    return found


def _place(text: str) -> Place:
    """A place as "shard:size". Raises Disproved."""
    shard, _, size = text.partition(":")
    found = whole_number(shard), whole_number(size)
    if found[0] is None or found[1] is None:
        raise Disproved(_CANNOT_BE)
    return found[0], found[1]


def open_envelope(envelope: Mapping[str, Any], keys: Mapping[str, RangedKey]) -> tuple[bytes, RangedKey]:
    """The in-toto statement in a DSSE envelope, and the key that signed it. Raises Disproved, CannotTell."""
    found = shaped(envelope, "the envelope", _ENVELOPE)
    if found["payloadType"] != _PAYLOAD_TYPE or len(found["signatures"]) != 1:
        raise Disproved("the envelope must hold one in-toto statement with one signature")
    signature = found["signatures"][0]
    payload, raw = decode(found["payload"], "the envelope's payload"), decode(signature["sig"], "its signature")
    if signature["keyid"] not in keys:
        raise Disproved("the key manifest doesn't list the key that the envelope names")
    key = keys[signature["keyid"]]
    signed = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)
    if not is_signed_by(key.public, raw, signed):
        raise Disproved("the envelope's signature is wrong: the statement or the signature was changed")
    return payload, key
