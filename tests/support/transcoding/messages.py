"""Messages of every kind, for hypothesis: any of the type that has each kind of field."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from tests.support.transcoding import descriptors

Everything = GetMessageClass(descriptors("everything.proto").message_types_by_name["Everything"])
DEEPEST = 3
FIRST, LAST = -62_135_596_800, 253_402_300_799


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
        message.seconds, message.nanos = draw(st.integers(FIRST, LAST)), draw(NANOS)
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
