"""Checks the events of an evidence bundle: a gapless chain, in the signed trees, saying what the lists for people say.

They are read as a stream: memory grows with the records, the receipts and the shards, never with the events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

from recoup_verify.documents import CannotTell, Disproved, UnknownVersion, decode, read_canonical, shape, shaped
from recoup_verify.event import disclosed, is_moment, read_leaf
from recoup_verify.evidence.files import Files
from recoup_verify.log import Head, Place
from recoup_verify.tree import leaf_hash, root_over

EVENTS, WHOLE = "events.jsonl", "organization"
_LINE = shape(numbers="index shard", texts="leaf")
_SHOWN, _ERASED = {**_LINE, **shape(texts="payload salt")}, {**_LINE, **shape(flags="erased")}
# The lists for people, and what the middle word of an action must be to stand there; "" where any event may be named.
RECORDS: Mapping[str, frozenset[str]] = {
    "approvals.json": frozenset({"action"}),
    "changes.json": frozenset(
        (
            *("member", "membership", "invitation", "ownership", "organization", "platform", "operatoraccess"),
            *("installation", "role", "approver", "permission", "policy", "person", "login", "token"),
            *("service_account", "sso", "identity_provider", "metadata", "domain", "enforcement", "group_role"),
            *("scim", "scim_token", "scim_roles", "allowed_origins"),
        )
    ),
    "break_glass.json": frozenset({"elevation", "break_glass", "alarm", "bypass", "control"}),
    "exceptions.json": frozenset({"exception", "review"}),
    "scans.json": frozenset(),
    "keys.json": frozenset(),
}
_APPROVALS = ("actions.action.approve", "actions.action.reject")
_REPEATED = (
    *("action", "target", "result", "actor", "responsible_person", "role", "authority", "occurred_at"),
    *("organization_id", "request_id", "trace_id", "metadata"),
)


class Published(NamedTuple):
    """What the log published of the organization's chain: it has this many events, the last of which has this hash."""

    org_seq: int
    leaf: str
    at: str


class Recovery(NamedTuple):
    """A recovery that opened `shard`. Between the places `after`, where the last signed head that is left ends, and
    `before`, where the database that was put back ended, leaves stand under no head. What is `lost`, in words.
    """

    shard: int
    after: Place
    before: Place
    lost: str


class Export:
    """The organization's events, line by line: a gapless chain, whose disclosed payloads are what the records say."""

    def __init__(
        self,
        claim: Mapping[str, Any],
        published: Published | None,
        records: dict[str, list[tuple[str, Mapping[str, Any]]]],
        receipts: dict[str, Mapping[str, Any]],
        receipt_events: dict[str, tuple[str, str]],
    ) -> None:
        self._claim, self._published, self._records = claim, published, records
        self.receipts, self._receipt_events = receipts, receipt_events
        self._count, self._last, self._disclosed, self._erased = 0, "", 0, 0
        self.withheld, self.unfinished = 0, False

    def leaf(self, line: bytes) -> tuple[int, int, bytes]:
        """Check the next line; returns the leaf's shard, index and hash."""
        self._count += 1
        try:
            return self._leaf(line)
        except UnknownVersion:
            raise
        except (Disproved, CannotTell) as error:
            raise Disproved(f"{EVENTS}: line {self._count}: {error}") from error

    def _leaf(self, line: bytes) -> tuple[int, int, bytes]:
        document = read_canonical(line, "it")
        if not isinstance(document, dict):
            raise Disproved("it isn't an object")
        shaped(document, "it", _SHOWN if "payload" in document else _ERASED if "erased" in document else _LINE)
        raw = document["leaf"].encode()
        leaf, digest = read_leaf(raw), leaf_hash(raw)
        self._check_chain(leaf)
        self._last = digest.hex()
        if self._published and self._count == self._published.org_seq and self._published.leaf != self._last:
            raise Disproved(f"the log published another event as the organization's number {self._count}")
        self._check_shown(document, leaf)
        said, name = self._receipt_events.pop(leaf["event_id"], (self._last, ""))
        if said != self._last:
            raise Disproved(f"{name} has another event under the id {leaf['event_id']}")
        return document["shard"], document["index"], digest

    def _check_chain(self, leaf: Mapping[str, Any]) -> None:
        if leaf["organization_id"] != self._claim["organization_id"]:
            raise Disproved("it is of another organization")
        if leaf["org_seq"] != self._count:
            raise Disproved(f"it is the organization's event {leaf['org_seq']}, not {self._count}: one is missing")
        if leaf["prev_leaf"] != self._last:
            raise Disproved("it doesn't follow the event before it: the organization's chain is broken")

    def _check_shown(self, document: Mapping[str, Any], leaf: Mapping[str, Any]) -> None:
        start, end = self._claim["period"]["from"], self._claim["period"]["to"]
        recorded = start <= leaf["appended_at"] < end
        if "payload" in document:
            raw = document["payload"].encode()
            payload = disclosed(raw, decode(document["salt"], "its salt"), leaf)
            if not is_moment(payload.get("occurred_at")) or not (recorded or start <= payload["occurred_at"] < end):
                raise Disproved("the event isn't of the bundle's period")
            self._disclosed += 1
            self._check_records(payload)
        elif "erased" in document:
            if not document["erased"]:
                raise Disproved("erased can only be true")
            self._erased += 1
        elif recorded and self._claim["scope"] == WHOLE:
            raise Disproved("the event is of the bundle's period, but is neither disclosed nor said to be erased")
        else:
            self.withheld += 1

    def _check_records(self, payload: Mapping[str, Any]) -> None:
        action, lists = str(payload.get("action")), set()
        kind = [*action.split(".", 2), ""][1]
        # Whatever was done under break-glass access is a use of it.
        used = {"break_glass.json"} if str(payload.get("authority")).startswith("elevation:") else set()
        for name, record in self._records.pop(payload["event_id"], ()):
            lists.add(name)
            if RECORDS[name] and kind not in RECORDS[name] and name not in used:
                raise Disproved(f"{name} names the event {payload['event_id']}, which is {action[:80]}")
            for part in _REPEATED:
                if part in record and record[part] != payload.get(part, ""):
                    raise Disproved(f"{name} has another {part} of the event {payload['event_id']} than the log")
        for name in RECORDS.keys() - lists:
            if name in used or (kind in RECORDS[name] and (kind != "action" or action in _APPROVALS)):
                raise Disproved(f"{name} leaves out {action[:80]}, the event {payload['event_id']}")
        if action == "actions.receipt.issue" and str(payload.get("target"))[9:] not in self.receipts:
            self.unfinished = True

    def check_end(self) -> None:
        """Raise Disproved unless all of what the statement, the lists and the receipts name was there."""
        claim, chain = self._claim["counts"], self._claim["chain"]
        if (self._count, self._last) != (chain["org_seq"], chain["leaf"]):
            raise Disproved(f"{EVENTS} ends at event {self._count}, not where the signed manifest says")
        counted = {"events": self._count, "disclosed": self._disclosed, "erased": self._erased}
        for name, count in {**counted, "receipts": len(self.receipts)}.items():
            if claim[name] != count:
                raise Disproved(f"the signed manifest says that there are {claim[name]} {name}, but there are {count}")
        for event_id, named in self._records.items():
            raise Disproved(f"{named[0][0]} names the event {event_id[:80]!r}, which {EVENTS} doesn't disclose")
        for event_id, (_, name) in self._receipt_events.items():
            raise Disproved(f"{name}: its event {event_id} isn't in {EVENTS}")


def check_trees(files: Files, heads: list[Head], export: Export, recoveries: Sequence[Recovery]) -> int:
    """How many events stand under no head, as a recovery left them.

    Raises Disproved unless all others stand in the trees of the signed heads, at their places.
    """
    found = map(export.leaf, files.lines(EVENTS))
    following, loose, left = next(found, None), 0, {each.shard: each for each in recoveries}

    def under(head: Head, size: float) -> Iterator[tuple[int, bytes]]:
        nonlocal following
        while following is not None and following[0] == head.shard and following[1] < size:
            yield following[1:]
            following = next(found, None)

    for head, later in zip(heads, [*heads[1:], None], strict=True):
        if recovery := left.get(head.shard):
            place = recovery.after
            while following is not None and place <= following[:2] < recovery.before:
                place, loose = (following[0], following[1] + 1), loose + 1
                following = next(found, None)
            if following is None and place != recovery.after:
                raise Disproved(f"{EVENTS}: the last event stands under no signed head")
        if following is not None and following[0] < head.shard:
            break
        name = f"log/{head.shard}/tree.txt"
        hashes = (_hash(line, name) for line in files.lines(name))
        # Behind a head that a recovery follows, its shard may go on.
        size = head.size if later and later.shard in left else inf
        if root_over(head.size, under(head, size), hashes, name) != head.root:
            raise Disproved(f"{EVENTS} and {name} don't lead to the root of log/{head.shard}/checkpoint")
    if following is not None:
        raise Disproved(f"{EVENTS} has an event of shard {following[0]}, where it can't be")
    return loose


def _hash(line: bytes, name: str) -> bytes:
    found = decode(line.decode("ascii", "replace"), f"a line of {name}")
    if len(found) != 32:
        raise Disproved(f"{name} has a hash that hasn't 32 bytes")
    return found
