"""What the edge reads of a document is what protobuf's own parser makes of it, for messages of every kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway import filling
from services.gateway.shapes import Shapes
from tests.support.transcoding.messages import Everything, messages


def checked(document: dict[str, Any]) -> dict[str, Any]:
    """The same as the edge hands it on."""
    Shapes().check_object(document, Everything.DESCRIPTOR)  # type: ignore[arg-type]
    return document


def wire(message: Message) -> bytes:
    """By this two are the same, also where a number isn't equal to itself."""
    return message.SerializeToString(deterministic=True)


def require_same(document: dict[str, Any]) -> None:
    ours, theirs = Everything(), Everything()
    filling.fill(ours, document)
    json_format.ParseDict(document, theirs)
    assert wire(ours) == wire(theirs)


@settings(max_examples=150, deadline=None)
@given(messages(), st.booleans(), st.booleans())
def test_a_document_is_read_as_protobuf_reads_it(message: Message, as_in_proto: bool, whole: bool) -> None:
    document = json_format.MessageToDict(
        message, always_print_fields_with_no_presence=whole, preserving_proto_field_name=as_in_proto
    )
    require_same(checked(json.loads(json.dumps(document))))


@pytest.mark.parametrize(
    "document",
    [
        {"int32": "5", "int64": 5.0, "uint64": "18446744073709551615", "double": "1.5e3", "float": "NaN"},
        {"maybeInt32": 0, "maybeText": "", "maybeBool": False, "maybeColour": "COLOUR_UNSPECIFIED"},
        {"text": None, "texts": None, "child": None, "byText": None, "time": None, "value": None, "thisText": None},
        {"colour": 2.0, "colours": ["COLOUR_RED", 1, -7]},
        {"bytes": "-_8", "bytess": ["+/8=", "", "YQ", "YQ=="]},
        {"child": {}, "children": [{}], "struct": {}, "byInt64": {"-1": {}}, "byBool": {"true": 1, "false": "2"}},
        {"value": {"a": [None, True, "x", {"b": 1}]}, "struct": {"a": None}, "duration": "-1.5s"},
    ],
)
def test_every_form_that_a_value_may_have_is_read(document: dict[str, Any]) -> None:
    require_same(checked(document))
