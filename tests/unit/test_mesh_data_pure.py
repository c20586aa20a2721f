"""What of the data half needs no database: payloads, batches, pauses, digests, schema texts."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services._mesh import schema, streams
from services._mesh.claimed import pause_seconds
from services._mesh.database import problem_of
from services._mesh.errors import DeadlinePassed, Unavailable
from services._mesh.ids import uuid7
from services._mesh.outbox import Event, payload_of
from services._mesh.reconcile import digest_of
from services._mesh.relay import PendingEvent, made_at, within_limit

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
ORGANIZATION = UUID(int=1)


def test_a_payload_is_canonical_and_has_these_keys() -> None:
    event = Event(UUID(int=7), "x.thing.add", "things/1", "OK", {"b": "2", "a": "é"})
    payload = payload_of(event, ORGANIZATION, "x", None, NOW)
    assert (
        payload == json.dumps(json.loads(payload), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )
    assert json.loads(payload) == {
        "v": 1,
        "event_id": str(UUID(int=7)),
        "organization_id": str(ORGANIZATION),
        "action": "x.thing.add",
        "target": "things/1",
        "result": "OK",
        "actor": "process:x",
        "responsible_person": "",
        "role": "SYSTEM",
        "occurred_at": "2026-01-02T03:04:05.000006Z",
        "request_id": "",
        "trace_id": "",
        "authority": "system",
        "metadata": {"a": "é", "b": "2"},
    }


def test_an_event_that_the_log_would_refuse_is_refused_before_it_is_written() -> None:
    event = Event(UUID(int=7), "x.thing.add", "things/1", "OK", {"a": "x" * 70_000})
    with pytest.raises(ValueError, match="the log takes 65536"):
        payload_of(event, ORGANIZATION, "x", None, NOW)


@given(st.lists(st.lists(st.integers(0, 1000), min_size=1, max_size=10), max_size=8), st.integers(0, 3000))
def test_a_batch_is_the_longest_beginning_that_fits(organizations: list[list[int]], limit: int) -> None:
    pending = [
        [PendingEvent(UUID(int=n), UUID(int=place), n, b"x" * size) for n, size in enumerate(sizes)]
        for place, sizes in enumerate(organizations)
    ]
    events, sizes = [event for each in pending for event in each], [size for each in organizations for size in each]
    parts = within_limit(pending, limit)
    assert all(parts)
    assert all({event.organization_id for event in part} == {part[0].organization_id} for part in parts)
    taken = [event for part in parts for event in part]
    assert taken == events[: len(taken)]
    assert not events or taken
    assert len(taken) <= 1 or sum(sizes[: len(taken)]) <= limit
    assert len(taken) == len(events) or sum(sizes[: len(taken) + 1]) > limit


@given(st.lists(st.uuids(), max_size=20))
def test_a_digest_does_not_depend_on_the_order(ids: list[UUID]) -> None:
    expected = hashlib.sha256(b"".join(sorted(each.bytes for each in ids))).digest()
    assert digest_of(ids) == digest_of(ids[::-1]) == expected


def test_the_time_within_an_event_id() -> None:
    assert abs(made_at(uuid7()) - datetime.now(UTC).timestamp()) < 5


def test_pauses_grow_and_are_bounded() -> None:
    assert [pause_seconds(n) for n in (1, 2, 3, 4, 5, 1000)] == [5, 20, 80, 300, 300, 300]


def test_a_kind_of_table_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="isn't one of"):
        schema.tenancy("x", "things", "stat")


def test_what_a_database_failure_means() -> None:
    assert isinstance(problem_of(ConnectionRefusedError()), Unavailable)
    # As the driver fails where the farewell of a terminated connection crosses the next question.
    assert isinstance(problem_of(asyncpg.InternalClientError("cannot switch to state 11")), Unavailable)
    assert isinstance(problem_of(TimeoutError()), DeadlinePassed)
    assert problem_of(ZeroDivisionError()) is None


def test_subjects_and_permissions_belong_together() -> None:
    subject = streams.subject("x", "weigh", UUID(int=1))
    assert subject == f"jobs.x.weigh.{UUID(int=1).hex}"
    assert "jobs.x.>" in streams.api_permissions("x")
    assert not any(each.startswith("jobs.") for each in streams.worker_permissions("x"))
    assert not any("x-worker" not in each for each in streams.worker_permissions("x"))
