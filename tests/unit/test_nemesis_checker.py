"""The checker of the nemesis: nothing wrong with an honest history, and each thing that may go wrong is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from random import Random
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recoup_verify.log import parse_key
from services.audit.model import merkle
from services.audit.model.leaf import Leaf
from services.audit.model.notes import Signer, TreeHead
from tests.support.nemesis.checker import check
from tests.support.nemesis.faults import deal
from tests.support.nemesis.history import Acknowledged, Answered, Committed, History, Logged, Outboxed

SIGNER = Signer("recoup-test.local.invalid/log", Ed25519PrivateKey.generate())
KEY = parse_key(SIGNER.verifier_key.text())
ACME, GLOBEX = UUID(int=1), UUID(int=2)
SIZE = 12


def entries() -> list[Logged]:
    """Two organizations' events of one producer, in turns."""
    found, chains = [], {ACME: (0, b""), GLOBEX: (0, b"")}
    for index in range(SIZE):
        organization, event_id = (ACME, GLOBEX)[index % 2], UUID(int=100 + index)
        seq, previous = chains[organization]
        leaf = Leaf(
            event_id, organization, seq + 1, previous, "pricing", seq + 1, datetime(2026, 1, 1, tzinfo=UTC), "00"
        ).encode()
        chains[organization] = seq + 1, merkle.leaf_hash(leaf)
        found.append(
            Logged(index, organization, seq + 1, event_id, "pricing", seq + 1, "pricing.x.y", f"r{index}", leaf)
        )
    return found


def honest() -> History:
    log = entries()
    frontier, nodes, notes = merkle.Frontier(), {}, []
    for entry in log:
        nodes |= {(h, p): digest for h, p, digest in frontier.append(merkle.leaf_hash(entry.leaf))}
        if frontier.size in (3, 7, SIZE):
            notes.append(signed(frontier.size, frontier.root()))
    return History(
        [Acknowledged(e.producer, e.organization_id, e.counter, e.event_id, e.index) for e in log],
        [Answered(e.organization_id, e.action, e.request_id) for e in log],
        [Committed(e.producer, e.organization_id, e.event_id) for e in log],
        {("pricing", ACME): SIZE // 2, ("pricing", GLOBEX): SIZE // 2},
        [Outboxed(e.producer, e.organization_id, e.counter, e.event_id, e.index) for e in log],
        log,
        notes,
        {size: merkle.hash_ranges(merkle.consistency_ranges(size, SIZE), nodes) for size in (3, 7)},
    )


def signed(size: int, root: bytes) -> str:
    return SIGNER.sign(TreeHead(KEY.name, size, root).text())


def test_an_honest_history_has_nothing_wrong() -> None:
    assert check(honest(), KEY) == []


def lost(history: History) -> None:
    history.log = history.log[:-1]


def twice(history: History) -> None:
    history.log = [*history.log, replace(history.log[0], index=SIZE)]


def swapped(history: History) -> None:
    first, second, *rest = history.log
    history.log = [replace(second, index=0), replace(first, index=1), *rest]


def unchained(history: History) -> None:
    history.log = [replace(e, leaf=e.leaf.replace(b'"prev_leaf":"', b'"prev_leaf":"ff')) for e in history.log]


def skipped_sequence(history: History) -> None:
    history.log = [*history.log[:-1], replace(history.log[-1], organization_seq=99)]


def another_counter(history: History) -> None:
    history.log = [*history.log[:-1], replace(history.log[-1], counter=SIZE)]


def same_counter(history: History) -> None:
    history.log = [*history.log[:-1], replace(history.log[-1], counter=1)]


def counted_more(history: History) -> None:
    history.counted = {**history.counted, ("pricing", ACME): 50}


def never_relayed(history: History) -> None:
    history.outbox = [replace(history.outbox[0], index=None)]


def relayed_elsewhere(history: History) -> None:
    history.outbox = [replace(history.outbox[0], index=5)]


def answered_for_nothing(history: History) -> None:
    history.answered.append(Answered(ACME, "pricing.x.y", "never"))


def committed_for_nothing(history: History) -> None:
    history.committed.append(Committed("pricing", ACME, UUID(int=7)))


def acknowledged_for_nothing(history: History) -> None:
    history.acknowledged.append(Acknowledged("pricing", ACME, 1, UUID(int=7), 3))


def acknowledged_elsewhere(history: History) -> None:
    history.acknowledged.append(replace(history.acknowledged[0], index=3))


def acknowledged_as_anothers(history: History) -> None:
    history.acknowledged.append(replace(history.acknowledged[0], producer="scanner"))


def forked(history: History) -> None:
    history.checkpoints.insert(1, signed(3, b"\x07" * 32))


def another_keys(history: History) -> None:
    stranger = Signer(KEY.name, Ed25519PrivateKey.generate())
    history.checkpoints.insert(0, stranger.sign(TreeHead(KEY.name, 3, b"\x07" * 32).text()))


def wrong_proof(history: History) -> None:
    history.consistency = {**history.consistency, 7: history.consistency[3]}


def unsigned_rest(history: History) -> None:
    history.checkpoints.pop()


def no_checkpoint(history: History) -> None:
    history.checkpoints.clear()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lost, "was acknowledged at 11 and isn't in the log"),
        (twice, "is in the log 2 times"),
        (swapped, "doesn't name its organization's leaf before it|isn't the root over the log's leaves"),
        (unchained, "doesn't name its organization's leaf before it"),
        (skipped_sequence, "from org_seq 5 to 99"),
        (another_counter, r"counters \[6, 7, 8, 9, 10\] of 12 are missing"),
        (same_counter, r"counters \[1\] are in the log twice"),
        (counted_more, r"counters \[7, 8, 9, 10, 11\] of 50 are missing"),
        (never_relayed, "was never relayed"),
        (relayed_elsewhere, "was relayed to 5 and isn't there"),
        (answered_for_nothing, "of request never was answered, and is in the log 0 times"),
        (committed_for_nothing, "was committed and isn't in the log"),
        (acknowledged_for_nothing, "was acknowledged at 3 and isn't in the log"),
        (acknowledged_elsewhere, "was acknowledged at 3 and is at 0"),
        (acknowledged_as_anothers, "as another producer's"),
        (forked, "isn't consistent with the last"),
        (another_keys, "a checkpoint that was seen isn't one"),
        (wrong_proof, "of size 7 isn't consistent with the last"),
        (unsigned_rest, "the last checkpoint has size 7, but the log has 12 entries"),
        (no_checkpoint, "no checkpoint was seen"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_is_wrong_is_named(harm: Callable[[History], None], words: str) -> None:
    history = honest()
    harm(history)
    assert re.search(words, "\n".join(check(history, KEY)))


def test_every_deck_of_faults_has_each_kind_once_and_the_seed_repeats_it() -> None:
    kinds = [f"fault {number}" for number in range(19)]
    dealt = list(islice(deal(Random(7), kinds), 3 * len(kinds)))
    decks = [dealt[start : start + len(kinds)] for start in range(0, len(dealt), len(kinds))]
    assert all(sorted(deck) == sorted(kinds) for deck in decks)
    assert decks[0] != decks[1] != kinds
    assert dealt == list(islice(deal(Random(7), kinds), len(dealt)))
    assert dealt != list(islice(deal(Random(8), kinds), len(dealt)))
