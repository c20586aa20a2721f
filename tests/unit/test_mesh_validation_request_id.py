"""One request is one request, however its id is spelled."""

from __future__ import annotations

from uuid import UUID

import pytest

from recoup.identity.v1.identity_service_pb2 import AddMemberRequest
from services._mesh.context import CallContext
from services._mesh.idempotency import canonical, repeatable

ID = "0191f2a4-7a52-7d0e-9c3b-aabbccddeeff"
CONTEXT = CallContext(
    rpc="test/Write", peer="gateway", request_id="r", trace_id="", deadline=None, actor="user:1", audit_action=""
)


def test_a_request_id_in_upper_case_is_the_same_request() -> None:
    first, again, other = (
        repeatable("pricing", UUID(int=1), CONTEXT, AddMemberRequest(request_id=request_id, email=email))
        for request_id, email in ((ID, "a@x.com"), (ID.upper(), "a@x.com"), (ID.upper(), "b@x.com"))
    )
    assert first is not None
    assert first == again
    assert other is not None
    assert (other.request_id, other.digest == first.digest) == (ID, False)


def test_the_request_itself_keeps_its_spelling() -> None:
    request = AddMemberRequest(request_id=ID.upper())
    repeatable("pricing", UUID(int=1), CONTEXT, request)
    assert request.request_id == ID.upper()


@pytest.mark.parametrize("request_id", ["Nightly", ID.upper().replace("-", ""), f"{{{ID.upper()}}}", f"{ID.upper()}\n"])
def test_what_is_no_uuid_is_compared_as_it_is(request_id: str) -> None:
    assert canonical(request_id) == request_id
