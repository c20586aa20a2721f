"""Whatever a directory sends, SCIM's parsers answer in SCIM's words: bodies, filters, PATCH paths, attribute names."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scim2_models import InvalidFilterException, InvalidPathException, InvalidValueException, SCIMException
from sqlalchemy import select
from sqlalchemy.dialects import postgresql

from services.identity.model.scim.answers import refusal
from services.identity.model.scim.bodies import read_object
from services.identity.model.scim.groups import ScimGroup, patch_of
from services.identity.model.scim.queries import from_url, read_query
from services.identity.model.scim.resources import MAX_PAGE, Group, ProvisionedUser
from services.identity.model.scim.users import ScimUser, created_document, patched_user
from services.identity.store.scim_filters import condition_of, order_of
from services.identity.tables.scim import scim_users

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
NOW = datetime(2026, 11, 26, tzinfo=UTC)
DOCUMENT = {"schemas": [USER], "userName": "a", "active": True, "emails": [{"value": "a@b", "type": "work"}]}
_ATTRIBUTES = [
    "userName",
    "emails",
    "emails.value",
    "active",
    "meta.created",
    "name.familyName",
    "id",
    "groups",
    "x",
    "title",
]
_OPERATORS = ["eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le", "EQ", "zz"]
_VALUES = ['"a"', '"%_\\\\"', "true", "null", "1", '"2026-01-01T00:00:00Z"', '"\' OR 1=1 --"', '"\\u0000"']
terms = st.builds("{} {} {}".format, *(st.sampled_from(each) for each in (_ATTRIBUTES, _OPERATORS, _VALUES)))
filters = st.recursive(
    terms | st.sampled_from(["title pr", 'emails[type eq "work"]', 'emails[value co "x" and primary eq true]']),
    lambda inner: (
        st.builds("({}) and {}".format, inner, inner)
        | st.builds("{} or {}".format, inner, inner)
        | st.builds("not ({})".format, inner)
    ),
    max_leaves=12,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
bounded = settings(max_examples=60, deadline=None)


def answered(run: Any) -> Any:
    """What a parser made of it, or None where it refused in words that SCIM has."""
    try:
        return run()
    except Exception as error:
        found = refusal(error)
        if found is None or not 400 <= found.status < 500:
            raise
        json.dumps(found.document)
        return None


@bounded
@given(filters | st.text(max_size=60))
@example("(" * 1999)
@example("not(" * 400 + "title pr" + ")" * 400)
@example("meta.created co true")
@example('userName eq "' + "\\" * 1001)
def test_a_filter_is_sql_with_bound_values_or_refused(text: str) -> None:
    for model in (ProvisionedUser, Group):
        query = answered(lambda model=model: read_query({"filter": text}, model))
        if query is None:
            continue
        condition = answered(lambda query=query: condition_of(query.filter))
        if condition is None:
            continue
        compiled = select(scim_users.c.scim_id).where(condition).compile(dialect=postgresql.dialect())
        assert "OR 1=1" not in str(compiled)
        assert not any("\x00" in value for value in compiled.params.values() if isinstance(value, str))


@bounded
@given(st.text(max_size=80) | st.sampled_from(["filter=a&filter=b", "count=%31", "a", "=", "&&", "%00=%00"]))
def test_a_query_is_read_or_refused(raw: str) -> None:
    found = answered(lambda: read_query(from_url(raw.encode("ascii", "ignore").decode()), ProvisionedUser))
    assert found is None or (found.start >= 1 and 0 <= found.count <= MAX_PAGE)


@bounded
@given(st.text(max_size=30))
def test_an_order_is_known_or_refused(name: str) -> None:
    for model in (ProvisionedUser, Group):
        order = answered(lambda model=model: order_of(model, name, True))
        assert order is None or str(order[-1]).endswith("_id"), "what is equal keeps one order, or pages overlap"


@bounded
@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 1_000_000)
@example(b'{"a":' * 100_000)
@example(b'{"a": "' + b"\\" * 100_001 + b'"}')
@example(b'"' * 500_001)
@example(b'{"a": "' + b'\\"' * 100_000)  # Quadratic time would keep this from ending.
def test_a_body_is_an_object_or_refused(body: bytes) -> None:
    found = answered(lambda: read_object(body))
    assert found is None or isinstance(found, dict)


@bounded
@given(
    st.dictionaries(
        st.sampled_from(["userName", "name", "emails", "active", "groups", "id", "x509Certificates"]), json_values
    )
)
def test_a_user_is_read_or_refused(attributes: dict[str, Any]) -> None:
    body = json.dumps({"schemas": [USER], "userName": "a", **attributes}).encode()
    found = answered(lambda: created_document(read_object(body)))
    assert found is None or found["userName"]


paths = st.builds(
    "{}[{}]{}".format, st.sampled_from(["emails", "members", "x"]), terms, st.sampled_from(["", ".value", ".x", "]"])
)
operations = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "Replace", "REMOVE", "x", 1])},
    optional={"path": paths | st.sampled_from(_ATTRIBUTES) | st.text(max_size=30), "value": json_values},
)


@bounded
@given(st.lists(operations, max_size=3))
@example([{"op": "add", "path": "emails" + "[" * 5000, "value": 1}])
@example([{"op": "remove", "path": "emails[not (" + "(" * 5000 + 'type eq "a"'}])
def test_a_patch_is_done_or_refused(given_operations: list[Any]) -> None:
    body = json.dumps({"schemas": [PATCH], "Operations": given_operations}).encode()
    user = ScimUser(UUID(int=1), UUID(int=2), DOCUMENT, None, 1, NOW, NOW)
    group = ScimGroup(UUID(int=1), UUID(int=3), "g", "", 1, NOW, NOW)
    before = json.dumps(DOCUMENT)
    found = answered(lambda: patched_user(user, read_object(body)))
    assert found is None or (found["userName"] and "\\u0000" not in json.dumps(found))
    answered(lambda: patch_of(group, read_object(body)))
    assert json.dumps(DOCUMENT) == before


@pytest.mark.parametrize("text", ["title pr or " * 50 + "title pr", "x" * 2001])
def test_a_filter_beyond_its_bounds_is_refused(text: str) -> None:
    with pytest.raises(InvalidFilterException):
        read_query({"filter": text}, ProvisionedUser)
    assert issubclass(InvalidFilterException, SCIMException)


_MANY_TERMS = "[" + 'type eq "a" or ' * 50 + 'type eq "a"]'


@pytest.mark.parametrize(
    ("name", "given_operations"),
    [
        ("Operations", [{"op": "remove", "path": f"emails{_MANY_TERMS}"}]),
        ("Operations", [{"op": "remove", "PATH": f"members{_MANY_TERMS}"}]),
        ("Operations", [{"op": "add", "value": {f"emails{_MANY_TERMS}.value": "a"}}]),
        ("Operations", [{"op": "remove", "path": 'emails[value eq "' + "x" * 2000 + '"]'}]),
        ("operations", [{"op": "add", "path": "title", "value": "x"}] * 101),
        ("Operations", [{"op": "add", "path": "emails", "value": [{"value": "a"}] * 10_001}]),
    ],
)
def test_a_patch_beyond_its_bounds_is_refused(name: str, given_operations: list[Any]) -> None:
    payload = {"schemas": [PATCH], name: given_operations}
    user = ScimUser(UUID(int=1), UUID(int=2), DOCUMENT, None, 1, NOW, NOW)
    group = ScimGroup(UUID(int=1), UUID(int=3), "g", "", 1, NOW, NOW)
    for read in (lambda: patched_user(user, payload), lambda: patch_of(group, payload)):
        with pytest.raises((InvalidPathException, InvalidValueException), match="may have at most"):
            read()
