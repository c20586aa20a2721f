"""The witness as a process: it cosigns what continues what it saw, and nothing else, whatever happens to it."""

from __future__ import annotations

import fcntl
import json
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.audit.model.notes import Note, Signer, TreeHead
from services.audit.model.witnessing import MAX_BODY_BYTES, Submission
from tests.support.mesh import until
from tests.support.witnessing import ORIGIN, GrowingLog, WitnessProcess, running_witness


@pytest.fixture
def log() -> GrowingLog:
    return GrowingLog()


@pytest.fixture
def witness(tmp_path: Path, log: GrowingLog) -> Iterator[WitnessProcess]:
    with running_witness(tmp_path, [log.signer.verifier_key.text()]) as made:
        yield made


def test_a_checkpoint_that_continues_is_cosigned_and_an_older_or_forked_one_never(
    witness: WitnessProcess, log: GrowingLog
) -> None:
    first = witness.cosigned(log.submission(0, 5))
    assert abs(first.at - time.time()) < 600
    witness.cosigned(log.submission(5, 5))
    witness.cosigned(log.submission(5, 12))
    # Where the log thinks of another size, it is told the right one.
    for old, size in ((0, 12), (5, 12), (11, 12), (5, 5)):
        answer = witness.submit(log.submission(old, size))
        assert (answer.status_code, answer.headers["content-type"], answer.text) == (409, "text/x.tlog.size", "12\n")
    # A fork is refused, at the same size, with a proof and without one.
    fork = GrowingLog(log.signer, forked=9)
    assert witness.submit(fork.submission(12, 12)).status_code == 409
    assert witness.submit(fork.submission(12, 20)).status_code == 422
    assert witness.submit(Submission(12, [], log.note(20))).status_code == 422
    assert witness.submit(Submission(21, [], log.note(20))).status_code == 400
    witness.cosigned(log.submission(12, 20))


def test_only_known_keys_of_known_logs_are_cosigned(witness: WitnessProcess, log: GrowingLog) -> None:
    stranger = GrowingLog(origin="other.example/log")
    assert witness.submit(stranger.submission(0, 3)).status_code == 404
    assert witness.submit(GrowingLog(origin=f"{ORIGIN}s").submission(0, 3)).status_code == 404
    assert witness.submit(GrowingLog(Signer(ORIGIN, Ed25519PrivateKey.generate())).submission(0, 3)).status_code == 403
    # Signed by the right key under its name, with another text.
    good = log.submission(0, 3)
    assert witness.submit(Submission(0, [], good.note.replace("\n3\n", "\n4\n"))).status_code == 403
    # Lines of others beside the log's are ignored.
    other = Signer("somebody.example", Ed25519PrivateKey.generate()).sign(Note.parse(good.note).text)
    witness.cosigned(Submission(0, [], good.note + other.partition("\n\n")[2]))


def test_shards_are_logs_of_their_own_under_the_same_key(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    zero, one = GrowingLog(Signer(ORIGIN, key)), GrowingLog(Signer(f"{ORIGIN}/1", key), origin=f"{ORIGIN}/1")
    with running_witness(tmp_path, [zero.signer.verifier_key.text()]) as witness:
        witness.cosigned(zero.submission(0, 5))
        witness.cosigned(one.submission(0, 2))
        witness.cosigned(one.submission(2, 9))
        witness.cosigned(zero.submission(5, 6))
        for odd in (f"{ORIGIN}/0", f"{ORIGIN}/01", f"{ORIGIN}/1/1", f"{ORIGIN}/12345"):
            assert witness.submit(GrowingLog(Signer(odd, key), origin=odd).submission(0, 3)).status_code == 404


def test_a_rotated_key_is_taken_up_from_the_file(witness: WitnessProcess, log: GrowingLog) -> None:
    witness.cosigned(log.submission(0, 5))
    after = GrowingLog(Signer(ORIGIN, Ed25519PrivateKey.generate()))
    assert witness.submit(after.submission(5, 8)).status_code == 403
    keys = (log.signer.verifier_key.text(), after.signer.verifier_key.text())
    witness.vkeys.write_text("\n".join(keys) + "\n")
    witness.cosigned(after.submission(5, 8))
    witness.cosigned(log.submission(8, 9))
    # A file that can't be read is no leave to cosign, nor to forget.
    witness.vkeys.write_text("not a key\n")
    assert witness.submit(log.submission(9, 10)).status_code == 500
    witness.vkeys.write_text("\n".join(keys) + "\n")
    witness.cosigned(log.submission(9, 10))


def test_a_killed_witness_remembers_what_it_cosigned(witness: WitnessProcess, log: GrowingLog) -> None:
    for old, size in ((0, 5), (5, 17)):
        witness.cosigned(log.submission(old, size))
        witness.kill()
        witness.start()
    answer = witness.submit(GrowingLog(log.signer, forked=1).submission(0, 18))
    assert (answer.status_code, answer.text) == (409, "17\n")
    witness.cosigned(log.submission(17, 18))


def test_a_state_that_cannot_be_read_is_never_taken_for_none(witness: WitnessProcess, log: GrowingLog) -> None:
    witness.cosigned(log.submission(0, 5))
    (path,) = witness.state.glob("*.json")
    kept = path.read_text()
    for broken in ("", "{}", kept[:-9], kept.replace(ORIGIN, "another.example/log")):
        path.write_text(broken)
        assert witness.submit(log.submission(0, 7)).status_code == 500
    path.write_text(kept)
    assert json.loads(kept)["size"] == 5
    witness.cosigned(log.submission(5, 7))


def test_comparing_and_persisting_are_one_step(witness: WitnessProcess, log: GrowingLog) -> None:
    """A request that finds the log in other hands waits, and is then held against what was cosigned meanwhile."""
    witness.cosigned(log.submission(0, 4))
    (path,), (lock,) = witness.state.glob("*.json"), witness.state.glob("*.lock")
    fork, fork_path = GrowingLog(log.signer, forked=4), path.with_suffix(".fork")
    content = json.loads(path.read_text()) | {"size": 9, "note": fork.note(9), "root": fork.root(9).hex()}
    with lock.open() as held, ThreadPoolExecutor(1) as pool:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = f":{lock.stat().st_ino} "
        answer = pool.submit(witness.submit, log.submission(4, 12))

        def blocked() -> bool | None:
            lines = Path("/proc/locks").read_text().splitlines()
            return any("->" in line and waiting in line for line in lines) or answer.done() or None

        until(blocked)
        assert not answer.done()
        fork_path.write_text(json.dumps(content))
        fork_path.replace(path)
        fcntl.flock(held, fcntl.LOCK_UN)
        assert (answer.result(30).status_code, answer.result().text) == (409, "9\n")


def test_of_many_forks_at_once_one_is_cosigned(witness: WitnessProcess, log: GrowingLog) -> None:
    witness.cosigned(log.submission(0, 4))
    forks = [GrowingLog(log.signer, forked=4 + n % 8) for n in range(16)]
    submissions = [fork.submission(4, 12 + n % 3) for n, fork in enumerate(forks)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(witness.submit, submissions))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 15]


NO_SUBMISSIONS = (
    b"",
    b"\xff\xfe%s",
    b"old 0",
    b"old 0\n\n",
    b"old 00\n\n%s",
    b"old -1\n\n%s",
    b"old \n\n%s",
    b"0\n\n%s",
    b"old 0\nAAAA\n\n%s",
    b"old 0\n!\n\n%s",
    b"old 0\n" + b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" * 64 + b"\n%s",
    b"old 0\r\n\r\n%s",
)


def test_what_is_no_submission_is_400(witness: WitnessProcess, log: GrowingLog) -> None:
    for body in NO_SUBMISSIONS:
        content = body.replace(b"%s", log.note(3).encode())
        assert witness.client.post("/add-checkpoint", content=content).status_code == 400, body
    witness.cosigned(log.submission(0, 3))


def test_a_first_checkpoint_needs_no_proof_and_an_empty_tree_is_the_empty_one(
    witness: WitnessProcess, log: GrowingLog
) -> None:
    assert witness.submit(Submission(0, [b"\1" * 32], log.note(3))).status_code == 422
    odd = log.signer.sign(TreeHead(ORIGIN, 0, b"\1" * 32).text())
    assert witness.submit(Submission(0, [], odd)).status_code == 422
    witness.cosigned(log.submission(0, 0))
    witness.cosigned(log.submission(0, 3))


def test_bodies_are_bounded_and_only_one_thing_is_served(witness: WitnessProcess, log: GrowingLog) -> None:
    assert witness.client.post("/add-checkpoint", content=b"x" * (MAX_BODY_BYTES + 1)).status_code == 413
    assert witness.client.get("/add-checkpoint").status_code == 405
    assert witness.client.post("/other").status_code == 404
    witness.cosigned(log.submission(0, 3))


def test_who_connects_and_says_nothing_is_sent_away(witness: WitnessProcess) -> None:
    context = ssl.create_default_context(cafile=str(witness.ca.cert_file))
    with (
        socket.create_connection(("localhost", witness.port), timeout=30) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"POST /add-checkpoint HTTP/1.1\r\nhost: x\r\n")
        assert connection.recv(1) == b""
