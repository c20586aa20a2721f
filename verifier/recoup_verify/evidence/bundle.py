"""Checks an evidence bundle: who signed it, every file of it, that its events are all that an organization has.

What is proved and what isn't stands in FORMAT.md; its events are checked in `events`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from itertools import pairwise
from typing import Any, NamedTuple

from recoup_verify.checkpoint import MAX_BYTES as MAX_CHECKPOINT
from recoup_verify.documents import CannotTell, Disproved, UnknownVersion, decode, read_canonical, shape, shaped
from recoup_verify.event import Proven, is_moment, proven
from recoup_verify.evidence.events import EVENTS, RECORDS, Export, Published, Recovery, check_trees
from recoup_verify.evidence.files import Files
from recoup_verify.keys import open_envelope, read_manifest
from recoup_verify.log import Head, Trust, parse_proof, shard_of, signed_by, verified_head, whole_number
from recoup_verify.tree import check_consistency, check_inclusion, read_hashes

MANIFEST, SEAL, HEAD = "manifest.json", "seal.json", "head.json"
_MIB = 1 << 20
_PLATFORM = "00000000-0000-0000-0000-000000000000"
_STATEMENT, _PREDICATE = "https://in-toto.io/Statement/v1", "https://recoup.invalid/evidence/v1"
_FILE = shape(texts="name", digest=shape(texts="sha256"))
_IN_TOTO = shape(texts="_type predicateType", lists="subject", objects="predicate")
_CLAIM = shape(
    numbers="v",
    texts="bundle_id organization_id scope created_at log",
    period=shape(texts="from to"),
    heads=[shape(numbers="shard size")],
    chain=shape(numbers="org_seq", texts="leaf"),
    counts=shape(numbers="events disclosed erased receipts"),
)
_PROVEN = shape(texts="leaf payload salt proof")
_SEAL = {**_PROVEN, **shape(numbers="v", lists="consistency", texts="key_manifest")}
_HEAD = {**_PROVEN, **shape(texts="entry", lists="path", numbers="position index shard")}
_ENTRY = shape(numbers="v org_seq", texts="leaf organization_id salt")


class Proved(NamedTuple):
    """What was proved of a bundle. `withheld` are events that it neither discloses nor says to be erased, `loose` those
    of which a recovery left no signed head: the event after them alone commits to them.
    """

    claim: Mapping[str, Any]
    heads: list[Head]
    seal: Proven
    published: Published | None
    withheld: int
    receipts: dict[str, Mapping[str, Any]]
    files: int
    unfinished: bool
    recoveries: list[Recovery]
    loose: int


def check_evidence(path: str, trust: Trust) -> Proved:
    """Check a bundle in a folder or a zip. Raises Disproved, CannotTell."""
    files = Files(path)
    if len({MANIFEST, SEAL, EVENTS} & files.sizes.keys()) < 2:
        raise CannotTell(f"this isn't an evidence bundle: it has no {MANIFEST}, {SEAL} and {EVENTS}")
    try:
        return _check(files, trust)
    except UnknownVersion:
        raise
    except CannotTell as error:
        raise Disproved(str(error)) from error


def _check(files: Files, given: Trust) -> Proved:
    """From the key that was given to what it vouches for, each thing before it is read."""
    seal = shaped(_document(files, SEAL), SEAL, _SEAL)
    trust = read_manifest(seal["key_manifest"], given)
    statement, key = open_envelope(_document(files, MANIFEST, 64 * _MIB), trust.keys.get("evidence", {}))
    claim, digests = _claim(read_canonical(statement, "the statement"))
    _check_files(files, digests)
    sealed, alone = _sealed(seal, claim, statement, trust), trust._replace(wanted=0)
    # Whoever cosigned the seal's head vouches for all that it continues.
    same_tree = claim["heads"][-1]["shard"] == sealed.head.shard
    heads, notes = _heads(files, claim, alone, alone if same_tree else trust)
    if not key.covers((sealed.head.shard, sealed.position)):
        raise Disproved("the evidence key wasn't good for that part of the log: the seal is outside of its range")
    _check_later(heads[-1], sealed.head, seal["consistency"])
    found = [_recovery(files, *pair, notes, alone) for pair in zip([None, *heads], heads, strict=False)]
    recoveries = [each for each in found if each]
    published = _published(files, claim, notes, alone)
    export = Export(claim, published, _records(files), *_receipts(files, claim, trust))
    loose = check_trees(files, heads, export, recoveries)
    export.check_end()
    told = (claim, heads, sealed, published, export.withheld, export.receipts, len(digests), export.unfinished)
    return Proved(*told, recoveries, loose)


def _document(files: Files, name: str, limit: int = _MIB) -> Any:
    return read_canonical(files.read(name, limit), name)


def _claim(statement: Any) -> tuple[Mapping[str, Any], Mapping[str, str]]:
    """What the signed statement says of the bundle, and the digest of each file. Raises Disproved, CannotTell."""
    found = shaped(statement, "the statement", _IN_TOTO)
    version = found["predicate"].get("v")
    if found["predicateType"] != _PREDICATE or found["_type"] != _STATEMENT:
        raise Disproved(f"{MANIFEST} isn't a statement about an evidence bundle")
    if type(version) is int and version > 1:
        raise UnknownVersion(f"evidence bundles of version {version} are unknown to this verifier")
    claim = shaped(found["predicate"], "the predicate", _CLAIM)
    shards = [each["shard"] for each in claim["heads"]]
    if version != 1 or not shards or any(later <= earlier for earlier, later in pairwise([-1, *shards])):
        raise Disproved("the statement's version or heads can't be: one for each shard, from the first with events on")
    moments = (claim["period"]["from"], claim["period"]["to"], claim["created_at"])
    if not all(map(is_moment, moments)) or moments[0] >= moments[1]:
        raise Disproved("the statement's period can't be")
    names = [shaped(each, "a subject", _FILE)["name"] for each in found["subject"]]
    if any(later <= earlier for earlier, later in pairwise(["", *names])) or {MANIFEST, SEAL} & {*names}:
        raise Disproved("the statement's files must be in the order of their names, each once")
    return claim, {each["name"]: each["digest"]["sha256"] for each in found["subject"]}


def _check_files(files: Files, digests: Mapping[str, str]) -> None:
    """Raise Disproved unless these files are there, no others, and each is the one that was signed."""
    listed, there = digests.keys(), files.sizes.keys() - {MANIFEST, SEAL}
    for names, what in ((listed - there, "lacks the file"), (there - listed, "has the file that nobody signed:")):
        if names:
            raise Disproved(f"the bundle {what} {min(names)}")
    for name, digest in digests.items():
        if files.digest(name) != digest:
            raise Disproved(f"{name}: its digest isn't what the signed manifest says: the file was changed")


def _heads(files: Files, claim: Mapping[str, Any], trust: Trust, newest: Trust) -> tuple[list[Head], dict[int, str]]:
    """The head of each shard, and the note that it stands in."""
    heads, notes = [], {}
    for said in claim["heads"]:
        shard, name = said["shard"], f"log/{said['shard']}/checkpoint"
        notes[shard] = files.read(name, MAX_CHECKPOINT).decode("utf-8", "replace")
        heads.append(verified_head(notes[shard], newest if said is claim["heads"][-1] else trust, name))
        if (heads[-1].shard, heads[-1].size) != (shard, said["size"]) or claim["log"] != trust.name:
            raise Disproved(f"{name} isn't the head that the signed manifest says")
    return heads, notes


def _proven(document: Mapping[str, Any], where: str, trust: Trust, note: str | None = None) -> Proven:
    """An event with its proof; `note` is the checkpoint that it must lead to."""
    inclusion = parse_proof(document["proof"])
    if note is not None and inclusion.note != note:
        raise Disproved(f"{where}: its proof leads to another checkpoint than the bundle's")
    head = verified_head(inclusion.note, trust, f"{where}'s checkpoint")
    texts = (document["leaf"].encode(), document["payload"].encode(), decode(document["salt"], f"{where}'s salt"))
    try:
        return proven(*texts, inclusion, head)
    except Disproved as error:
        raise Disproved(f"{where}: {error}") from error


def _says(event: Proven, where: str, organization_id: str, **said: str) -> Mapping[str, Any]:
    """The event's metadata. Raises Disproved unless audit wrote this of this organization."""
    for name, value in {"producer": "audit", "organization_id": organization_id, "result": "OK", **said}.items():
        found = event.leaf[name] if name in event.leaf else event.payload.get(name)
        if found != value:
            raise Disproved(f"{where}: the event's {name} is {str(found)[:80]!r}, not {value!r}")
    metadata: Mapping[str, Any] = event.payload.get("metadata", {})
    return metadata


def _sealed(seal: Mapping[str, Any], claim: Mapping[str, Any], statement: bytes, trust: Trust) -> Proven:
    """The event that seals the bundle: the log itself names the statement."""
    if seal["v"] != 1:
        raise UnknownVersion(f"seals of version {seal['v']} are unknown to this verifier")
    event, chain, target = _proven(seal, SEAL, trust), claim["chain"], f"evidence/{claim['bundle_id']}"
    said = _says(event, SEAL, claim["organization_id"], action="audit.evidence.seal", target=target)
    sealed = {"statement_sha256": sha256(statement).hexdigest(), "events": str(claim["counts"]["events"])}
    for name, value in sealed.items():
        if said.get(name) != value:
            raise Disproved(f"{SEAL}: its {name} isn't that of {MANIFEST}: it seals another bundle")
    following = event.leaf["org_seq"] - chain["org_seq"]
    if following < 1 or (following == 1 and event.leaf["prev_leaf"] != chain["leaf"]):
        raise Disproved(f"{SEAL}: it doesn't continue the chain of the bundle's events")
    return event


def _check_later(newest: Head, sealing: Head, consistency: list[Any]) -> None:
    """Raise Disproved unless the seal's head continues the bundle's newest one."""
    hashes = read_hashes(consistency, f"{SEAL}'s consistency")
    if sealing.shard < newest.shard or (hashes and sealing.shard > newest.shard):
        raise Disproved(f"{SEAL}: its head can't be after the bundle's newest checkpoint")
    if sealing.shard == newest.shard:
        try:
            check_consistency((newest.size, newest.root), (sealing.size, sealing.root), hashes)
        except Disproved as error:
            raise Disproved(f"{SEAL}: its head doesn't continue log/{newest.shard}/checkpoint: {error}") from error


def _recovery(
    files: Files, earlier: Head | None, later: Head, notes: Mapping[int, str], trust: Trust
) -> Recovery | None:
    """How a recovery opened the later shard; None where its first leaf commits to the earlier one's last checkpoint."""
    name = f"log/{later.shard}/opening.json"
    if earlier is None and name not in files.sizes:
        return None
    event = _proven(shaped(_document(files, name), name, _PROVEN), name, trust, notes[later.shard])
    said = _says(event, name, _PLATFORM, action="audit.shard.open")
    if said.get("kind") == "RECOVERY" and not event.position:
        return _authorised(name, {str(key): str(said[key]) for key in said}, earlier, later, trust)
    if earlier is None or later.shard != earlier.shard + 1:
        raise Disproved(f"{name}: the bundle lacks the shard before it, and no recovery opened this one")
    committed = {"origin": earlier.origin, "size": str(earlier.size), "root": earlier.root.hex()}
    if event.position or any(said.get(f"previous_{part}") != value for part, value in committed.items()):
        raise Disproved(f"{name}: it doesn't continue log/{earlier.shard}/checkpoint: that isn't the shard's last one")
    return None


def _authorised(name: str, said: Mapping[str, str], earlier: Head | None, later: Head, trust: Trust) -> Recovery:
    """What the root authorised to be lost before the later shard. Raises Disproved unless it signed exactly this."""
    origin, size = said.get("previous_origin", ""), said.get("previous_size", "")
    restored, rest = said.get("restored_origin", origin), said.get("restored_size", "")
    kept = said.get("common_size", rest)
    try:
        root, there = (b64encode(bytes.fromhex(said.get(f"{of}_root", ""))).decode() for of in ("previous", "restored"))
    except ValueError:
        raise Disproved(f"{name}: its previous_root isn't a root") from None
    old, start, tail, end = shard_of(restored, trust), whole_number(kept), whole_number(rest), whole_number(size)
    if old is None or start is None or tail is None or end is None or tail < start:
        raise Disproved(f"{name}: the recovery doesn't state the range that was lost")
    if shard_of(origin, trust) != later.shard - 1 or old >= later.shard:
        raise Disproved(f"{name}: the recovery doesn't state the range that was lost")
    within = restored == origin
    ranged, version = (f"{rest} {size}", 1) if within else (f"{restored} {rest} {origin} {size}", 2)
    if kept != rest:
        ranged, version = f"{restored} {kept} {origin} {size}\ngiven-up {restored} {kept} {rest} {there}", 3
    text, _ = signed_by(said.get("statement", ""), [trust.root] if trust.root else [], f"{name}'s statement")
    opened = f"opens {later.origin}\nsigned {origin} {size} {root}\nlost {ranged}\n"
    if text != f"{trust.name}/recovery\nrecoup-recovery/v{version}\n{opened}":
        raise Disproved(f"{name}: the log's root authorised another recovery than this one")
    after = (earlier.shard, earlier.size) if earlier else (0, 0)
    if (old, start) < after or (within and end < start):
        raise Disproved(f"{name}: what was put back ends before log/{after[0]}/checkpoint, or after what was signed")
    lost = f"the leaves {start} to {end - 1} of {origin}"
    if not within or start == end or kept != rest:
        lost = f"the leaves from leaf {start} of {restored} to leaf {end - 1} of {origin}"
    return Recovery(later.shard, after, (old, tail), lost)


def _published(files: Files, claim: Mapping[str, Any], notes: Mapping[int, str], trust: Trust) -> Published | None:
    """What the log published of the organization's chain, where the bundle has it."""
    if HEAD not in files.sizes:
        return None
    document = shaped(_document(files, HEAD), HEAD, _HEAD)
    event = _proven(document, HEAD, trust, notes.get(document["shard"], ""))
    said = _says(event, HEAD, _PLATFORM, action="audit.heads.publish")
    entry, path = document["entry"].encode(), read_hashes(document["path"], f"{HEAD}'s path")
    try:
        size, root = int(str(said.get("size"))), bytes.fromhex(said.get("root", ""))
        check_inclusion(entry, document["position"], path, size, root)
    except (ValueError, TypeError, Disproved) as error:
        raise Disproved(f"{HEAD}: its entry isn't among those that the log published: {error}") from None
    found = shaped(read_canonical(entry, f"{HEAD}: its entry"), f"{HEAD}: its entry", _ENTRY)
    if (event.position, event.head.shard) != (document["index"], document["shard"]):
        raise Disproved(f"{HEAD}: its index or shard isn't that of its proof")
    if found["organization_id"] != claim["organization_id"] or found["v"] != 1:
        raise Disproved(f"{HEAD}: its entry is of another organization or version")
    if found["org_seq"] > claim["chain"]["org_seq"]:
        raise Disproved(
            f"the end was cut off: the log published that the organization has {found['org_seq']} events,"
            f" but the bundle ends at {claim['chain']['org_seq']}"
        )
    return Published(found["org_seq"], found["leaf"], event.leaf["appended_at"])


def _records(files: Files) -> dict[str, list[tuple[str, Mapping[str, Any]]]]:
    """The records of the lists for people by the event that they name, each with its list."""
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for name in RECORDS.keys() & files.sizes.keys():
        records = _document(files, name, 64 * _MIB)
        for number, record in enumerate(records if isinstance(records, list) else [None], 1):
            if not isinstance(record, dict) or not isinstance(record.get("event_id"), str):
                raise Disproved(f"{name}: record {number} doesn't name its event")
            if record["event_id"] or RECORDS[name]:
                found.setdefault(record["event_id"], []).append((name, record))
    return found


def _receipts(
    files: Files, claim: Mapping[str, Any], trust: Trust
) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
    """The receipts by id, each checked; and the leaf hash of each event of theirs, with the receipt's file."""
    from recoup_verify.receipts import receipt

    found: dict[str, Any] = {}
    events: dict[str, tuple[str, str]] = {}
    for name in sorted(name for name in files.sizes if name.startswith("receipts/")):
        try:
            proved = receipt.check_receipt(files.read(name, receipt.MAX_BYTES), trust)
        except (Disproved, CannotTell) as error:
            raise Disproved(f"{name}: {error}") from error
        checked = proved.papers.receipt
        if name != f"receipts/{checked['receipt_id']}.json" or checked["organization_id"] != claim["organization_id"]:
            raise Disproved(f"{name}: it is another receipt, {checked['receipt_id']}, or another organization's")
        found[checked["receipt_id"]] = checked
        events |= {event.leaf["event_id"]: (event.digest.hex(), name) for event in proved.trail}
    return found, events
