"""The operator's commands on a real installation: the self-check with each exit code, a recovery from end to end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from recoup_local.embedded.postgres import connect
from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh, query
from services.audit.model.notes import Signer
from tests.support.appending import append
from tests.support.log import event
from tests.support.mesh import small_mesh, until

pytestmark = pytest.mark.xdist_group("operator")

ACME = UUID(str(organization_id("acme")))
SOUND, BAD, UNKNOWN = 0, 1, 2


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    """The log, its signer, and a producer."""
    with small_mesh("audit-signer", "audit", "identity") as made:
        yield made


def command(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `python -m services.audit.<module>` as an operator does."""
    line = [sys.executable, "-m", f"services.audit.{module}", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


def selfcheck(mesh: LocalMesh, *arguments: str) -> subprocess.CompletedProcess[str]:
    return command("selfcheck", "--config", mesh.installation.config_file("audit"), *arguments)


def appended(mesh: LocalMesh, first: int, count: int) -> list[int]:
    """Events of pricing's, which are durable when this returns."""
    events = [event(n, ACME, action="pricing.test.act") for n in range(first, first + count)]
    return asyncio.run(append(mesh, events))


def signed(mesh: LocalMesh, shard: int) -> dict[str, object]:
    """What the signer remembers of a shard."""
    name = f"signed.{shard}.json" if shard else "signed.json"
    path = mesh.installation.folder("audit-signer") / name
    return dict(json.loads(path.read_text())) if path.exists() else {"size": 0}


def tamper(mesh: LocalMesh, statement: str) -> None:
    """A superuser's statement whom no trigger stops."""

    async def run() -> None:
        assert mesh.postgres is not None
        connection = await connect(mesh.postgres)
        try:
            await connection.execute("SET event_triggers = off")
            await connection.execute("ALTER TABLE audit.entries DISABLE TRIGGER append_only")
            await connection.execute(statement)
            await connection.execute("ALTER TABLE audit.entries ENABLE ALWAYS TRIGGER append_only")
        finally:
            await connection.close()

    asyncio.run(run())


def test_the_self_check_ends_with_0_1_or_2(mesh: LocalMesh) -> None:
    appended(mesh, 1, 5)
    until(lambda: True if selfcheck(mesh, "--last").returncode == SOUND else None)
    vkey = (mesh.state / "log.vkey").read_text().strip()
    for arguments in ((), ("--recent",), ("--last",), ("--key", vkey)):
        done = selfcheck(mesh, *arguments)
        assert (done.returncode, done.stderr) == (SOUND, ""), arguments
        assert done.stdout.endswith("the log is what it should be\n")
    assert mesh.postgres is not None
    wanted = "SELECT idx FROM audit.entries WHERE action = 'pricing.test.act' ORDER BY idx OFFSET 2 LIMIT 1"
    index = asyncio.run(query(mesh.postgres, wanted))[0][0]
    flip = f"UPDATE audit.entries SET leaf = set_bit(leaf, 9, 1 - get_bit(leaf, 9)) WHERE idx = {index}"
    tamper(mesh, flip)
    for arguments in ((), ("--key", vkey)):
        done = selfcheck(mesh, *arguments)
        assert done.returncode == BAD
        assert f"BAD index {index}, entries.leaf: the leaf isn't the one whose hash the tree has" in done.stdout
        assert done.stdout.endswith("THE LOG WAS CHANGED\n")
    assert selfcheck(mesh, "--last").returncode == SOUND  # The process itself hasn't looked again.
    tamper(mesh, flip)
    assert selfcheck(mesh).returncode == SOUND
    # Under a key that isn't the log's, nothing is signed.
    other = Signer(mesh.installation.log.origin, Ed25519PrivateKey.generate()).verifier_key.text()
    done = selfcheck(mesh, "--key", other)
    assert done.returncode == BAD
    assert "checkpoints.note: a signature is of a key that isn't the log's" in done.stdout


def test_what_cant_be_told_ends_with_2(mesh: LocalMesh, tmp_path: Path) -> None:
    for arguments in (
        ("--config", tmp_path / "missing.toml"),
        ("--config", mesh.installation.config_file("audit"), "--key", "nonsense"),
        (),
    ):
        done = command("selfcheck", *arguments)
        assert (done.returncode, done.stdout) == (UNKNOWN, "")
        assert done.stderr
    mesh.kill("audit-signer")
    done = selfcheck(mesh)
    assert (done.returncode, done.stdout) == (UNKNOWN, "")
    assert done.stderr.startswith("can't tell: ")
    asyncio.run(mesh.restart("audit-signer"))


async def databases(mesh: LocalMesh, *statements: str) -> None:
    assert mesh.postgres is not None
    admin = await connect(mesh.postgres, "postgres")
    try:
        for statement in statements:
            await admin.execute(statement)
    finally:
        await admin.close()


def started(mesh: LocalMesh) -> None:
    """Both at once: the one waits for the other's feed."""
    for name in ("audit", "identity"):
        mesh.launch(name)
    for name in ("audit", "identity"):
        asyncio.run(mesh.await_ready(name))


def stopped(mesh: LocalMesh, *statements: str) -> None:
    """With whoever uses the database killed, do something to it as a whole."""
    for name in ("audit", "identity"):
        mesh.kill(name)
    asyncio.run(databases(mesh, *statements))


def test_a_recovery_from_before_the_newest_shard(mesh: LocalMesh, tmp_path: Path) -> None:
    assert mesh.postgres is not None
    name, config = mesh.installation.log.origin, mesh.installation.config_file("audit")
    last = appended(mesh, 6, 3)[-1]
    until(lambda: True if int(str(signed(mesh, 0)["size"])) > last else None)
    whole = f"""CREATE DATABASE backup TEMPLATE "{mesh.postgres.dbname}" """
    stopped(mesh, whole)
    started(mesh)
    # A year later another shard is open, and signed.
    mesh.clock.set_now(datetime.now(UTC) + timedelta(days=366))
    assert appended(mesh, 9, 2)[-1] > 0
    until(lambda: True if int(str(signed(mesh, 1)["size"])) > 2 else None)
    stopped(
        mesh,
        f'DROP DATABASE "{mesh.postgres.dbname}" WITH (FORCE)',
        f'ALTER DATABASE backup RENAME TO "{mesh.postgres.dbname}"',
    )
    # Without a recovery nothing is signed, and the log says so.
    done = selfcheck(mesh)
    assert done.returncode == BAD
    assert "of shard 1 was signed" in done.stdout

    note, text, statement = (tmp_path / each for each in ("note", "text", "statement"))
    root = (mesh.state / "root.vkey").read_text().strip()
    signing = ("--name", name, "--text", text)
    opening = ("open", "--config", config, "--signed", note, "--statement", statement, "--root")
    # What an operator gets wrong: arguments, files, the note, the root.
    assert command("recover").returncode == UNKNOWN
    assert command("recover", "open", "--config", config).returncode == UNKNOWN
    done = command("recover", "statement", "--config", config, "--signed", note)
    assert (done.returncode, done.stdout) == (UNKNOWN, "")
    assert "No such file" in done.stderr
    note.write_text("nonsense")
    done = command("recover", "statement", "--config", config, "--signed", note)
    assert (done.returncode, done.stdout) == (BAD, "")
    assert done.stderr.startswith("refused: this isn't a signed checkpoint")
    note.write_text(json.dumps(signed(mesh, 1)))

    done = command("recover", "statement", "--config", config, "--signed", note)
    assert (done.returncode, done.stderr) == (SOUND, "")
    text.write_text(done.stdout)
    restored = asyncio.run(query(mesh.postgres, "SELECT size FROM audit.head"))[0][0]
    assert done.stdout.endswith(f"\nlost {name} {restored} {name}/1 {signed(mesh, 1)['size']}\n")
    stranger = tmp_path / "stranger.key"
    key = Ed25519PrivateKey.generate()
    stranger.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    stranger.chmod(0o600)
    done = command("recover", "sign", "--root-key", stranger, *signing)
    assert done.returncode == SOUND
    statement.write_text(done.stdout)
    done = command("recover", *opening, root)
    assert (done.returncode, done.stdout) == (BAD, "")
    assert done.stderr.startswith(f"refused: the statement isn't signed by {name}/root")
    assert command("recover", *opening, "nonsense").returncode == UNKNOWN
    # The root of another installation has signed it, and the operator names that one: the signer would refuse.
    done = command("recover", "sign", "--root-key", mesh.state / "offline" / "root.key", *signing)
    assert done.returncode == SOUND
    statement.write_text(done.stdout)
    for _ in range(2):  # Again is the same.
        done = command("recover", *opening, root)
        assert (done.returncode, done.stderr) == (SOUND, "")
        assert done.stdout == "shard 2 is opened when the audit process is started\n"

    started(mesh)
    until(lambda: True if appended(mesh, 9, 2)[-1] > 0 else None)
    until(lambda: True if int(str(signed(mesh, 2)["size"])) > 2 else None)
    rows = asyncio.run(query(mesh.postgres, "SELECT kind, closed_size FROM audit.shards ORDER BY shard"))
    assert [tuple(row) for row in rows] == [("FIRST", restored), ("LOST", 0), ("RECOVERY", None)]
    done = selfcheck(mesh)
    assert done.returncode == SOUND, done.stdout
