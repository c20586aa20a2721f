"""What the edge writes of a message is what protobuf's own writer makes of it, for messages of every kind."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2
from services.gateway import writing
from tests.support.transcoding import descriptors
from tests.support.transcoding.messages import FIRST, LAST, Everything, messages

Held = GetMessageClass(descriptors("everything.proto").message_types_by_name["Held"])


def same(content: Any) -> str:
    """JSON in which 1, 1.0 and true are three things, and the order of fields is none."""
    return json.dumps(content, sort_keys=True)


def theirs(message: Message) -> Any:
    """What protobuf's own writer makes of it."""
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


@settings(max_examples=150, deadline=None)
@given(messages())
def test_a_message_is_written_as_protobuf_writes_it(message: Message) -> None:
    assert same(json.loads(writing.text(writing.document(message)))) == same(theirs(message))


@settings(max_examples=200, deadline=None)
@given(st.floats(width=32, allow_nan=False))
def test_a_float_of_32_bits_has_the_fewest_digits(value: float) -> None:
    written = writing.document(Everything(float=value))["float"]
    assert written == theirs(Everything(float=value))["float"]
    if not isinstance(written, str):
        assert struct.pack("<f", written) == struct.pack("<f", value)


def test_an_any_is_written_with_all_fields_of_what_it_holds() -> None:
    message: Any = Held(more=[Held()])
    message.more[0].any.Pack(Everything(int64=5))
    assert same(writing.document(message)) == same(theirs(message))


@pytest.mark.parametrize(("seconds", "nanos"), [(LAST + 1, 0), (FIRST - 1, 0), (1, -1), (2**62, 0)])
def test_what_is_no_time_is_not_written(seconds: int, nanos: int) -> None:
    message: Any = Everything()
    message.time.seconds, message.time.nanos = seconds, nanos
    with pytest.raises(ValueError):
        writing.document(message)


def test_an_answer_has_so_many_items_however_they_are_nested() -> None:
    most = writing.MOST_ITEMS
    page = scanner_service_pb2.ListFindingsResponse(findings=[scanner_pb2.Finding()] * 10)
    for _ in range(2):  # Each answer has as many.
        writing._Items.left = 0
        assert len(writing.document(page)["findings"]) == 10
    field = page.DESCRIPTOR.fields_by_name["findings"]
    writing._Items.left = 0
    assert len(writing.of_field(field, page)) == 10
    too_many = FileDescriptorProto(message_type=[DescriptorProto(field=[FieldDescriptorProto()] * (most // 2))] * 3)
    assert too_many.ByteSize() < 4 * 1024 * 1024
    with pytest.raises(ValueError, match=f"more than {most} items"):
        writing.document(too_many)
