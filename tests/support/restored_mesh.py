"""A fresh mesh on a backup: new databases, JetStream and processes, and the key files that an operator keeps apart."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recoup_local.ca import write_secret
from recoup_local.embedded.nats import EmbeddedNats
from recoup_local.embedded.postgres import PostgresHandle, create_database
from recoup_local.layout import KEYS_DATABASE
from recoup_local.supervisor import LocalMesh
from tests.support.mesh import close_people

# Who reads, proves and signs. No cloud, and so no worker.
PROCESSES = ("audit-signer", "audit", "identity", "scanner", "pricing", "actions", "broker", "gateway", "audit-witness")
COMMAND_SECONDS = 300


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the commands, and wait for its end."""
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)


def backup(mesh: LocalMesh, command: str, *arguments: str, config: Path | None = None) -> dict[str, object]:
    """Run `recoup backup`; gives what it says. Fails the test where it fails."""
    file = config or mesh.installation.config_file("backup")
    done = run("services.backup", command, "--config", str(file), "--json", *arguments)
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


class RestoredMesh(LocalMesh):
    """A mesh that begins with what `origin` backed up, and with its keys."""

    def __init__(self, state: Path, origin: LocalMesh) -> None:
        super().__init__(state, cloud=False, only=PROCESSES, fsync=False)
        self._origin = origin
        self.said: dict[str, object] = {}
        mine, theirs = self.installation, origin.installation
        for name in ("processes", "trust", "clients", "nats-tls"):
            shutil.copytree(origin.state / name, state / name, dirs_exist_ok=True)
        for name in ("ca", "issuer", "log", "ring", "backup_ring", "subject_kek", "witness"):
            setattr(mine, name, getattr(theirs, name))
        self._nats = EmbeddedNats(state, mine.nats_users(), mine.nats_tls())
        # What the signer and the witness remember isn't there: both are begun anew.
        for path in mine.folder("audit-signer").glob("signed*"):
            path.unlink()
        shutil.rmtree(mine.folder("audit-witness") / "state")
        (mine.folder("audit-witness") / "state").mkdir(mode=0o700)
        self.clock.set_now(origin.clock.now())

    async def _prepare_database(self, handle: PostgresHandle) -> None:
        keys = {role: word for role, word in self.installation.passwords.items() if role.startswith("subjects_")}
        rest = {role: word for role, word in self.installation.passwords.items() if role not in keys}
        await create_database(handle, KEYS_DATABASE)
        await self._bootstrap(handle, handle.dbname, "bootstrap.sql", rest)
        await self._bootstrap(handle, KEYS_DATABASE, "bootstrap_keys.sql", keys)
        self.said = await asyncio.to_thread(backup, self, "restore", config=self._targets(handle))
        note = self.state / "newest.checkpoint"
        note.write_text(str(self.said["checkpoint"]))
        config = self.installation.config_file("audit-signer")
        begun = run("services.audit.signer_begin", "--config", str(config), "--signed", str(note))
        assert begun.returncode == 0, begun.stderr

    def _targets(self, handle: PostgresHandle) -> Path:
        """The origin's configuration of backups, with where to restore to."""
        folder = self.installation.folder("backup")
        write_secret(folder / "superuser.password", handle.superuser_password)
        text = self._origin.installation.config_file("backup").read_text()
        for name, dbname in (("main", handle.dbname), ("keys", KEYS_DATABASE)):
            text += f'[target.{name}]\nhost = "{handle.socket_dir}"\nport = {handle.port}\ndbname = "{dbname}"\n'
            text += f'user = "{handle.superuser}"\npassword_file = "superuser.password"\n'
        return write_secret(folder / "restore.toml", text)

    async def _create_people(self) -> None:
        """They are in the backup."""


@contextmanager
def restored_mesh(origin: LocalMesh) -> Iterator[RestoredMesh]:
    """A mesh on the newest backup of another one, which goes on; taken down at the end."""
    state = Path(tempfile.mkdtemp(prefix="recoup-restored-"))
    mesh = RestoredMesh(state, origin)
    try:
        asyncio.run(mesh.start())
        yield mesh
    finally:
        close_people(mesh)
        mesh.stop()
        shutil.rmtree(state, ignore_errors=True)
