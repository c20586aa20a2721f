"""The audit process killed (SIGKILL) as it finds a gap or a conflict: the alarm is there if what it is about is."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator
from uuid import UUID

import grpc
import pytest

from recoup_local.issuer import organization_id
from recoup_local.supervisor import LocalMesh, query
from services.audit.model.events import Produced
from tests.support.appending import append
from tests.support.log import event
from tests.support.mesh import small_mesh, until

pytestmark = pytest.mark.xdist_group("operator")

# The flush that is killed may be another one: the log has events of its own.
TRIES = 5
ACME = UUID(str(organization_id("acme")))


@pytest.fixture(scope="module")
def mesh() -> Iterator[LocalMesh]:
    """The log and its signer, with failpoints."""
    with small_mesh("audit-signer", "audit", "identity", failpoints=True) as made:
        yield made


def killed(mesh: LocalMesh, place: str, events: list[Produced]) -> None:
    """Append until the process was killed at a place of its next flush, whosever that is.

    Before that it may refuse: one that has just begun asks the signer first.
    """
    assert mesh.installation.failpoints is not None
    (mesh.installation.failpoints / f"audit.{place}").write_text("kill")

    def tried() -> int | None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            asyncio.run(append(mesh, events))
        return mesh.exit_code("audit")

    assert until(tried) == -9


def published(mesh: LocalMesh) -> int:
    """How often the organization heads were published; -1 while any event is on its way."""
    assert mesh.postgres is not None
    done = "SELECT count(*) FROM audit.entries WHERE action = 'audit.heads.publish'"
    waiting = "SELECT FROM audit.outbox WHERE log_index IS NULL"
    return -1 if asyncio.run(query(mesh.postgres, waiting)) else int(asyncio.run(query(mesh.postgres, done))[0][0])


def restarted(mesh: LocalMesh) -> None:
    """Start the process again, and let it say what it says by itself: the next flush is the test's."""
    assert mesh.postgres is not None
    before = asyncio.run(query(mesh.postgres, "SELECT count(*) FROM audit.outbox WHERE action = 'audit.heads.publish'"))
    asyncio.run(mesh.restart("audit"))
    until(lambda: True if published(mesh) > before[0][0] else None)


def appended(mesh: LocalMesh, made: Produced) -> None:
    """Append an event, as a relay does: until it is there."""

    def tried() -> bool | None:
        with contextlib.suppress(grpc.aio.AioRpcError):
            asyncio.run(append(mesh, [made]))
            return True
        return None

    until(tried)


def alarms(mesh: LocalMesh, kind: str, table: str = "outbox") -> int:
    """How many alarms of a kind there are of the organization, on their way or in the log."""
    assert mesh.postgres is not None
    said = "target = 'alarms/{}'" if table == "entries" else "convert_from(payload, 'UTF8') LIKE '%alarms/{}%'"
    where = f"organization_id = '{ACME}' AND action = 'audit.alarm.raise' AND {said.format(kind)}"
    return int(asyncio.run(query(mesh.postgres, f"SELECT count(*) FROM audit.{table} WHERE {where}"))[0][0])


def is_appended(mesh: LocalMesh, made: Produced) -> bool:
    assert mesh.postgres is not None
    found = asyncio.run(query(mesh.postgres, f"SELECT FROM audit.dedup WHERE event_id = '{made.event_id}'"))
    return bool(found)


def in_the_log(mesh: LocalMesh, kind: str, count: int) -> None:
    until(lambda: True if alarms(mesh, kind, "entries") >= count else None)
    assert alarms(mesh, kind, "entries") == count


def test_a_gap_is_an_alarm_if_the_event_after_it_was_appended(mesh: LocalMesh) -> None:
    appended(mesh, event(1, ACME, action="pricing.test.act"))
    after = event(5, ACME, action="pricing.test.act")
    # Before the commit, both are gone; the producer appends again.
    killed(mesh, "flush.written", [after])
    assert (is_appended(mesh, after), alarms(mesh, "COUNTER_GAP")) == (False, 0)
    restarted(mesh)
    for _ in range(TRIES):
        killed(mesh, "flush.committed", [after])
        assert alarms(mesh, "COUNTER_GAP") == is_appended(mesh, after)
        restarted(mesh)
        if is_appended(mesh, after):
            break
    in_the_log(mesh, "COUNTER_GAP", 1)
    # The producer's own second try is the same event: nothing more is said.
    appended(mesh, after)
    in_the_log(mesh, "COUNTER_GAP", 1)


def test_a_conflict_is_an_alarm_before_it_is_answered(mesh: LocalMesh) -> None:
    made = event(6, ACME, action="pricing.test.act")
    appended(mesh, made)
    other = dataclasses.replace(made, payload=made.payload.replace(b'"OK"', b'"NO"'))
    for _ in range(TRIES):
        killed(mesh, "flush.committed", [other])
        restarted(mesh)
        if alarms(mesh, "EVENT_CONFLICT"):
            break
    in_the_log(mesh, "EVENT_CONFLICT", 1)
    # A process that doesn't know of it any more says it once again, and refuses.

    def refused() -> bool | None:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            asyncio.run(append(mesh, [other]))
        return True if "another content" in str(told.value.details()) else None

    assert until(refused)
    in_the_log(mesh, "EVENT_CONFLICT", 2)
