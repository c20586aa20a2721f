"""Whether JSON values have the shape of the fields they are for, said in our own words. Pure, and knows no request.

It runs before protobuf's own parser, whose messages quote Python and don't always name the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services._mesh.errors import FieldViolation, Invalid, Reason, invalid_field

WELL_KNOWN = "google.protobuf."
_MAX_NAME = 100
_WHOLE = re.compile(r"-?[0-9]{1,20}")
_UNPAIRED = re.compile("[\ud800-\udfff]")
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_PARSER_REFUSALS = (json_format.ParseError, ValueError, TypeError, AttributeError, OverflowError)


def unknown(field: str, why: str) -> Invalid:
    """The Invalid of a name that can't be given here."""
    name = printable(field)
    return Invalid(Reason.ERROR_REASON_FIELD_UNKNOWN, f"{name}: {why}.", {"field": name}, [FieldViolation(name, why)])


def printable(name: str) -> str:
    """A name from outside as it may stand in an answer: short, and with escapes for what UTF-8 can't say."""
    return name[:_MAX_NAME].encode(errors="backslashreplace").decode()


def find_field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    """The field of that name, in either of its spellings; any text may be asked for."""
    return _names(descriptor).get(name)


@cache
def _names(descriptor: Descriptor) -> Mapping[str, FieldDescriptor]:
    return dict(descriptor.fields_by_camelcase_name) | dict(descriptor.fields_by_name)


@cache
def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def check_object(document: Mapping[str, Any], descriptor: Descriptor, prefix: str = "") -> None:
    """Raises Invalid for the first field that isn't there, is there twice, or holds what it can't."""
    seen: set[str] = set()
    for key, value in document.items():
        field = find_field(descriptor, key)
        if field is None:
            raise unknown(prefix + key, "there is no such field")
        if field.name in seen:
            raise unknown(prefix + key, "it is given in its other spelling already")
        seen.add(field.name)
        if value is not None:  # JSON's null is a field that wasn't given.
            check_field(field, value, prefix + key)


def check_field(field: FieldDescriptor, value: Any, path: str) -> None:
    """Raises Invalid unless a field can hold the value: a list where it is repeated, an object where it is a map."""
    if _is_map(field):
        assert field.message_type is not None
        _check_map(field.message_type, value, path)
    elif field.is_repeated:
        if not isinstance(value, list):
            raise invalid_field(path, "must be a list.")
        for place, item in enumerate(value):
            _check_one(field, item, f"{path}[{place}]")
    else:
        _check_one(field, value, path)


def _check_map(entry: Descriptor, value: Any, path: str) -> None:
    if not isinstance(value, dict):
        raise invalid_field(path, "must be an object.")
    key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
    for key, item in value.items():
        at = f"{path}[{printable(key)}]"
        is_bool = key_field.cpp_type == FieldDescriptor.CPPTYPE_BOOL
        _check_one(key_field, key == "true" if is_bool and key in ("true", "false") else key, at)
        _check_one(value_field, item, at)


def _check_one(field: FieldDescriptor, value: Any, path: str) -> None:
    if field.message_type is None:
        wrong = _wrong_scalar(field, value)
    elif field.message_type.full_name.startswith(WELL_KNOWN):
        wrong = _wrong_well_known(field.message_type, value)
    elif isinstance(value, dict):
        check_object(value, field.message_type, f"{path}.")
        return
    else:
        wrong = "must be an object."
    if wrong:
        raise invalid_field(path, wrong)


def _wrong_scalar(field: FieldDescriptor, value: Any) -> str:
    """What a single value must be; empty where it is."""
    kind = field.cpp_type
    if kind in _RANGES:
        low, high = _RANGES[kind]
        return "" if _is_whole(value, low, high) else f"must be a whole number from {low} to {high}."
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return "" if isinstance(value, bool) else "must be true or false."
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return _wrong_enum(field, value)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _wrong_text(value) if field.type == FieldDescriptor.TYPE_STRING else _wrong_bytes(value)
    return "" if isinstance(value, int | float) and not isinstance(value, bool) else "must be a number."


def _is_whole(value: Any, low: int, high: int) -> bool:
    """JSON has large integers as text, and some writers have whole ones with a point."""
    if isinstance(value, str):
        return _WHOLE.fullmatch(value) is not None and low <= int(value) <= high
    if isinstance(value, float):
        return value.is_integer() and low <= value <= high
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _wrong_enum(field: FieldDescriptor, value: Any) -> str:
    enum = field.enum_type
    assert enum is not None
    if isinstance(value, str):
        if value.isascii() and value in enum.values_by_name:
            return ""
    elif _is_whole(value, *_RANGES[FieldDescriptor.CPPTYPE_INT32]):
        return ""
    # Zero is "not set", which nobody needs to say.
    return f"must be one of {', '.join(each.name for each in enum.values if each.number)}."


def _wrong_text(value: Any) -> str:
    if not isinstance(value, str):
        return "must be text."
    return "must be text without unpaired surrogates (UTF-8 can't carry them)." if _UNPAIRED.search(value) else ""


def _wrong_bytes(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9+/_-]*={0,2}", value):
        return ""
    return "must be base64 text."


def _wrong_well_known(descriptor: Descriptor, value: Any) -> str:
    """Timestamps and their like: protobuf's parser knows their texts, and we know what to say when it refuses."""
    try:
        json_format.ParseDict(value, message_factory.GetMessageClass(descriptor)())
    except _PARSER_REFUSALS:
        name = descriptor.name
        if name == "Timestamp":
            return "must be a time as RFC 3339 has it, such as 2026-01-31T09:00:00Z."
        return f"must be what JSON has for a {name}."
    return ""
