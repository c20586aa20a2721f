"""Erasing what a person did: who decides, what a hold blocks, what is left, and that no crash or restore undoes it."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID, uuid4

import asyncpg
import pytest

from recoup.audit.v1 import erasure_service_pb2 as pb
from services._mesh import failpoints
from services._mesh.context import entered
from services._mesh.errors import AlreadyExists, Denied, Exhausted, Invalid, NotFound, Unavailable, WrongState
from services._mesh.pages import PageTokens
from services.audit import eraser as eraser_module
from services.audit import erasing, proving, usecases
from services.audit.model import merkle
from services.audit.model.erasures import ErasureState
from services.audit.model.events import PayloadState
from services.audit.model.leaf import commitment
from services.audit.rpc_erasures import ErasureRpc
from services.audit.watch import KeysWatch
from tests.support.erasing import ADA, BOB, EVE, Vault, elsewhere, vault
from tests.support.log import ACME, ACTORS, GLOBEX, event
from tests.support.postgres import TestDatabase, copied, drop
from tests.support.things import context, linked_passport

pytestmark = pytest.mark.services("audit")
STATES = PayloadState
FAY, GUS = UUID(int=0xFA), UUID(int=0x95)
PLACES_OF = (ACME, ACME, ACME, GLOBEX)


async def states(made: Vault, events: list, organization: UUID = ACME) -> list[PayloadState]:  # type: ignore[type-arg]
    return [each.state for each in await made.read(events, organization)]


async def test_an_erasure_makes_a_persons_events_unreadable_and_nothing_else(database: TestDatabase) -> None:
    async with vault(database) as made:
        hers, his = await made.act(EVE, 3), await made.act(BOB, 2)
        elsewhere = await made.act(EVE, 1, GLOBEX)
        before = await made.read(hers)
        done = await made.erased(EVE)
        assert (done.state, done.keys_destroyed, done.events_erased) == (ErasureState.DONE, 1, 3)
        after = await made.read(hers)
        assert [(each.state, each.payload, each.salt) for each in after] == [(STATES.ERASED, b"", b"")] * 3
        assert [each.leaf for each in after] == [each.leaf for each in before]
        assert await states(made, his) == [STATES.PRESENT] * 2
        assert await states(made, elsewhere, GLOBEX) == [STATES.PRESENT]
        again = await made.act(EVE, 1)  # What she does afterwards is under another key.
        assert await states(made, again) == [STATES.PRESENT]


async def test_every_proof_verifies_after_an_erasure(database: TestDatabase) -> None:
    async with vault(database) as made:
        events = [*await made.act(EVE, 3), *await made.act(BOB, 3)]
        await made.erased(EVE)
        found, (size, root) = await made.read(events), made.log.head
        assert size >= 6
        role = database.role("audit_sequencer", 1)
        from services.audit import store

        async with role.unscoped() as connection:
            for each in found:
                ranges = merkle.inclusion_ranges(each.index, size)
                proof = merkle.hash_ranges(ranges, await store.read_ranges(connection, 0, ranges))
                merkle.verify_inclusion(merkle.leaf_hash(each.leaf), each.index, size, proof, root)
        await role.close()
        for each in found[3:]:
            assert commitment(each.payload, each.salt).encode() in each.leaf
        with pytest.raises(WrongState) as refused:
            proving.require_payloads(found)
        assert refused.value.metadata["event_id"] == str(events[0].event_id)


async def test_its_events_tell_what_was_done_and_name_nobody(database: TestDatabase) -> None:
    async with vault(database) as made:
        await made.act(EVE, 2)
        done = await made.erased(EVE)
        subject = ACTORS(ACME, f"user:{EVE}").hex()
        (asked,) = await made.own_events("audit.erasure.request")
        (approved,) = await made.own_events("audit.erasure.approve")
        (erased,) = await made.own_events("audit.payload.erase")
        assert {each["target"] for each in (asked, approved, erased)} == {f"erasures/{done.erasure_id}"}
        assert {each["metadata"]["subject_hash"] for each in (asked, approved, erased)} == {subject}
        assert (asked["actor"], approved["actor"], erased["actor"]) == (f"user:{ADA}", f"user:{BOB}", "process:audit")
        assert erased["metadata"]["events"] == "2"
        superuser = await made.keys.superuser()
        assert erased["metadata"]["key_ids"] == str(
            await superuser.fetchval("SELECT key_id FROM subjects.keys WHERE destroyed_at IS NOT NULL")
        )
        await superuser.close()
        assert str(EVE) not in json.dumps([asked, approved, erased])
    superuser = await database.superuser()
    for table in ("erasures", "erased_keys", "entries", "payloads", "dedup"):
        assert not await superuser.fetchval(f"SELECT count(*) FROM audit.{table} t WHERE t::text LIKE '%{EVE}%'")
    await superuser.close()


async def test_nobody_approves_what_they_asked_for_or_did_themselves(database: TestDatabase) -> None:
    async with vault(database) as made:
        await made.act(EVE)
        asked = await made.request(ADA, EVE)
        for person in (ADA, EVE):
            with pytest.raises(Denied):
                await made.approve(person, asked, EVE)
        with pytest.raises(Invalid):
            await made.approve(BOB, asked, ADA)
        assert (await made.get(asked)).state is ErasureState.REQUESTED
        assert await made.eraser.round() == 0


async def test_nobody_erases_alone_under_two_logins(database: TestDatabase) -> None:
    async with vault(database) as made:
        await made.act(EVE)
        asked = await made.request(ADA, EVE)
        for other in (ADA, EVE):
            with pytest.raises(Denied) as caught:
                await made.approve(BOB, asked, EVE, passport=linked_passport(BOB, other))
            assert caught.value.reason_name == "REQUESTER_IS_APPROVER"
    superuser = await database.superuser()
    for column in ("requester_hash", "subject_hash"):
        with pytest.raises(asyncpg.CheckViolationError, match=r"of_all|at_all"):
            await superuser.execute(
                "UPDATE audit.erasures SET state = 'APPROVED', decider_hash = sha256('x'), decided_at = now(),"
                f" decider_hashes = ARRAY[{column}]"
            )
    await superuser.close()


@pytest.mark.parametrize("decider", ["requester_hash", "subject_hash"])
async def test_the_table_itself_wants_two_people(database: TestDatabase, decider: str) -> None:
    async with vault(database) as made:
        await made.act(EVE)
        await made.request(ADA, EVE)
    superuser = await database.superuser()
    with pytest.raises(asyncpg.CheckViolationError, match=r"two_people|not_of_oneself"):
        await superuser.execute(
            f"UPDATE audit.erasures SET state = 'APPROVED', decided_at = now(), decider_hash = {decider}"
        )
    await superuser.close()


async def test_one_erasure_of_a_subject_at_a_time_and_each_is_decided_once(database: TestDatabase) -> None:
    async with vault(database) as made:
        await made.act(EVE)
        asked = await made.request(ADA, EVE)
        with pytest.raises(AlreadyExists):
            await made.request(BOB, EVE)
        rejected = await made.decide(
            ADA, lambda work: erasing.reject_erasure(work, ACTORS, asked.erasure_id, "a mistake")
        )
        assert rejected.state is ErasureState.REJECTED
        with pytest.raises(WrongState):
            await made.approve(BOB, asked, EVE)
        assert await made.eraser.round() == 0
        assert len(await made.own_events("audit.erasure.reject")) == 1
        await made.erased(EVE)


async def test_only_who_did_anything_in_the_organization_can_be_erased(database: TestDatabase) -> None:
    async with vault(database) as made:
        await made.act(EVE, 1, GLOBEX)
        for organization, subject, error in (
            (ACME, f"user:{EVE}", NotFound),
            (GLOBEX, f"user:{uuid4()}", NotFound),
            (GLOBEX, "process:identity", Invalid),
            (GLOBEX, "spiffe://recoup/scanner", Invalid),
        ):
            with pytest.raises(error):
                await erasing.require_subject(made.api, organization, ACTORS, subject)
        await erasing.require_subject(made.api, GLOBEX, ACTORS, f"user:{EVE}")


async def test_payloads_in_the_clear_are_not_said_to_be_erased(database: TestDatabase) -> None:
    async with vault(database) as made:
        superuser = await database.superuser()
        await superuser.execute(
            "INSERT INTO audit.payloads (organization_id, idx, format, subject, content) VALUES ($1, 0, 1, $2, '')",
            ACME,
            f"user:{EVE}",
        )
        await superuser.close()
        with pytest.raises(WrongState, match="1 of the subject's events"):
            await made.request(ADA, EVE)
        assert (await made.request(ADA, BOB)).state is ErasureState.REQUESTED


@pytest.mark.parametrize("covers", [EVE, None])
async def test_a_hold_blocks_approval_and_execution_until_it_is_released(
    database: TestDatabase, covers: UUID | None
) -> None:
    async with vault(database) as made:
        events = await made.act(EVE)
        asked = await made.request(ADA, EVE)
        first = await made.hold(ADA, covers)
        with pytest.raises(WrongState, match="legal hold"):
            await made.approve(BOB, asked, EVE)
        await made.decide(ADA, lambda work: erasing.release_legal_hold(work, ACTORS, first.hold_id, "over"))
        await made.approve(BOB, asked, EVE)
        second = await made.hold(ADA, covers)
        assert await made.eraser.round() == 0
        assert (await made.get(asked)).held
        assert await states(made, events) == [STATES.PRESENT]
        await made.decide(ADA, lambda work: erasing.release_legal_hold(work, ACTORS, second.hold_id, "over"))
        assert await made.eraser.round() == 1
        assert await states(made, events) == [STATES.ERASED]
        assert len(await made.own_events("audit.hold.place")) == 2
        assert len(await made.own_events("audit.hold.release")) == 2
        with pytest.raises(WrongState, match="released already"):
            await made.decide(ADA, lambda work: erasing.release_legal_hold(work, ACTORS, second.hold_id, "over"))


async def test_a_hold_on_somebody_else_blocks_nothing(database: TestDatabase) -> None:
    async with vault(database) as made:
        await made.act(EVE)
        await made.hold(ADA, BOB)
        assert (await made.erased(EVE)).state is ErasureState.DONE


class Crashed(BaseException):
    """What a process that is killed does: nothing more."""


PLACES = ("erasure.locked", "erasure.destroyed", "erasure.fenced", "erasure.recorded")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("held", [False, True])
async def test_a_crash_anywhere_is_finished_by_the_next_process(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch, place: str, held: bool
) -> None:
    def reached(name: str) -> None:
        if name == place:
            raise Crashed

    async with vault(database) as made:
        events = await made.act(EVE, 2)
        asked = await made.request(ADA, EVE)
        await made.approve(BOB, asked, EVE)
        monkeypatch.setattr(failpoints, "_reached", reached)
        with pytest.raises(Crashed):
            await made.eraser.round()
    monkeypatch.undo()
    async with vault(database) as made:
        if held:  # Too late for what is destroyed, in time for what isn't.
            await made.hold(ADA, EVE)
        late = held and place == "erasure.locked"
        await made.eraser.round()
        found = await made.get(asked)
        assert found.state is (ErasureState.APPROVED if late else ErasureState.DONE)
        assert await states(made, events) == [STATES.PRESENT if late else STATES.ERASED] * 2
        assert len(await made.own_events("audit.payload.erase")) == (0 if late else 1)
        assert await made.eraser.round() == 0
        assert await states(made, await made.act(EVE)) == [STATES.PRESENT]


async def test_what_is_appended_meanwhile_is_erased_or_readable_but_never_lost(database: TestDatabase) -> None:
    async with vault(database) as made:
        await made.act(EVE)
        asked = await made.request(ADA, EVE)
        await made.approve(BOB, asked, EVE)
        events, going = [], True

        async def act() -> None:
            while going:
                try:
                    events.extend(await made.act(EVE))
                except Unavailable:  # As a relay would: again, a moment later.
                    made.counter -= 1

        acting = asyncio.create_task(act())
        while len(events) < 5:
            await asyncio.sleep(0)
        assert await made.eraser.round() == 1
        count = len(events)
        while len(events) < count + 5:
            await asyncio.sleep(0)
        going = False
        await acting
        found = await states(made, events)
        assert set(found) == {STATES.ERASED, STATES.PRESENT}
        turn = found.index(STATES.PRESENT)
        assert found == [STATES.ERASED] * turn + [STATES.PRESENT] * (len(found) - turn)


async def test_a_sequencer_in_another_process_never_seals_under_a_destroyed_key(database: TestDatabase) -> None:
    async with vault(database) as made, elsewhere(made) as eraser:
        hers = await made.act(EVE)
        asked = await made.request(ADA, EVE)
        await made.approve(BOB, asked, EVE)
        assert await eraser.round() == 1
        # It has her key at hand still, and learns of the erasure from the head alone.
        hers += await made.act(EVE)
        with pytest.raises(Unavailable):  # A reader meets the other generation, and must look again.
            await made.read(hers)
        made.serving.trust(await made.replay.look())
        assert await states(made, hers) == [STATES.ERASED, STATES.PRESENT]


async def test_a_restored_copy_of_the_keys_serves_nothing_that_was_erased(database: TestDatabase) -> None:
    async with vault(database) as made:
        hers, his = await made.act(EVE, 2), await made.act(BOB, 2)
        original = made.keys
    backup = await copied(original, only="subjects")  # Nobody is connected to it now, so that it can be copied.
    async with vault(database) as made:
        await made.erased(EVE)
        newer = await made.act(EVE)
    # The restored copy has her key again: whoever looked at nothing would read it.
    superuser = await backup.superuser()
    assert await superuser.fetchval("SELECT count(*) FROM subjects.keys WHERE destroyed_at IS NULL") == 2
    await superuser.close()
    async with vault(database, backup) as made:
        assert await states(made, hers) == [STATES.ERASED] * 2
        assert await states(made, his) == [STATES.PRESENT] * 2
        # The key that was made after the backup is lost, and that isn't called an erasure.
        assert await states(made, newer) == [STATES.UNREADABLE]
        replayed = [each for each in await made.own_events("audit.payload.erase") if "replayed" in each["metadata"]]
        assert len(replayed) == 1
    superuser = await backup.superuser()
    hers_now = await superuser.fetch(
        "SELECT length(wrapped_key) AS n FROM subjects.keys WHERE subject_hash = $1", ACTORS(ACME, f"user:{EVE}")
    )
    assert [row["n"] for row in hers_now] == [0]
    await superuser.close()
    await drop(backup)


async def test_a_running_process_that_meets_a_restored_copy_refuses_until_it_looked(database: TestDatabase) -> None:
    async with vault(database) as made:
        hers = await made.act(EVE)
    backup = await copied(made.keys, only="subjects")
    async with vault(database) as made:
        await made.erased(EVE)
        known = made.serving.generation
        assert known is not None
    async with vault(database, backup) as made:
        # As if it had been restored beneath the process, with her key back in it.
        superuser = await backup.superuser()
        await superuser.execute("ALTER TABLE subjects.keys DISABLE TRIGGER only_destroyed")
        await superuser.execute(
            "UPDATE subjects.keys SET destroyed_at = NULL, erasure_id = NULL, wrapped_key = 'x'"
            " WHERE destroyed_at IS NOT NULL"
        )
        await superuser.execute("ALTER TABLE subjects.keys ENABLE ALWAYS TRIGGER only_destroyed")
        await superuser.execute("UPDATE subjects.generation SET generation = gen_random_uuid()")
        await superuser.close()
        with pytest.raises(Unavailable):
            await made.read(hers)
        assert not made.serving.ready
        with pytest.raises(Unavailable):
            await usecases.append_events(made.log, "identity", [event(made.counter + 1, actor=f"user:{BOB}")])
        role = backup.role("subjects_eraser", 1)
        watching = asyncio.create_task(KeysWatch(made.serving, role, made.replay.look).run())
        while not made.serving.ready:
            await asyncio.sleep(0.01)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await role.close()
        assert await states(made, hers) == [STATES.ERASED]
    await drop(backup)


async def test_the_list_of_erased_keys_is_append_only(database: TestDatabase) -> None:
    async with vault(database) as made:
        await made.act(EVE)
        await made.erased(EVE)
    for statement in ("DELETE FROM audit.erased_keys", "TRUNCATE audit.erased_keys", "DROP TABLE audit.erased_keys"):
        with pytest.raises(Exception, match="the log is append-only"):
            await database.run_as_owner("audit", [statement])


def rpc_of(made: Vault) -> ErasureRpc:
    return ErasureRpc(made.store, made.api, ACTORS, PageTokens(b"k" * 32), made.eraser.wake)


async def test_lists_go_page_by_page_newest_first(database: TestDatabase) -> None:
    async with vault(database) as made:
        asked, holds, people = [], [], [UUID(int=0xA00 + n) for n in range(5)]
        for person in people:
            await made.act(person)
            asked.append(str((await made.request(ADA, person)).erasure_id))
            holds.append(str((await made.hold(ADA, person)).hold_id))
        rpc, call = rpc_of(made), context(ACME)
        with entered(call):
            erasures = pb.ListErasuresRequest(organization_id=str(ACME), page_size=2)
            listed, kept = [], pb.ListLegalHoldsRequest(organization_id=str(ACME), page_size=2)
            while True:
                page = await rpc.ListErasures(erasures, None)
                listed += [each.erasure_id for each in page.erasures]
                assert all(each.held for each in page.erasures)
                erasures.page_token = page.next_page_token
                if not page.next_page_token:
                    break
            assert listed == asked[::-1]
            standing = []
            while True:
                held = await rpc.ListLegalHolds(kept, None)
                standing += [each.hold_id for each in held.legal_holds]
                kept.page_token = held.next_page_token
                if not held.next_page_token:
                    break
            assert standing == holds[::-1]
        with entered(context(GLOBEX)):
            other = pb.ListErasuresRequest(organization_id=str(GLOBEX))
            assert not (await rpc.ListErasures(other, None)).erasures


async def test_the_same_request_again_gets_the_first_answer_also_once_it_is_done(database: TestDatabase) -> None:
    async with vault(database) as made:
        await made.act(EVE)
        call = context(
            ACME, "audit.erasure.request", actor=f"user:{ADA}", responsible_person=ADA, rpc="Erasures/RequestErasure"
        )
        request = pb.RequestErasureRequest(
            organization_id=str(ACME), subject=f"user:{EVE}", reason="case 7", request_id=str(uuid4())
        )
        with entered(call):
            first = await rpc_of(made).RequestErasure(request, None)
        asked = await made.get_by_id(UUID(first.erasure.erasure_id))
        await made.approve(BOB, asked, EVE)
        assert await made.eraser.round() == 1
        with entered(call):
            assert await rpc_of(made).RequestErasure(request, None) == first
            request.request_id = str(uuid4())
            with pytest.raises(NotFound):  # Nothing is left to erase.
                await rpc_of(made).RequestErasure(request, None)


async def test_legal_holds_are_bounded(database: TestDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "MAX_HOLDS", 2)
    async with vault(database) as made:
        first = await made.hold(ADA, EVE)
        await made.hold(ADA, BOB)
        with pytest.raises(Exhausted, match="2 legal holds"):
            await made.hold(ADA, None)
        await made.decide(ADA, lambda work: erasing.release_legal_hold(work, ACTORS, first.hold_id, "over"))
        await made.hold(ADA, None)


async def test_one_that_fails_or_is_held_keeps_nobody_elses_waiting(
    database: TestDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eraser_module, "_PAGE", 1)
    async with vault(database) as made:
        asked = []
        for subject, organization in ((EVE, ACME), (FAY, ACME), (GUS, ACME), (EVE, GLOBEX)):
            await made.act(subject, 1, organization)
            asked.append(await made.request(ADA, subject, organization))
            await made.approve(BOB, asked[-1], subject, organization)
        await made.hold(ADA, EVE)
        keys = await made.keys.superuser()
        # The second one can't be executed.
        await keys.execute(
            "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
            " CREATE TRIGGER refuse BEFORE UPDATE ON subjects.keys FOR EACH ROW"
            f" WHEN (OLD.subject_hash = '\\x{ACTORS(ACME, f'user:{FAY}').hex()}') EXECUTE FUNCTION public.refuse()"
        )
        with pytest.raises(Exception, match="no"):
            await made.eraser.round()
        found = [await made.get(each, organization) for each, organization in zip(asked, PLACES_OF, strict=True)]
        approved, done = ErasureState.APPROVED, ErasureState.DONE
        assert [each.state for each in found] == [approved, approved, done, done]
        made.eraser._measure()
        assert made.eraser._overdue.value > 0
        await keys.execute("DROP TRIGGER refuse ON subjects.keys")
        await keys.close()
        assert await made.eraser.round() == 1
        made.eraser._measure()
        assert made.eraser._overdue.value == 0  # What is held isn't overdue.
