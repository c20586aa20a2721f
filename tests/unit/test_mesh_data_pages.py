"""Page tokens open only for the organization, method and filter that they were made for."""

from __future__ import annotations

import base64
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.audit.v1.audit_service_pb2 import ListEventsRequest
from recoup.identity.v1.identity_service_pb2 import ListMembersRequest
from services._mesh.errors import Invalid
from services._mesh.pages import MAX_SIZE, PageTokens, size_of

ACME, GLOBEX = UUID(int=1), UUID(int=2)
PAGES = PageTokens(b"k" * 32)


def token(position: str = "41", **fields: str) -> str:
    return PAGES.encode(ACME, ListEventsRequest(organization_id=str(ACME), **fields), position)


@given(st.text(max_size=200))
def test_a_token_opens_to_its_position(position: str) -> None:
    request = ListEventsRequest(organization_id=str(ACME), page_token=token(position), page_size=7)
    assert PAGES.decode(ACME, request) == position


def test_no_token_is_the_start() -> None:
    assert PAGES.decode(ACME, ListEventsRequest()) == ""


@pytest.mark.parametrize(
    ("organization", "request_"),
    [
        (GLOBEX, ListEventsRequest(organization_id=str(ACME), page_token=token())),
        (ACME, ListEventsRequest(organization_id=str(GLOBEX), page_token=token())),
        (ACME, ListEventsRequest(organization_id=str(ACME), action="other", page_token=token())),
        (ACME, ListMembersRequest(organization_id=str(ACME), page_token=token())),
        (ACME, ListEventsRequest(organization_id=str(ACME), page_token=token()[:-2] + "AA")),
        (ACME, ListEventsRequest(organization_id=str(ACME), page_token=token()[:10])),
        (ACME, ListEventsRequest(organization_id=str(ACME), page_token="é" * 40)),
        (ACME, ListEventsRequest(organization_id=str(ACME), page_token="41")),
    ],
    ids=["organization", "field", "filter", "method", "changed", "cut", "letters", "bare"],
)
def test_a_foreign_or_garbled_token_is_refused(organization: UUID, request_: ListEventsRequest) -> None:
    with pytest.raises(Invalid) as raised:
        PAGES.decode(organization, request_)
    assert raised.value.reason_name == "PAGE_TOKEN_INVALID"


def test_a_token_of_another_key_is_refused() -> None:
    request = ListEventsRequest(organization_id=str(ACME), page_token=token())
    with pytest.raises(Invalid):
        PageTokens(b"l" * 32).decode(ACME, request)


@given(st.text(max_size=300))
def test_no_text_does_anything_but_being_refused(text: str) -> None:
    request = ListEventsRequest(organization_id=str(ACME), page_token=text)
    if text:
        with pytest.raises(Invalid):
            PAGES.decode(ACME, request)


def test_a_token_says_nothing_about_its_position() -> None:
    assert token("41") != token("41")
    # Long enough that chance won't spell it, neither as it is nor in base64.
    position = "after-the-row-0123456789"
    sealed = token(position)
    assert position not in sealed
    assert base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")[:16] not in sealed


@pytest.mark.parametrize(("asked", "given_"), [(0, 50), (7, 7), (500, 500), (10_000, MAX_SIZE)])
def test_the_size_of_a_page_is_bounded(asked: int, given_: int) -> None:
    assert size_of(ListEventsRequest(page_size=asked)) == given_
