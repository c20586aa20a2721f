"""The leaf of a key rotation: one for each manifest that the signer takes up, whoever asks again and however often."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services._mesh.clock import Clock
from services._mesh.errors import Problem, dependency_down
from services._mesh.relay import Relay
from services._mesh.uow import PLATFORM, Store
from services.audit.model.manifest import LOG, RECEIPT, ListedKey, Manifest, sign_manifest
from services.audit.model.notes import Signer
from services.audit.own_log import OwnLog
from services.audit.rotations import ACTION, Rotations
from tests.support.log import LOG as NAME
from tests.support.log import recorded, sequencer
from tests.support.postgres import TestDatabase

pytestmark = pytest.mark.services("audit")
ROOT = Signer(f"{NAME}/root", Ed25519PrivateKey.generate())


def manifest(*logs: ListedKey) -> str:
    keys = (*logs, ListedKey(RECEIPT, b"\3" * 32))
    return sign_manifest(Manifest(NAME, ROOT.verifier_key, keys), [ROOT])


ONE = manifest(ListedKey(LOG, b"\1" * 32))
TWO = manifest(ListedKey(LOG, b"\1" * 32), ListedKey(LOG, b"\2" * 32, 7))
ENDED = manifest(ListedKey(LOG, b"\1" * 32, 0, 9), ListedKey(LOG, b"\2" * 32, 7))


async def test_each_manifest_of_a_rotation_has_one_leaf(database: TestDatabase) -> None:
    api, relaying = database.role("audit_api"), database.role("audit_relay")
    store, said = Store(api, "audit", Clock()), [ONE]

    async def handed_out() -> str:
        if not said[0]:
            raise dependency_down("audit-signer")
        return said[0]

    async with sequencer(database) as log:
        relay = Relay(relaying, "audit", OwnLog(store, log).append)

        async def leaves(process: Rotations) -> list[dict[str, str]]:
            await process.look()
            await relay.round()
            return [json.loads(each.payload)["metadata"] for each in await recorded(database, PLATFORM, ACTION)]

        process = Rotations(store, handed_out)
        assert await leaves(process) == []
        said[0] = TWO
        assert await leaves(process) == await leaves(process)
        # Another process, after a restart or a failover, sees that it stands there.
        (begun,) = await leaves(Rotations(store, handed_out))
        assert sorted(line.partition(" ")[2] for line in begun.values()) == ["0:0 -", "0:7 -"]
        said[0] = ""
        with pytest.raises(Problem):
            await process.look()
        said[0] = ENDED
        found = await leaves(process)
        assert found == await leaves(Rotations(store, handed_out))
        assert len(found) == 2
        assert sorted(line.partition(" ")[2] for line in found[1].values()) == ["0:0 0:9", "0:7 -"]
    await api.close()
    await relaying.close()
