"""Messages as proto3 JSON, fields at their defaults included: what each type needs is worked out once. Pure.

protobuf's own writer looks every field of every message up again, in Python: it needs five times as long for a list.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from keyword import iskeyword
from operator import attrgetter, methodcaller
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

# The JSON of a value; None where a value is its own.
_Written = Callable[[Any], Any]

_WELL_KNOWN = "google.protobuf."
_DAY_SECONDS = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALL_FIELDS = partial(json_format.MessageToDict, always_print_fields_with_no_presence=True)
_NULL = f"{_WELL_KNOWN}NullValue"
# What may be any JSON is rare, and protobuf's own writer knows it.
_ANYTHING = frozenset(f"{_WELL_KNOWN}{each}" for each in ("Any", "Struct", "Value", "ListValue"))
_LONG = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)

# Messages in lists and maps of one answer. An empty one comes as two bytes, and goes out with all of its fields: what
# a channel takes would be gigabytes. The longest page has a thousand.
MOST_ITEMS = 100_000

_KNOWN: dict[Descriptor, _Written] = {}


class _Items:
    """How many more there may be in the answer that is written: one at a time, in the event loop."""

    left = MOST_ITEMS

    @classmethod
    def take(cls, count: int) -> None:
        cls.left -= count
        if cls.left < 0:
            raise ValueError(f"an answer has more than {MOST_ITEMS} items")


def text(content: Any) -> bytes:
    """JSON of what `document` or `of_field` made."""
    return orjson.dumps(content)


def document(message: Message) -> Any:
    """What a message is in JSON. Raises ValueError for one that JSON has no form for, or that has too many items."""
    _Items.left = MOST_ITEMS
    return _writer(message.DESCRIPTOR)(message)  # type: ignore[arg-type]


def of_field(field: FieldDescriptor, message: Message) -> Any:
    """What one field is in JSON; of one that isn't there, null, or an empty object where it is a message."""
    if field.has_presence and not message.HasField(field.name):
        return None if field.message_type is None else {}
    _Items.left = MOST_ITEMS
    value = getattr(message, field.name)
    written = _of(field)
    return value if written is None else written(value)


def _writer(descriptor: Descriptor) -> _Written:
    name = descriptor.full_name
    if descriptor.file.name == "google/protobuf/wrappers.proto":
        inner, value = _of(descriptor.fields_by_name["value"]), attrgetter("value")
        return value if inner is None else lambda message: inner(message.value)
    if name == f"{_WELL_KNOWN}Timestamp":
        return _time
    if name in (f"{_WELL_KNOWN}Duration", f"{_WELL_KNOWN}FieldMask"):
        return methodcaller("ToJsonString")
    if name in _ANYTHING:
        return _ALL_FIELDS
    return _KNOWN.get(descriptor) or _fields(descriptor)


def _fields(descriptor: Descriptor) -> _Written:
    """A function for messages of one type, compiled from the names of its fields as dataclasses compiles its own; the
    names are our protos'. Closures that go from field to field take a third longer.
    """
    # A type may contain itself: until its function is there, whoever needs it looks it up.
    _KNOWN[descriptor] = lambda message: _KNOWN[descriptor](message)
    names: dict[str, Any] = {}
    always, optional = [], []
    for field in descriptor.fields:
        value, change = f"getattr(m, {field.name!r})" if iskeyword(field.name) else f"m.{field.name}", _of(field)
        if change is not None:
            names[f"_{field.number}"] = change
            value = f"_{field.number}({value})"
        if field.has_presence:
            optional.append(f" if m.HasField({field.name!r}): d[{field.json_name!r}] = {value}")
        else:
            always.append(f"{field.json_name!r}: {value}")
    lines = ["def write(m):", f" d = {{{', '.join(always)}}}", *optional, " return d"]
    exec("\n".join(lines), names)  # noqa: S102
    written: _Written = names["write"]
    _KNOWN[descriptor] = written
    return written


def _of(field: FieldDescriptor) -> _Written | None:
    """How a field's value is written, be it one, a list or a map."""
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return _map(inner) if inner.fields_by_name["value"].message_type is None else _counted(_map(inner))
    one = _one(field)
    if not field.is_repeated:
        return one
    if one is None:
        return list

    def write(values: Any) -> list[Any]:
        return [one(each) for each in values]

    return write if inner is None else _counted(write)


def _counted(written: _Written) -> _Written:
    """The same of a list or a map of messages, which counts them first."""

    def write(values: Any) -> Any:
        _Items.take(len(values))
        return written(values)

    return write


def _map(entry: Descriptor) -> _Written:
    """JSON's keys are texts."""
    one = _one(entry.fields_by_name["value"]) or _same
    kind = entry.fields_by_name["key"].cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        if one is _same:  # dict(entries) takes thrice the time of this.
            return lambda entries: {key: entries[key] for key in entries}
        return lambda entries: {key: one(entries[key]) for key in entries}
    name = _truth if kind == FieldDescriptor.CPPTYPE_BOOL else str
    return lambda entries: {name(key): one(entries[key]) for key in entries}


def _one(field: FieldDescriptor) -> _Written | None:
    """How a single value of a field is written."""
    if field.message_type is not None:
        return _writer(field.message_type)
    if field.enum_type is not None:
        return _enum(field.enum_type)
    if field.cpp_type in _LONG:
        return str
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _base64
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return _float
    return _double if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE else None


def _enum(descriptor: EnumDescriptor) -> _Written:
    """By name; a number that has none, from a newer service, as it is."""
    if descriptor.full_name == _NULL:
        return lambda _: None
    names: Mapping[int, str] = {number: value.name for number, value in descriptor.values_by_number.items()}
    return lambda number: names.get(number, number)


def _same(value: Any) -> Any:
    return value


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _double(value: float) -> float | str:
    """proto3 has texts for what JSON has no number for."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _float(value: float) -> float | str:
    """In the fewest digits that 32 bits are told from others by."""
    if not math.isfinite(value):
        return _double(value)
    shortened = (float(f"{value:.{digits}g}") for digits in range(6, 9))
    return next((each for each in shortened if _as_float(each) == value), float(f"{value:.9g}"))


def _as_float(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:  # Rounded up beyond the largest one.
        return math.inf


def _time(message: Any) -> str:
    """RFC 3339; where it has a fraction of a second, or isn't one, protobuf says the rest."""
    if message.nanos:
        said: str = message.ToJsonString()
        return said
    try:
        return _second(message.seconds)
    except OverflowError:
        raise ValueError("a time lies before the year 1 or after 9999") from None


@lru_cache(4096)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19] + "Z"
