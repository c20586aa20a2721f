"""Checks a receipt: every byte of its bundle, who did what in which order, and that the amounts follow from the rows.

What is proved and what isn't stands in FORMAT.md; how the amounts follow in METHOD.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recoup_verify.documents import CannotTell, Disproved, UnknownVersion, read_canonical
from recoup_verify.event import Proven
from recoup_verify.keys import open_envelope, read_manifest
from recoup_verify.log import Key, Trust
from recoup_verify.receipts.agreement import check_agreement
from recoup_verify.receipts.bundle import MAX_BYTES, VERSION, read_bundle
from recoup_verify.receipts.papers import Papers, moment_of, read_papers
from recoup_verify.receipts.statement import expected_statement, signed_digest
from recoup_verify.receipts.trail import check_trail
from recoup_verify.savings.measurement import check_measurement

__all__ = ["MAX_BYTES", "ProvedReceipt", "check_receipt"]


class ProvedReceipt(NamedTuple):
    """What was proved of a receipt: its documents, and the events that the log holds of it, in FORMAT.md's order."""

    papers: Papers
    trail: Sequence[Proven]


def check_receipt(raw: bytes, key: Key | Trust) -> ProvedReceipt:
    """Check a bundle. Raises Disproved, CannotTell."""
    bundle = read_bundle(raw)
    try:
        proved = _check(bundle, key)
    except (Disproved, CannotTell) as error:
        if bundle["v"] > VERSION:
            raise UnknownVersion(f"bundles of version {bundle['v']} are unknown to this verifier") from error
        if isinstance(error, UnknownVersion | Disproved):
            raise
        raise Disproved(str(error)) from error
    if bundle["v"] != VERSION:
        raise Disproved(f"the bundle says that it is version {bundle['v']}, but all in it is of version {VERSION}")
    return proved


def _check(bundle: Mapping[str, Any], key: Key | Trust) -> ProvedReceipt:
    """From the key that was given to what it vouches for, each thing before it is read."""
    trust = read_manifest(bundle["key_manifest"], key)
    statement, receipt_key = open_envelope(bundle["envelope"], trust.keys["receipt"])
    papers = read_papers(bundle, signed_digest(read_canonical(statement, "the statement")))
    check_agreement(papers)
    if expected_statement(papers) != statement:
        raise Disproved("the signed statement isn't the one that the receipt's documents give")
    trail = check_trail(bundle["events"], papers, statement, trust)
    if not receipt_key.covers((trail[-1].head.shard, trail[-1].position)):
        raise Disproved("the receipt's key wasn't good for that part of the log: the issue is outside of its range")
    decided = moment_of(papers.receipt["decided"]["at"], "receipt: decided.at").date()
    check_measurement(papers.baseline, papers.measurement, decided)
    return ProvedReceipt(papers, trail)
