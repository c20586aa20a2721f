"""The trace of one approval, span by span: from the edge to the cloud, of one organization, and of no person."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from recoup_local.issuer import ROLES, find_person, organization_id
from tests.support.mesh import until
from tests.support.story import Told

pytestmark = pytest.mark.xdist_group("story")

APPROVE = "recoup.actions.v1.ActionsService/ApproveAction"
OPEN = "recoup.broker.v1.BrokerService/OpenCredential"
EDGE = ("gateway", Span.SPAN_KIND_SERVER, "POST (edge)")
SERVED = ("actions", Span.SPAN_KIND_SERVER, APPROVE)
PUBLISHED = ("actions", Span.SPAN_KIND_PRODUCER, "publish jobs.actions.execute")
JOB = ("actions-worker", Span.SPAN_KIND_CONSUMER, "job jobs.actions.execute")
# All that a span may say. A new key is looked at here before it is sent anywhere.
KEYS = {
    "rpc.system",
    "rpc.service",
    "rpc.method",
    "rpc.grpc.status_code",
    "server.address",
    "http.response.status_code",
    "http.route",
    "db.system.name",
    "db.query.text",
    "messaging.system",
    "messaging.message.id",
    "recoup.organization_id",
    "recoup.request_id",
}
EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.\w+")


@dataclass(frozen=True)
class Seen:
    """A span with the process that it is of."""

    process: str
    span: Span

    @property
    def is_called(self) -> tuple[str, int, str]:
        return self.process, self.span.kind, self.span.name

    @property
    def attributes(self) -> dict[str, Any]:
        return {a.key: getattr(a.value, a.value.WhichOneof("value") or "string_value") for a in self.span.attributes}


Trace = dict[bytes, Seen]


@pytest.fixture(scope="module")
def approval(told: Told) -> Trace:
    """All spans of the first approval's trace, by id; that of its root comes last."""
    trace_id = bytes.fromhex(told.story.facts["requests"][0]["approval_trace"])

    def whole() -> Trace | None:
        # Requests one after the other are one request: their lists are joined.
        received = ExportTraceServiceRequest.FromString((told.made.mesh.state / "spans.otlp").read_bytes())
        found = {
            span.span_id: Seen(resource.resource.attributes[0].value.string_value, span)
            for resource in received.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
            if span.trace_id == trace_id
        }
        roots = [seen for seen in found.values() if seen.span.parent_span_id not in found]
        return found if [root.is_called for root in roots] == [EDGE] else None

    return until(whole, 30.0)


def chains(trace: Trace, process: str, says: str) -> list[list[Seen]]:
    """Of each span of a process that is called so, or whose statement says so: it and all above it."""
    found = []
    for seen in trace.values():
        if seen.process == process and (seen.span.name == says or says in seen.attributes.get("db.query.text", "")):
            found.append(chain_of(trace, seen))
    return found


def chain_of(trace: Trace, seen: Seen) -> list[Seen]:
    """A span and all above it."""
    chain = [seen]
    while parent := trace.get(chain[-1].span.parent_span_id):
        chain.append(parent)
    return chain


REQUEST = [SERVED, EDGE]
WORK = [JOB, PUBLISHED, *REQUEST]


@pytest.mark.parametrize(
    ("process", "says", "below"),
    [
        ("actions", "INSERT INTO actions.approvals", REQUEST),
        ("actions", "INSERT INTO actions.outbox", REQUEST),
        ("actions", "INSERT INTO actions.jobs", REQUEST),
        ("actions-worker", "UPDATE actions.jobs", WORK),
        ("actions-worker", "INSERT INTO actions.outbox", WORK),
        ("broker", OPEN, [("actions-worker", Span.SPAN_KIND_CLIENT, f"call {OPEN}"), *WORK]),
        ("actions-worker", "EC2 CreateSnapshot", WORK),
        ("actions-worker", "EC2 DeleteVolume", WORK),
    ],
)
def test_each_step_hangs_below_what_caused_it(
    approval: Trace, process: str, says: str, below: list[tuple[str, int, str]]
) -> None:
    found = chains(approval, process, says)
    assert below in [[seen.is_called for seen in chain[1:]] for chain in found], [
        [seen.is_called for seen in chain] for chain in found
    ]
    acme = str(organization_id("acme"))
    assert {seen.attributes.get("recoup.organization_id") for chain in found for seen in chain} == {acme}


# Every span of the approval and of its execution, statements apart, below what it hangs. Another one is looked at here.
TREE = {
    "gateway: POST (edge)": {"actions: ApproveAction"},
    "actions: ApproveAction": {"actions: publish jobs.actions.execute", "actions: publish jobs.actions.checkpoint"},
    "actions: publish jobs.actions.execute": {"actions-worker: job jobs.actions.execute"},
    "actions-worker: job jobs.actions.execute": {
        *("actions-worker: call ClaimJob", "actions-worker: call FetchSealedCredential"),
        *("actions-worker: call OpenCredential", "actions-worker: EC2 DescribeVolumes"),
        *("actions-worker: EC2 CreateSnapshot", "actions-worker: EC2 DescribeSnapshots"),
        "actions-worker: EC2 DeleteVolume",
    },
    "actions-worker: call ClaimJob": {"actions: ClaimJob"},
    "actions: ClaimJob": {"actions: call CheckStanding", "actions: call ResolveCredential"},
    "actions: call CheckStanding": {"identity: CheckStanding"},
    "actions: call ResolveCredential": {"scanner: ResolveCredential"},
    "actions-worker: call FetchSealedCredential": {"scanner: FetchSealedCredential"},
    "actions-worker: call OpenCredential": {"broker: OpenCredential"},
    "broker: OpenCredential": {"broker: STS AssumeRole"},
}
# There or not, by how long it takes and by what was asked before.
MAY_BE = ("call RenewLease", "RenewLease", "IssuePassport", "call IssuePassport")


def test_the_tree_of_an_approval_and_its_execution_has_these_spans_and_no_others(approval: Trace) -> None:
    found: dict[str, set[str]] = {}
    for chain in map(partial(chain_of, approval), approval.values()):
        names = [f"{seen.process}: {short(seen.span.name)}" for seen in chain]
        is_beside = any(name.startswith("sql") or name in MAY_BE for name in (short(s.span.name) for s in chain))
        if not is_beside and not any("jobs.actions.checkpoint" in name for name in names[1:]) and len(names) > 1:
            found.setdefault(names[1], set()).add(names[0])
    assert found == TREE


def short(name: str) -> str:
    """An RPC's own name, without its service's."""
    return re.sub(r"\S+/", "", name)


def test_parents_begin_before_their_children_and_nothing_failed(approval: Trace) -> None:
    for seen in approval.values():
        parent = approval.get(seen.span.parent_span_id)
        if parent is not None and parent.process == seen.process:
            assert parent.span.start_time_unix_nano <= seen.span.start_time_unix_nano
    served = [seen for seen in approval.values() if seen.is_called in (EDGE, SERVED, PUBLISHED, JOB)]
    assert not [seen.is_called for seen in served if seen.span.status.code]


def test_a_span_says_nothing_of_people_and_nothing_that_they_wrote(approval: Trace) -> None:
    said = [(key, str(value)) for seen in approval.values() for key, value in seen.attributes.items()]
    assert {key for key, _ in said} <= KEYS
    texts = [text for _, text in said] + [seen.span.name for seen in approval.values()]
    texts += [seen.span.status.message for seen in approval.values()]
    people = [str(find_person("acme", role).user_id) for role in ROLES]
    assert not [text for text in texts if EMAIL.search(text) or "nobody needs it" in text]
    assert not [text for text in texts if any(person in text for person in people)]
    assert not [seen.span.name for seen in approval.values() if seen.span.events]
