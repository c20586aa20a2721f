"""The offline verifier on bundles over a recovery: what the log's root said was lost, and those that say otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.model.notes import Signer
from tests.support.evidence_bundle import NAME, Bundling, Document, bundled
from tests.support.evidence_checks import check, lie, new

SIZE = 30  # of the first shard, where it was closed


def test_a_recovery_is_proved_and_what_it_lost_is_named(tmp_path: Path) -> None:
    proved = check(bundled(new(recovered={})), tmp_path)
    (recovery,) = proved.recoveries
    assert (recovery.shard, recovery.lost) == (1, f"the leaves {SIZE} to {SIZE + 4} of {NAME}")
    assert (recovery.after, recovery.before, proved.loose) == ((0, SIZE), (0, SIZE), 0)


def test_events_behind_the_last_head_that_is_left_are_counted(tmp_path: Path) -> None:
    proved = check(bundled(new(recovered={}, cut=3)), tmp_path)
    assert (proved.heads[0].size, proved.loose) == (SIZE - 3, 1)


def test_without_a_recovery_no_event_stands_behind_a_head(tmp_path: Path) -> None:
    lie(r"doesn't continue log/0/checkpoint: that isn't the shard's last one", tmp_path, new(cut=3))


STRANGER = Signer(f"{NAME}/root", Ed25519PrivateKey.generate())
ODD: list[tuple[Document, int, str]] = [
    ({"statement": STRANGER.sign("x\n")}, 0, "statement isn't signed by the key"),
    ({"statement": ""}, 0, "statement isn't a note"),
    ({"kind": "YEARLY"}, 0, "doesn't continue log/0/checkpoint"),
    ({"kind": None}, 0, "doesn't continue log/0/checkpoint"),
    ({"previous_size": str(SIZE - 1)}, 0, "or after what was signed"),
    ({"restored_size": str(SIZE - 1)}, 0, "ends before log/0/checkpoint"),
    ({"common_size": str(SIZE - 1)}, 0, "authorised another recovery"),
    ({"common_size": str(SIZE + 1)}, 0, "doesn't state the range that was lost"),
    ({"restored_size": "x"}, 0, "doesn't state the range that was lost"),
    ({"restored_size": str(SIZE - 3)}, 3, "has an event of shard 0, where it can't be"),
    ({"previous_origin": f"{NAME}/1"}, 0, "doesn't state the range that was lost"),
    ({"restored_origin": f"{NAME}/1"}, 0, "doesn't state the range that was lost"),
    ({"restored_origin": f"{NAME}/x"}, 0, "doesn't state the range that was lost"),
]


@pytest.mark.parametrize(("odd", "cut", "why"), ODD, ids=[f"{each[2]} {place}" for place, each in enumerate(ODD)])
def test_a_recovery_that_says_otherwise_is_disproved(odd: Document, cut: int, why: str, tmp_path: Path) -> None:
    lie(why, tmp_path, new(recovered=odd, cut=cut))


def test_a_statement_about_another_recovery_is_disproved(tmp_path: Path) -> None:
    """The root signed it, but it opens another shard than this one, or states another range."""
    root = Signer(f"{NAME}/root", new().log.root)
    text = f"{NAME}/recovery\nrecoup-recovery/v1\nopens {NAME}/2\nsigned {NAME} {SIZE + 5} x\nlost {SIZE} {SIZE + 5}\n"
    lie("the log's root authorised another recovery", tmp_path, new(recovered={"statement": root.sign(text)}))


def test_a_chain_that_ends_behind_a_head_is_disproved(tmp_path: Path) -> None:
    """Nothing that is signed follows its last event, so that it may be anybody's."""

    def ended(made: Bundling) -> None:
        del made.log.placed[14:]

    lie(
        "the last event stands under no signed head",
        tmp_path,
        new(recovered={}, cut=3),
        write=ended,
        state=lambda made: made.files.pop("head.json"),
    )
