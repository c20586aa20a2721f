"""The story's mesh is backed up: the backup holds no secret, verifies, and becomes a mesh whose receipts verify."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from services._mesh.config import load_settings
from services.backup.config import BackupSettings
from services.backup.desk import Desk
from services.backup.model.parts import Place
from tests.mesh.test_saving import verify as verify_receipt
from tests.support.canary import Canary
from tests.support.mesh import Person, until
from tests.support.restored_mesh import backup, restored_mesh, run
from tests.support.story import Told

pytestmark = pytest.mark.xdist_group("story")


@pytest.fixture(scope="module")
def made(told: Told) -> dict[str, object]:
    """What `create` said."""
    return backup(told.made.mesh, "create")


async def opened(config: Path, backup_id: UUID) -> dict[str, bytes]:
    """All that a backup holds, table by table, as whoever has its keys sees it."""
    desk = Desk(load_settings(BackupSettings, config), config, lambda _line: None)
    kept = await desk._keep.open(backup_id)
    found = {"manifest": kept.manifest.as_json()}
    for name, copy in kept.manifest.databases.items():
        for table in copy.tables:
            parts = [
                await desk._keep.get_part(Place(backup_id, name, table.name, number), digest, kept.keys[name])
                for number, digest in enumerate(table.parts)
            ]
            found[table.name] = b"".join(parts)
    await desk.close()
    return found


def test_the_key_is_in_no_backup(told: Told, made: dict[str, object]) -> None:
    """Neither in its files nor in what they hold once they are opened."""
    mesh, canary = told.made.mesh, Canary(told.made.base_user.secret_access_key)
    assert canary.found_below(mesh.state / "backups") == {}
    content = asyncio.run(opened(mesh.installation.config_file("backup"), UUID(str(made["backup_id"]))))
    assert len(content["scanner.credentials"]) > 100
    assert {name: canary.writings_in(text) for name, text in content.items() if canary.writings_in(text)} == {}
    # What does stand in a table is found in it: a secret that was kept there by mistake would be.
    assert "raw" in Canary(told.made.base_user.access_key_id).writings_in(content["scanner.connections"])
    # Nothing else that is sealed or named in the databases stands in the backup's files in the clear.
    assert Canary("created_at").found_below(mesh.state / "backups") == {}


def test_a_fresh_mesh_on_the_backup_proves_what_the_first_one_did(
    told: Told, made: dict[str, object], tmp_path: Path
) -> None:
    receipt_id = told.story.facts["receipts"][-1]["receiptId"]
    with restored_mesh(told.made.mesh) as mesh:
        assert mesh.said["backup_id"] == made["backup_id"]
        finance = Person(mesh, "acme", mesh.token("acme", "Finance"))
        bundle = finance.get(f"/receipts/{receipt_id}")["bundle"]
        code, said = verify_receipt(told, bundle.encode(), tmp_path)
        assert (code, said["verdict"]) == (0, "proved"), said
        # The signer goes on from the backup's checkpoint: what happens now is proven after what was.
        admin = Person(mesh, "acme", mesh.token("acme", "Admin"))
        admin.post("/roles", {"name": "restorers", "permissions": ["audit.event.read"]})

        def newest() -> dict[str, Any] | None:
            found = admin.get("/events", pageSize=1, action="identity.role.create")["events"]
            return found[0] if found and int(found[0]["index"]) >= int(str(made["log_place"])) else None

        event = until(newest)
        until(lambda: admin.call("GET", f"/events/{event['eventId']}/proof").status_code == 200 or None)
        checked = run(
            "services.audit.selfcheck",
            *("--config", str(mesh.installation.config_file("audit"))),
            *("--key", mesh.installation.log.verifier_key),
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_backup_verifies_to_the_log_s_last_leaf(told: Told, made: dict[str, object]) -> None:
    mesh = told.made.mesh
    found = backup(mesh, "verify", "--backup", str(made["backup_id"]))
    assert (found["log"], found["rows"]) == ("sound", made["rows"])
    # With another log's key it doesn't.
    config = mesh.installation.config_file("backup")
    other = config.with_name("other.toml")
    key = mesh.installation.log
    other.write_text(config.read_text().replace(key.verifier_key, key.root_verifier_key))
    other.chmod(0o600)
    refused = run("services.backup", "verify", "--config", str(other), "--backup", str(made["backup_id"]))
    assert (refused.returncode, "the restored log doesn't check out" in refused.stderr) == (1, True)
