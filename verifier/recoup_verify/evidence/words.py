"""Says in plain words, and as facts for programs, what was proved of a bundle and what was not. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recoup_verify.evidence.bundle import Proved, check_evidence
from recoup_verify.log import Trust


def told(files: Sequence[str], trust: Trust) -> tuple[list[str], dict[str, Any]]:
    """What is proved of a bundle, in words and as facts. Raises Disproved, CannotTell."""
    proved = check_evidence(files[0], trust)
    claim, seal, published = proved.claim, proved.seal, proved.published
    counts, period, open_ends = claim["counts"], claim["period"], _not_proved(proved)
    lines = [
        f"PROVED: evidence {claim['bundle_id']} of organization {claim['organization_id']}.",
        f"  scope      {claim['scope']}, from {period['from']} to before {period['to']}; made {claim['created_at']}",
        f"  files      {proved.files}, each the one that was signed, no other among them",
        f"  events     {counts['events']}: the organization's, from its first on, without a gap",
        f"             {counts['disclosed']} shown, {counts['erased']} said to be erased, {proved.withheld} not shown",
        *(f"  log        {head.origin}: in its tree of {head.size} leaves" for head in proved.heads),
        f"  sealed     {seal.leaf['appended_at']}, leaf {seal.position} of {seal.head.size} in {seal.head.origin}",
    ]
    if published:
        lines.append(
            f"  complete   to number {published.org_seq}, as the log published it {published.at} for everybody"
        )
    for receipt in proved.receipts.values():
        amount = f"{receipt['economic']['amount'] or 'no amount'} {receipt['economic']['currency']}"
        lines.append(f"  receipt    {receipt['receipt_id']}: {receipt['decision']}, {amount} in {receipt['days']} days")
    facts = {
        **{name: claim[name] for name in ("bundle_id", "organization_id", "scope", "period", "counts", "chain")},
        "heads": [{"origin": head.origin, "size": head.size, "root": head.root.hex()} for head in proved.heads],
        "seal": {"index": seal.position, "size": seal.head.size, "origin": seal.head.origin},
        "cosigned": list(seal.head.cosigned),
        "published": published._asdict() if published else None,
        "withheld": proved.withheld,
        "recoveries": [each._asdict() for each in proved.recoveries],
        "loose": proved.loose,
        "receipts": sorted(proved.receipts),
        "not_proved": open_ends,
    }
    return [*lines, *(f"Not proved: {words}." for words in open_ends)], facts


def _not_proved(proved: Proved) -> list[str]:
    """What nobody may read into a proved bundle."""
    counts, published = proved.claim["counts"], proved.published
    found = [
        "that what the events say is true, and that everything that happened became an event",
        "what CSV and HTML files show, and what scans.json and keys.json say beside the events that they name: they are"
        " the ones that were signed, no more",
        "what stands open in each receipt: recoup-verify receipt says it",
        f"that the log's operator shows everybody the same log: {proved.seal.head.countersigned}",
    ]
    if proved.seal.head.shard != proved.heads[-1].shard:
        found.append("that the seal's head continues the bundle's newest one: a shard begins between the two")
    if not published:
        found.append("that no event followed the last one: the bundle has nothing that the log published of its heads")
    else:
        found.append(
            f"that the log recorded nothing more of the organization after it published its head {published.at}"
        )
    for recovery in proved.recoveries:
        found.append(
            f"what stood in {recovery.lost}: they were signed and are lost, as the log's root says where shard"
            f" {recovery.shard} begins; the organization's chain here is the one that went on without them"
        )
    if proved.loose:
        found.append(
            f"when the {proved.loose} events were logged that stand behind a shard's last head since a recovery: what"
            " follows them in the organization's chain is signed, they themselves aren't"
        )
    if proved.withheld:
        found.append(
            f"what the {proved.withheld} events say that aren't shown: by scope or period they needn't be; each stands"
            " in the chain, and the time at which it was recorded"
        )
    if counts["erased"]:
        found.append(
            f"that the {counts['erased']} payloads that are said to be erased can't be read any more, or whose they are"
        )
    if proved.unfinished:
        found.append("receipts that aren't in the bundle, though events in it say that they were issued")
    return found
