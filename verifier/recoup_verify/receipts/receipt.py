"""Checks a receipt: every byte of its bundle, who did what in which order, and that the amounts follow from the rows.

What is proved and what isn't stands in FORMAT.md; how the amounts follow in METHOD.md.
"""

from __future__ import annotations

from typing import NamedTuple

from recoup_verify.documents import CannotTell, Disproved, UnknownVersion, read_canonical
from recoup_verify.envelope import open_envelope
from recoup_verify.keys import read_manifest
from recoup_verify.log import Key, Trust
from recoup_verify.savings.agreement import check_agreement
from recoup_verify.savings.bundle import VERSION, Bundle, read_bundle
from recoup_verify.savings.measurement import check_measurement
from recoup_verify.savings.papers import Papers, read_papers
from recoup_verify.savings.statement import expected_statement, signed_digest
from recoup_verify.savings.trail import Trail, check_trail


class ProvedReceipt(NamedTuple):
    """What was proved of a receipt: its documents, and the events that the log holds of it."""

    papers: Papers
    trail: Trail


def check_receipt(raw: bytes, key: Key | Trust) -> ProvedReceipt:
    """Check a bundle. Raises Disproved, CannotTell."""
    bundle = read_bundle(raw)
    try:
        proved = _check(bundle, key)
    except (Disproved, CannotTell) as error:
        if bundle.version > VERSION:
            raise UnknownVersion(f"bundles of version {bundle.version} are unknown to this verifier") from error
        if isinstance(error, UnknownVersion | Disproved):
            raise
        raise Disproved(str(error)) from error
    if bundle.version != VERSION:
        raise Disproved(f"the bundle says that it is version {bundle.version}, but all in it is of version {VERSION}")
    return proved


def _check(bundle: Bundle, key: Key | Trust) -> ProvedReceipt:
    """From the key that was given to what it vouches for, each thing before it is read."""
    trust = read_manifest(bundle.key_manifest, key)
    statement, receipt_key = open_envelope(bundle.envelope, trust.keys["receipt"])
    papers = read_papers(bundle, signed_digest(read_canonical(statement, "the statement")))
    check_agreement(papers)
    if expected_statement(papers) != statement:
        raise Disproved("the signed statement isn't the one that the receipt's documents give")
    trail = check_trail(bundle, papers, statement, trust)
    if not receipt_key.covers((trail.issue.head.shard, trail.issue.position)):
        raise Disproved("the receipt's key wasn't good for that part of the log: the issue is outside of its range")
    check_measurement(papers)
    return ProvedReceipt(papers, trail)
