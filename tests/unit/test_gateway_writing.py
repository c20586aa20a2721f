"""What the edge writes of a message is what protobuf's own writer makes of it, for messages of every kind."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway import writing
from tests.support.transcoding import descriptors

PROTO = descriptors("everything.proto")
Everything = GetMessageClass(PROTO.message_types_by_name["Everything"])
Held = GetMessageClass(PROTO.message_types_by_name["Held"])
DEEPEST = 3
_FIRST, _LAST = -62_135_596_800, 253_402_300_799


def whole(bits: int, *, signed: bool) -> st.SearchStrategy[int]:
    """Whole numbers of a width."""
    return st.integers(-(2 ** (bits - 1)) if signed else 0, 2 ** (bits - signed) - 1)


SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: whole(32, signed=True),
    FieldDescriptor.CPPTYPE_INT64: whole(64, signed=True),
    FieldDescriptor.CPPTYPE_UINT32: whole(32, signed=False),
    FieldDescriptor.CPPTYPE_UINT64: whole(64, signed=False),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32) | st.sampled_from([0.1, 1e-7, 3.4028235e38, 16777217.0]),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.sampled_from([0, 1, 2, 99, -1]),
    FieldDescriptor.CPPTYPE_STRING: st.text(),
}
NANOS = st.sampled_from([0, 1, 1_000, 1_000_000, 120_000_000, 999_999_999])


def one(draw: st.DrawFn, field: FieldDescriptor) -> Any:
    """A value of a field that is no message."""
    return draw(st.binary() if field.type == FieldDescriptor.TYPE_BYTES else SCALARS[field.cpp_type])


def fill(draw: st.DrawFn, message: Any, depth: int = 0) -> None:
    """Give some fields of a message values."""
    name = message.DESCRIPTOR.name
    if name == "Timestamp":
        message.seconds, message.nanos = draw(st.integers(_FIRST, _LAST)), draw(NANOS)
    elif name == "Duration":
        message.seconds = draw(st.integers(-315_576_000_000, 315_576_000_000))
        message.nanos = draw(NANOS) * (-1 if message.seconds < 0 else 1)
    elif name == "FieldMask":
        message.paths.extend(draw(st.lists(st.sampled_from(["foo_bar", "a", "a.b_c"]), max_size=2)))
    elif name in ("Struct", "Value", "ListValue"):
        json_format.ParseDict(draw(ANYTHING[name]), message)
    else:
        for field in draw(st.lists(st.sampled_from(list(message.DESCRIPTOR.fields)), unique=True, max_size=8)):
            if field.message_type is None or depth < DEEPEST:
                fill_field(draw, message, field, depth)


def fill_field(draw: st.DrawFn, message: Any, field: FieldDescriptor, depth: int) -> None:
    """Give one field a value, or some."""
    inner, held = field.message_type, getattr(message, field.name)
    if inner is not None and inner.GetOptions().map_entry:
        fill_map(draw, held, inner, depth)
    elif not field.is_repeated:
        if inner is None:
            setattr(message, field.name, one(draw, field))
        else:
            held.SetInParent()
            fill(draw, held, depth + 1)
    else:
        for _ in range(draw(st.integers(0, 2))):
            if inner is None:
                held.append(one(draw, field))
            else:
                fill(draw, held.add(), depth + 1)


def fill_map(draw: st.DrawFn, held: Any, entry: Descriptor, depth: int) -> None:
    """Give a map some entries."""
    value = entry.fields_by_name["value"]
    for _ in range(draw(st.integers(0, 2))):
        key = one(draw, entry.fields_by_name["key"])
        if value.message_type is None:
            held[key] = one(draw, value)
        else:
            fill(draw, held[key], depth + 1)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
ANYTHING = {
    "Struct": st.dictionaries(st.text(), JSON, max_size=2),
    "Value": JSON,
    "ListValue": st.lists(JSON, max_size=2),
}


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Any message of the type that has every kind of field."""
    message = Everything()
    fill(draw, message)
    return message


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


@pytest.mark.parametrize(("seconds", "nanos"), [(_LAST + 1, 0), (_FIRST - 1, 0), (1, -1), (2**62, 0)])
def test_what_is_no_time_is_not_written(seconds: int, nanos: int) -> None:
    message: Any = Everything()
    message.time.seconds, message.time.nanos = seconds, nanos
    with pytest.raises(ValueError):
        writing.document(message)
