"""The key of the log is rotated in a running installation: no restart, the witness goes along, the log says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest

from recoup_local.rotating import rotate_log_key
from recoup_local.supervisor import LocalMesh, query
from recoup_verify.keys import read_manifest
from recoup_verify.log import Head, parse_key, verified_head
from services.audit.model.notes import Note
from services.audit.model.rotation import OVERLAP, CannotRotate
from tests.support.mesh import Person, small_mesh, until

# Not beside the nemesis, which leaves the machine little to do it in time.
pytestmark = pytest.mark.xdist_group("nemesis")

PROCESSES = ("audit-signer", "audit-witness", "audit", "identity", "gateway")
ROTATIONS = "SELECT target FROM audit.entries WHERE action = 'audit.key.rotate' ORDER BY idx"


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    with small_mesh(*PROCESSES) as made:
        yield made


def test_the_key_is_rotated_while_everything_runs(mesh: LocalMesh) -> None:
    auditor = Person(mesh, "acme", mesh.token("acme", "Auditor"))
    root, old = (parse_key((mesh.state / f"{name}.vkey").read_text()) for name in ("root", "log"))
    pids = {name: mesh.pid(name) for name in PROCESSES}

    def checked(lines: int) -> Head | None:
        """The newest checkpoint with so many lines of the log, under the manifest that is handed out."""
        answer = auditor.call("GET", "/log/checkpoint")
        # Nothing is signed yet, or the gateway hasn't found the process again that was just restarted.
        if answer.status_code in (404, 503):
            return None
        assert answer.status_code == 200, answer.text
        found = answer.json()
        head = verified_head(found["checkpoint"]["note"], read_manifest(found["keyManifest"], root))
        return head if len(Note.parse(found["checkpoint"]["note"]).lines) == lines else None

    def cosigned(size: int) -> bool | None:
        """Whether the witness has cosigned a head of this size or more."""
        rows = asyncio.run(query(handle, f"SELECT 1 FROM audit.cosignatures WHERE place >= {size}"))
        return bool(rows) or None

    def targets() -> list[str]:
        """The manifests that the log has a leaf of."""
        return [row["target"] for row in asyncio.run(query(handle, ROTATIONS))]

    assert mesh.postgres is not None
    handle = mesh.postgres
    admin = Person(mesh, "acme", mesh.token("acme", "Admin"))
    admin.post("/members", {"userId": str(uuid4()), "email": "new@acme.example.com", "role": "ROLE_VIEWER"})
    first = until(lambda: checked(1))
    until(lambda: cosigned(first.size))
    with pytest.raises(CannotRotate, match="no rotation is under way"):
        rotate_log_key(mesh.state, mesh.gateway_url, end=True)
    assert len(rotate_log_key(mesh.state, mesh.gateway_url, end=False)) == 2
    # Its leaf, first: the log may grow by other events too, and a manifest that is gone at once leaves none.
    until(lambda: len(targets()) == 1 or None)
    # The leaf of the rotation is under a head that both keys signed, and the witness follows.
    both = until(lambda: checked(2))
    assert both.size > first.size
    until(lambda: cosigned(both.size))
    new = parse_key((mesh.state / "log.vkey").read_text())
    assert new != old
    with pytest.raises(CannotRotate, match="30 days"):
        rotate_log_key(mesh.state, mesh.gateway_url, end=True)
    with pytest.raises(CannotRotate, match="under way"):
        rotate_log_key(mesh.state, mesh.gateway_url, end=False)
    mesh.clock.set_offset(OVERLAP + timedelta(minutes=1))
    rotate_log_key(mesh.state, mesh.gateway_url, end=True)
    alone = until(lambda: checked(1))
    assert (alone.shard, alone.size) > (both.shard, both.size)  # The year may turn in these thirty days.
    until(lambda: cosigned(alone.size))
    assert {name: mesh.pid(name) for name in PROCESSES} == pids
    # Each manifest has its leaf, and one only, also after a restart.
    until(lambda: len(targets()) == 2 or None)
    mesh.kill("audit-signer")
    asyncio.run(mesh.restart("audit-signer"))
    mesh.kill("audit")
    asyncio.run(mesh.restart("audit"))
    again = until(lambda: checked(1))
    assert (again.shard, again.size) >= (alone.shard, alone.size)
    found = until(lambda: auditor.call("GET", "/log/checkpoint").json() if checked(1) else None)
    assert read_manifest(found["keyManifest"], new).logs == read_manifest(found["keyManifest"], root).logs
    assert len(targets()) == len(set(targets())) == 2
    admin.client.close()
    auditor.client.close()
