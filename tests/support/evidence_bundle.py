"""Makes whole evidence bundles for the verifier's tests: two shards, a receipt, records, signatures. Honest, or lying.

Written here from FORMAT.md by hand; tree, leaf and note alone are the service's. Nothing is made by what is tested.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.model import merkle
from services.audit.model.leaf import Leaf, commitment
from services.audit.model.notes import Signer, TreeHead
from tests.support import receipt_cases as cases
from tests.support.receipt_cases import Document
from tests.support.receipt_log import ORGANIZATION, Signatories, b64, sha256
from tests.support.receipts import RECEIPT, Issuing

NAME = "recoup-test.local.invalid/log"
PLATFORM = str(UUID(int=0))
BUNDLE = str(UUID(int=77))
FROM, TO = "2026-03-01T00:00:00.000000Z", "2026-07-01T00:00:00.000000Z"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
Change = Callable[["Bundling"], None]


@dataclass
class Placed:
    """An event in the log."""

    shard: int
    index: int
    leaf: bytes
    payload: bytes
    salt: bytes

    @property
    def said(self) -> Document:
        """Its payload, read."""
        found: Document = json.loads(self.payload)
        return found


class Tree:
    """A shard's tree, with the proofs that a bundle has of it."""

    def __init__(self, origin: str, key: Ed25519PrivateKey) -> None:
        self._frontier, self._nodes = merkle.Frontier(), dict[merkle.Node, bytes]()
        self.signer = Signer(origin, key)

    def append(self, leaf: bytes) -> int:
        """The leaf's index."""
        complete = self._frontier.append(merkle.leaf_hash(leaf))
        self._nodes |= {(height, position): digest for height, position, digest in complete}
        return self._frontier.size - 1

    @property
    def size(self) -> int:
        """How many leaves there are."""
        return self._frontier.size

    def hashes(self, ranges: list[tuple[int, int]]) -> list[bytes]:
        """The root of each range of leaves."""
        return merkle.hash_ranges(ranges, self._nodes)

    def root(self, size: int) -> bytes:
        """The root of the first `size` leaves."""
        return self.hashes([(0, size)])[0]

    def checkpoint(self, size: int) -> str:
        """The signed head of the first `size` leaves."""
        return self.signer.sign(TreeHead(self.signer.verifier_key.name, size, self.root(size)).text())

    def proof(self, index: int, size: int) -> str:
        """A tlog-proof."""
        hashes = "".join(f"{b64(each)}\n" for each in self.hashes(merkle.inclusion_ranges(index, size)))
        return f"c2sp.org/tlog-proof@v1\nindex {index}\n{hashes}\n{self.checkpoint(size)}"

    def multiproof(self, indexes: list[int], size: int) -> bytes:
        """A tree.txt."""

        def others(start: int, end: int, first: int, last: int) -> list[tuple[int, int]]:
            if first == last:
                return [(start, end)]
            if end - start == 1:
                return []
            middle = start + (1 << (end - start - 1).bit_length() - 1)
            split = bisect_left(indexes, middle, first, last)
            return others(start, middle, first, split) + others(middle, end, split, last)

        return "".join(f"{b64(each)}\n" for each in self.hashes(others(0, size, 0, len(indexes)))).encode()


UNDER_BREAK_GLASS = f"elevation:{UUID(int=21)}.{UUID(int=22)}"


def event(action: str, target: str, occurred_at: str, **said: Any) -> Document:
    """An event's payload."""
    return {
        "v": 1,
        "event_id": str(uuid4()),
        "organization_id": ORGANIZATION,
        "action": action,
        "target": target,
        "result": "OK",
        "actor": "user:ann",
        "responsible_person": str(UUID(int=11)),
        "role": "ADMIN",
        "occurred_at": occurred_at,
        "request_id": "r-1",
        "trace_id": "",
        "authority": "passport",
        "metadata": {},
        **said,
    }


class Log:
    """A log of two shards, in which the organization's events stand among those of others."""

    def __init__(self) -> None:
        self.key, self.root = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self.trees = [Tree(NAME, self.key)]
        self.placed: list[Placed] = []
        self._chains: dict[str, tuple[int, bytes]] = {}

    def add(self, payload: Document, appended_at: str, producer: str = "actions", **odd: Any) -> Placed:
        """Append an event; what is odd about its leaf comes with it."""
        organization, raw = payload["organization_id"], rfc8785.dumps(payload)
        number, previous = self._chains.get(organization, (0, b""))
        salt = hashlib.sha256(payload["event_id"].encode()).digest()
        content: dict[str, Any] = {
            "event_id": UUID(payload["event_id"]),
            "organization_id": UUID(organization),
            "organization_seq": number + 1,
            "previous": previous,
            "producer": producer,
            "producer_counter": number + 1,
            "appended_at": datetime.fromisoformat(appended_at.replace("Z", "+00:00")),
            "payload_commitment": commitment(raw, salt),
            **odd,
        }
        leaf = Leaf(**content).encode()
        self._chains[organization] = (number + 1, merkle.leaf_hash(leaf))
        found = Placed(len(self.trees) - 1, self.trees[-1].append(leaf), leaf, raw, salt)
        if organization == ORGANIZATION:
            self.placed.append(found)
        return found

    def others(self, count: int) -> None:
        """Leaves of others, whatever they are."""
        for _ in range(count):
            self.trees[-1].append(str(uuid4()).encode())

    def open_shard(self, moment: str, recovered: Document | None = None) -> tuple[Placed, int]:
        """Close the shard and open the next; returns its first event, and the old one's last size.

        As after a recovery where something is given that is odd about it: five leaves more were signed.
        """
        old = self.trees[-1]
        origin = f"{NAME}/{len(self.trees)}"
        said = {"origin": old.signer.verifier_key.name, "size": str(old.size), "root": old.root(old.size).hex()}
        metadata = {f"previous_{name}": value for name, value in said.items()}
        if recovered is not None:
            lost = {"previous_size": str(old.size + 5), "previous_root": "ab" * 32, "restored_size": str(old.size)}
            metadata |= {"kind": "RECOVERY", **lost, **recovered}
            signed = f"{NAME} {metadata['previous_size']} {b64(bytes.fromhex(metadata['previous_root']))}"
            ranged = f"{metadata['restored_size']} {metadata['previous_size']}"
            text = f"{NAME}/recovery\nrecoup-recovery/v1\nopens {origin}\nsigned {signed}\nlost {ranged}\n"
            metadata = {"statement": Signer(f"{NAME}/root", self.root).sign(text), **metadata}
        opening = event("audit.shard.open", f"log/{origin}", moment, organization_id=PLATFORM, metadata=metadata)
        self.trees.append(Tree(origin, self.key))
        return self.add(opening, moment, "audit"), old.size


@dataclass
class Bundling:
    """A bundle in the making. Whoever changes something here has it signed and sealed as if it were true."""

    events: int = 0
    log: Log = field(default_factory=Log)
    receipt_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    evidence_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    evidence_range: str = "0:0 -"
    odd: dict[int, Document] = field(default_factory=dict)  # what is odd about the leaf of the n-th event
    erased: set[int] = field(default_factory=lambda: {13})
    scope: str = "organization"
    head_seq: int = 0
    recovered: Document | None = None  # what is odd about the recovery that opened the second shard, if one did
    cut: int = 0  # so many of the first shard's leaves stand behind its head
    files: dict[str, bytes] = field(default_factory=dict)
    statement: Document = field(default_factory=dict)
    seal: Document = field(default_factory=dict)
    sealing: Document = field(default_factory=dict)

    def vkey(self) -> str:
        """The log's verifier key."""
        return Signer(NAME, self.log.key).verifier_key.text()

    def manifest(self) -> str:
        """The key manifest."""
        root = Signer(f"{NAME}/root", self.log.root)
        keys = (("log", self.log.key, "0:0 -"), ("receipt", self.receipt_key, "0:0 -"))
        listed = "".join(
            f"{use} ed25519 {b64(key.public_key().public_bytes_raw())} {valid}\n"
            for use, key, valid in (*keys, ("evidence", self.evidence_key, self.evidence_range))
        )
        text = f"{NAME}/keys\nrecoup-keys/v2\nroot {root.verifier_key.text()}\n{listed}quorum 0\n"
        return root.sign(text) + Signer(NAME, self.log.key).sign(text).rpartition("\n\n")[2]

    def happen(self) -> None:
        """Write the log: what happened before the period, a receipt in it, records, a shard's end, what came later."""
        for day in (3, 9):
            self._add(event("identity.member.invite", "members/bob", f"2026-02-0{day}T08:00:00.000000Z"), "identity")
        self._receipt()
        for action, target in (
            ("identity.member.grant", "members/bob"),
            ("audit.alarm.raise", "log"),
            ("actions.exception.review", "exceptions/1"),
            ("scanner.scan.finish", "scans/1"),
        ):
            under = {"authority": UNDER_BREAK_GLASS} if action == "scanner.scan.finish" else {}
            self._add(event(action, target, "2026-06-02T08:00:00.000000Z", **under), action.partition(".")[0])
        for number in range(self.events):
            self._add(event("x.y.z", f"t/{number}", "2026-06-02T08:00:00.000000Z", metadata={"n": "x" * 300}), "x")
        self.log.others(2)
        self.opening, self.last_size = self.log.open_shard("2026-06-15T00:00:00.000000Z", self.recovered)
        for day in (20, 21):
            self._add(event("identity.member.remove", "members/bob", f"2026-06-{day}T08:00:00.000000Z"), "identity")
        self._add(event("identity.member.invite", "members/eve", "2026-07-02T08:00:00.000000Z"), "identity")
        self.publish()
        self.log.others(3)

    def _add(self, payload: Document, producer: str = "actions", *, others: int = 1) -> Placed:
        self.log.others(others)
        said = payload["occurred_at"]
        appended = max(said, "2026-06-01T00:00:00.000000Z") if producer == "actions" else said
        odd = {"producer": producer, **self.odd.get(len(self.log.placed) + 1, {})}
        return self.log.add(payload, appended, **odd)

    def _receipt(self) -> None:
        """A receipt whose events are this log's."""
        signatories = Signatories(Signer(NAME, self.log.key), self.receipt_key)
        issuing = Issuing(cases.deleted_volume(), signatories)
        for stage in ("hash", "write", "state", "issue", "pack"):
            getattr(issuing, stage)()
        placed = [self._add(each.payload) for each in issuing.events]
        tree = self.log.trees[-1]
        proven = [{**shown(each), "proof": tree.proof(each.index, tree.size)} for each in placed]
        issuing.bundle |= {"events": proven, "key_manifest": self.manifest()}
        self.files[f"receipts/{RECEIPT}.json"] = rfc8785.dumps(issuing.bundle)

    def publish(self) -> None:
        """The heads of all organizations, ours among 15 that nobody knows."""
        last = self.log.placed[self.head_seq - 1]
        leaf = merkle.leaf_hash(last.leaf).hex()
        number = json.loads(last.leaf)["org_seq"]
        self.publish_entry(
            rfc8785.dumps({"leaf": leaf, "organization_id": ORGANIZATION, "org_seq": number, "salt": "ab" * 16, "v": 1})
        )

    def publish_entry(self, entry: bytes) -> None:
        """The log publishes this of the organization."""
        self.entry, heads = entry, Tree("heads", self.log.key)
        for place in range(16):
            heads.append(entry if place == 5 else b"%d" % place)
        metadata = {"root": heads.root(16).hex(), "size": "16"}
        moment = "2026-07-03T00:00:00.000000Z"
        said = event("audit.heads.publish", "log", moment, organization_id=PLATFORM, metadata=metadata)
        self.published = self.log.add(said, moment, "audit")
        self.path = [b64(each) for each in heads.hashes(merkle.inclusion_ranges(5, 16))]

    def write(self) -> None:
        """Write all files but manifest and seal."""
        self.sizes = [self.last_size - self.cut, self.log.trees[1].size]
        self.files["events.jsonl"] = b"".join(
            self._line(number, each) for number, each in enumerate(self.log.placed, 1)
        )
        for shard, (tree, size) in enumerate(zip(self.log.trees, self.sizes, strict=True)):
            indexes = [each.index for each in self.log.placed if each.shard == shard and each.index < size]
            self.files[f"log/{shard}/checkpoint"] = tree.checkpoint(size).encode()
            self.files[f"log/{shard}/tree.txt"] = tree.multiproof(indexes, size)
        self.files["log/1/opening.json"] = rfc8785.dumps(self.proven(self.opening, self.sizes[1]))
        head: Document = {"entry": self.entry.decode(), "path": self.path, "position": 5, "shard": 1}
        published = self.proven(self.published, self.sizes[1])
        self.files["head.json"] = rfc8785.dumps({**head, **published, "index": self.published.index})
        self.files |= {f"{name}.json": rfc8785.dumps(records) for name, records in self._records().items()}
        self.files |= {"events.csv": b"shard,index\r\n", "summary.html": b"<!doctype html>"}

    def _line(self, number: int, placed: Placed) -> bytes:
        line: Document = {"index": placed.index, "leaf": placed.leaf.decode(), "shard": placed.shard}
        if number in self.erased:
            line["erased"] = True
        elif FROM <= placed.said["occurred_at"] < TO:
            line |= shown(placed)
        return rfc8785.dumps(line) + b"\n"

    def proven(self, placed: Placed, size: int) -> Document:
        """An event with its proof."""
        return {**shown(placed), "proof": self.log.trees[placed.shard].proof(placed.index, size)}

    def _records(self) -> dict[str, list[Document]]:
        disclosed = [json.loads(line) for line in self.files["events.jsonl"].splitlines()]
        payloads = [json.loads(line["payload"]) for line in disclosed if "payload" in line]
        names = (
            "event_id",
            "occurred_at",
            "action",
            "target",
            "result",
            "actor",
            "responsible_person",
            "role",
            "authority",
        )
        wanted = {
            "approvals": ("actions.action.approve",),
            "changes": ("identity.member.grant", "identity.member.remove"),
            "break_glass": ("audit.alarm.raise", "scanner.scan.finish"),
            "exceptions": ("actions.exception.review",),
        }
        found = {
            name: [
                {**{each: payload[each] for each in names}, "metadata": payload["metadata"]}
                for payload in payloads
                if payload["action"] in actions
            ]
            for name, actions in wanted.items()
        }
        scan = next(each for each in payloads if each["action"] == "scanner.scan.finish")
        found["scans"] = [{"scan_id": "1", "event_id": scan["event_id"], "complete": "true", "missed": []}]
        found["keys"] = [{"kind": "connection", "event_id": "", "name": "acme"}]
        return found

    def state(self) -> None:
        """Write the statement that follows from the files."""
        lines = [json.loads(line) for line in self.files["events.jsonl"].splitlines() if line]
        self.statement = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [
                {"name": name, "digest": {"sha256": sha256(content)}} for name, content in sorted(self.files.items())
            ],
            "predicateType": "https://recoup.invalid/evidence/v1",
            "predicate": {
                "v": 1,
                "bundle_id": BUNDLE,
                "organization_id": ORGANIZATION,
                "scope": self.scope,
                "period": {"from": FROM, "to": TO},
                "created_at": "2026-07-05T00:00:00.000000Z",
                "log": NAME,
                "heads": [{"shard": shard, "size": size} for shard, size in enumerate(self.sizes)],
                "chain": {"org_seq": len(lines), "leaf": merkle.leaf_hash(lines[-1]["leaf"].encode()).hex()},
                "counts": {
                    "events": len(lines),
                    "disclosed": sum("payload" in line for line in lines),
                    "erased": sum("erased" in line for line in lines),
                    "receipts": sum(name.startswith("receipts/") for name in self.files),
                },
            },
        }

    def sign(self) -> None:
        """Sign the statement, and say in the log what it is."""
        raw = rfc8785.dumps(self.statement)
        signed = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(raw), raw)
        public = self.evidence_key.public_key().public_bytes_raw()
        signature = {"keyid": sha256(public), "sig": b64(self.evidence_key.sign(signed))}
        self.files["manifest.json"] = rfc8785.dumps(
            {"payloadType": _PAYLOAD_TYPE, "payload": b64(raw), "signatures": [signature]}
        )
        metadata = {"statement_sha256": sha256(raw), "events": str(self.statement["predicate"]["counts"]["events"])}
        moment = "2026-07-05T00:00:01.000000Z"
        self.sealing = event("audit.evidence.seal", f"evidence/{BUNDLE}", moment, metadata=metadata)

    def close(self) -> None:
        """Log the seal, and prove it."""
        sealed, tree = self.log.add(self.sealing, self.sealing["occurred_at"], "audit"), self.log.trees[-1]
        self.log.others(3)
        ranges = merkle.consistency_ranges(self.sizes[-1], tree.size)
        consistency = [b64(each) for each in tree.hashes(ranges)]
        proven = self.proven(sealed, tree.size)
        self.seal = {"v": 1, **proven, "consistency": consistency, "key_manifest": self.manifest()}

    def finish(self) -> None:
        """Write the seal's file."""
        self.files["seal.json"] = rfc8785.dumps(self.seal)


STAGES = ("happen", "write", "state", "sign", "close", "finish")


def bundled(bundling: Bundling | None = None, **changes: Change) -> Bundling:
    """A bundle. A change is applied before the stage that it is named after, or at the "end"."""
    found = bundling or Bundling()
    assert changes.keys() <= {*STAGES, "end"}
    for stage in STAGES:
        if stage in changes:
            changes[stage](found)
        run: Callable[[], None] = getattr(found, stage)
        run()
    if "end" in changes:
        changes["end"](found)
    return found


def folder(files: dict[str, bytes], path: Path) -> str:
    """The bundle as a folder."""
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return str(path)


def zipped(files: dict[str, bytes], path: Path) -> str:
    """The bundle as a zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return str(path)


def shown(placed: Placed) -> Document:
    """Leaf, payload and salt."""
    return {"leaf": placed.leaf.decode(), "payload": placed.payload.decode(), "salt": b64(placed.salt)}
