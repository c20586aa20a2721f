"""The organization heads: padded, salted, shuffled, published in the log, and what exposes a truncated tail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import rfc8785

from services._mesh.clock import Clock
from services._mesh.context import entered
from services._mesh.errors import NotFound
from services._mesh.relay import Relay
from services._mesh.uow import Store
from services.audit import proving, store, usecases
from services.audit.checkpointer import Checkpointer
from services.audit.heads import HeadPublisher
from services.audit.model import merkle
from services.audit.model.heads import Chain, head_tree, padded_size
from services.audit.model.notes import Signer, TreeHead, verify
from services.audit.opener import Opener
from services.audit.own_log import OwnLog
from services.audit.sequencer import Sequencer
from tests.support.log import ACME, GLOBEX, KEY, LOG, checkpointer, event, opener, sequencer
from tests.support.postgres import TestDatabase
from tests.support.things import context

pytestmark = pytest.mark.services("audit")


@pytest.mark.parametrize(("count", "size"), [(1, 16), (15, 16), (16, 16), (17, 32), (100, 128), (1024, 1024)])
def test_the_tree_tells_only_a_power_of_two(count: int, size: int) -> None:
    tree = head_tree([Chain(uuid4(), n + 1, bytes([n % 256]) * 32) for n in range(count)])
    assert padded_size(count) == tree.size == size
    assert len({entry.position for entry in tree.entries}) == count
    for entry in tree.entries:
        assert len(entry.path) == size.bit_length() - 1
        merkle.verify_inclusion(merkle.leaf_hash(entry.entry), entry.position, size, entry.path, tree.root)


def test_an_entry_is_canonical_and_salted_and_stands_elsewhere_each_time() -> None:
    chains = [Chain(UUID(int=n), 7, bytes(32)) for n in range(1, 13)]
    trees = [head_tree(chains) for _ in range(8)]
    first = json.loads(trees[0].entries[0].entry)
    assert rfc8785.dumps(first) == trees[0].entries[0].entry
    assert first.keys() == {"leaf", "org_seq", "organization_id", "salt", "v"}
    assert (first["org_seq"], first["organization_id"], first["leaf"]) == (7, str(UUID(int=1)), "00" * 32)
    assert len({json.loads(tree.entries[0].entry)["salt"] for tree in trees}) == 8
    assert len({tree.root for tree in trees}) == 8
    assert len({tree.entries[0].position for tree in trees}) > 1
    # Padding looks like an entry's hash: no sibling repeats.
    siblings = [entry.path[0] for tree in trees for entry in tree.entries]
    assert b"\0" * 32 not in siblings


@dataclass
class Publishing:
    """The parts of the audit process that publish heads."""

    log: Sequencer
    heads: HeadPublisher
    reader: Store
    opener: Opener
    checkpointer: Checkpointer


@pytest.fixture
async def publishing(database: TestDatabase, tmp_path: Path) -> AsyncIterator[Publishing]:
    api, relaying, writer = database.role("audit_api"), database.role("audit_relay"), database.role("audit_sequencer")
    reader = Store(api, "audit", Clock())
    async with (
        sequencer(database) as log,
        checkpointer(database, log, tmp_path) as signed,
        opener(database) as opening,
    ):
        relay = Relay(relaying, "audit", OwnLog(reader, log).append)
        reader.on_events = relay.wake
        task = asyncio.create_task(relay.run())
        yield Publishing(log, HeadPublisher(writer, reader, signed, Clock(), 60.0), reader, opening, signed)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    for role in (api, relaying, writer):
        await role.close()


async def test_a_published_head_is_proven_and_exposes_a_truncated_tail(publishing: Publishing) -> None:
    with entered(context(ACME)):
        with pytest.raises(NotFound, match="No head"):
            await proving.get_organization_head(publishing.reader, publishing.opener, publishing.checkpointer)
    made = [event(n) for n in range(1, 6)]
    await usecases.append_events(publishing.log, "identity", [*made, event(1, GLOBEX)])
    published = await publishing.heads.publish()
    with entered(context(ACME)):
        head, publication, checkpoint = await proving.get_organization_head(
            publishing.reader, publishing.opener, publishing.checkpointer
        )
        async with publishing.reader.read() as connection:
            exported = await store.get_events(connection, [each.event_id for each in made])
    assert (head.publish_event_id, head.organization_seq) == (published, 5)
    # As an auditor would: the checkpoint, the event under it, the root in the event, the entry under the root.
    tree = TreeHead.parse(verify(checkpoint.note, Signer(LOG, KEY).verifier_key))
    leaf = merkle.leaf_hash(publication.event.leaf)
    merkle.verify_inclusion(leaf, publication.event.index, tree.size, publication.proof, tree.root)
    payload = json.loads(publication.event.payload)
    assert (payload["action"], payload["actor"]) == ("audit.heads.publish", "process:audit")
    size, root = int(payload["metadata"]["size"]), bytes.fromhex(payload["metadata"]["root"])
    merkle.verify_inclusion(merkle.leaf_hash(head.entry), head.position, size, head.path, root)
    said = json.loads(head.entry)
    assert said["organization_id"] == str(ACME)

    def reaches(export: list[bytes]) -> bool:
        """Whether an export has the leaf that the published head names."""
        return len(export) >= said["org_seq"] and merkle.leaf_hash(export[said["org_seq"] - 1]).hex() == said["leaf"]

    leaves = [each.leaf for each in exported]
    assert reaches(leaves)
    assert not reaches(leaves[:-1])
    assert not reaches([*leaves[:-1], leaves[0]])


async def test_heads_are_published_when_a_chain_moved_and_not_for_their_own_sake(publishing: Publishing) -> None:
    assert await publishing.heads.publish() is None
    await usecases.append_events(publishing.log, "identity", [event(1)])
    assert await publishing.heads.publish()
    # The publication itself has moved the installation's own chain.
    assert await publishing.heads.publish() is None
    await usecases.append_events(publishing.log, "identity", [event(1, GLOBEX)])
    second = await publishing.heads.publish()
    for organization in (ACME, GLOBEX):
        with entered(context(organization)):
            head, _, _ = await proving.get_organization_head(
                publishing.reader, publishing.opener, publishing.checkpointer
            )
        # Whoever didn't move has a new entry, too: the newest publication is the one that counts.
        assert (head.publish_event_id, head.organization_seq) == (second, 1)
