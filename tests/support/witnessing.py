"""A real witness process for tests, and a log of its own whose checkpoints it is given."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recoup_local import keys
from recoup_local.ca import LocalCa
from recoup_local.embedded.nats import free_port
from services.audit.model import merkle
from services.audit.model.cosigning import Cosignature, WitnessKey, find_cosignature
from services.audit.model.notes import Signer, TreeHead
from services.audit.model.witnessing import Submission
from tests.support.mesh import until

ORIGIN = "recoup-test.local.invalid/log"


class GrowingLog:
    """A log that signs heads of any size that it has reached. A fork of it differs from leaf `forked` on."""

    def __init__(self, signer: Signer | None = None, *, forked: int | None = None, origin: str = ORIGIN) -> None:
        self.origin, self._forked = origin, forked
        self.signer = signer or Signer(origin, Ed25519PrivateKey.generate())
        self._frontier, self._nodes = merkle.Frontier(), dict[merkle.Node, bytes]()
        self._roots = [self._frontier.root()]

    def _grow(self, size: int) -> None:
        while self._frontier.size < size:
            index = self._frontier.size
            other = self._forked is not None and index >= self._forked
            leaf = merkle.leaf_hash(f"{'other' if other else 'leaf'} {index}".encode())
            self._nodes |= {(h, p): digest for h, p, digest in self._frontier.append(leaf)}
            self._roots.append(self._frontier.root())

    def note(self, size: int) -> str:
        """The signed checkpoint of a size."""
        return self.signer.sign(TreeHead(self.origin, size, self.root(size)).text())

    def root(self, size: int) -> bytes:
        """The root at a size."""
        self._grow(size)
        return self._roots[size]

    def submission(self, old: int, size: int) -> Submission:
        """A checkpoint with the proof that it continues an older one."""
        note = self.note(size)
        ranges = merkle.consistency_ranges(old, size) if 0 < old < size else []
        return Submission(old, merkle.hash_ranges(ranges, self._nodes), note)


class WitnessProcess:
    """`python -m services.audit.witness`, as it runs in an installation."""

    def __init__(self, folder: Path, vkeys: list[str], name: str = "witness-test.local.invalid") -> None:
        self.folder, self.ca = folder, LocalCa(folder / "ca")
        self.ca.issue("audit-witness", folder, dns=("audit-witness",))
        made = keys.witness_key(folder, name)
        self.key, self.port, self.health_port = WitnessKey.parse(made.verifier_key), free_port(), free_port()
        self.state, self.vkeys = folder / "state", folder / "logs.vkeys"
        self.state.mkdir()
        self.vkeys.write_text("\n".join(vkeys) + "\n")
        (folder / "trust").mkdir()
        self.config = folder / "config.toml"
        self.config.write_text(
            f"""[process]
name = "audit-witness"
profile = "local"
listen = "127.0.0.1:{self.health_port}"
[tls]
ca = "ca/ca.pem"
cert = "tls.pem"
key = "tls.key"
[trust]
dir = "trust"
[witness]
listen = "127.0.0.1:{self.port}"
name = "{name}"
key = "witness.key"
state = "state"
log_keys = "logs.vkeys"
header_seconds = 1.0
"""
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(
            base_url=self.url, verify=ssl.create_default_context(cafile=str(self.ca.cert_file)), timeout=20.0
        )

    @property
    def url(self) -> str:
        """Where it answers; the certificate is good for this name."""
        return f"https://localhost:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "services.audit.witness", "--config", str(self.config)]
        with (self.folder / "witness.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until(self._answers)

    def _answers(self) -> bool | None:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "witness.log").read_text()
        try:
            return self.client.get("/").status_code == 404 or None
        except httpx.TransportError:
            return None

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it as asked, and close the client."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(20)
        self.client.close()

    def submit(self, submission: Submission) -> httpx.Response:
        """POST a checkpoint."""
        return self.client.post("/add-checkpoint", content=submission.text().encode())

    def cosigned(self, submission: Submission) -> Cosignature:
        """POST a checkpoint that must be cosigned; the cosignature, checked."""
        answer = self.submit(submission)
        assert answer.status_code == 200, answer.text
        return find_cosignature(submission.note, answer.text, self.key)


@contextmanager
def running_witness(
    folder: Path, vkeys: list[str], name: str = "witness-test.local.invalid"
) -> Iterator[WitnessProcess]:
    """A witness that runs, for these logs."""
    made = WitnessProcess(folder, vkeys, name)
    try:
        made.start()
        yield made
    finally:
        made.stop()
