"""Whether JSON values have the shape of the fields they are for, said in our own words. Pure, and knows no request.

It runs before protobuf's own parser, whose messages quote Python and don't always name the field.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from services._mesh.errors import FieldViolation, Invalid, Reason, invalid_field

WELL_KNOWN = "google.protobuf."
ANY = f"{WELL_KNOWN}Any"
_TEXTS = frozenset(WELL_KNOWN + name for name in ("Timestamp", "Duration", "FieldMask"))
_WRAPPERS = frozenset(
    f"{WELL_KNOWN}{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
_NULL = f"{WELL_KNOWN}NullValue"
_MAX_NAME = 100
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}")
_WHOLE = re.compile(r"-?[0-9]{1,20}")
# As JSON has numbers, and proto3 JSON what isn't one.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,400})(\.[0-9]{1,400})?([eE][+-]?[0-9]{1,4})?")
_NO_NUMBERS = frozenset({"NaN", "Infinity", "-Infinity"})
_LARGEST_FLOAT = 2.0**128 - 2.0**104
# From here on a float of 32 bits would be infinite.
_TOO_LARGE_FLOAT = 2.0**128 - 2.0**103
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
    return {field.json_name: field for field in descriptor.fields} | dict(descriptor.fields_by_name)


def wrapped(field: FieldDescriptor) -> FieldDescriptor | None:
    """The one value of a wrapper (google.protobuf.Int32Value and its like), or None."""
    name = field.message_type.full_name if field.message_type is not None else ""
    return field.message_type.fields_by_name["value"] if name in _WRAPPERS and field.message_type is not None else None


def has_text(field: FieldDescriptor) -> bool:
    """Whether a message is written as one text or number, so that a parameter can say it."""
    return field.message_type is not None and field.message_type.full_name in _WRAPPERS | _TEXTS


@cache
def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


class Shapes:
    """Checks values against fields. `any_types` are the messages that a google.protobuf.Any may hold: none, unless said
    so.
    """

    def __init__(self, any_types: frozenset[str] = frozenset()) -> None:
        self._any_types = any_types

    def check_object(self, document: dict[str, Any], descriptor: Descriptor, prefix: str = "") -> None:
        """Raises Invalid for the first field that isn't there, is there twice, or holds what it can't."""
        seen: set[str] = set()
        for key, value in document.items():
            field = find_field(descriptor, key)
            if field is None:
                raise unknown(prefix + key, "there is no such field")
            if field.name in seen:
                raise unknown(prefix + key, "it is given in its other spelling already")
            seen.add(field.name)
            if value is not None or takes_null(field):  # JSON's null is a field that wasn't given.
                document[key] = self.check_field(field, value, prefix + key)
        self.check_choices(document, descriptor, prefix.removesuffix("."))

    def check_choices(self, document: Mapping[str, Any], descriptor: Descriptor, path: str) -> None:
        """Raises Invalid where two fields are given of which there can be only one."""
        choices = _choices(descriptor)
        given: dict[str, str] = {}
        for key, value in document.items() if choices else ():
            choice = choices.get(key) if value is not None else None
            if choice is not None and given.setdefault(choice, key) != key:
                raise invalid_field(".".join(filter(None, (path, key))), f"can't be given beside {given[choice]}.")

    def check_field(self, field: FieldDescriptor, value: Any, path: str) -> Any:
        """The value as protobuf's parser takes it. Raises Invalid unless the field can hold it: a list where it is
        repeated, an object where it is a map.
        """
        if _is_map(field):
            assert field.message_type is not None
            return self._check_map(field.message_type, value, path)
        if field.is_repeated:
            if not isinstance(value, list):
                raise invalid_field(path, "must be a list.")
            return [self._check_one(field, item, f"{path}[{place}]") for place, item in enumerate(value)]
        return self._check_one(field, value, path)

    def _check_map(self, entry: Descriptor, value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise invalid_field(path, "must be an object.")
        key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
        for key, item in value.items():
            at = f"{path}[{printable(key)}]"
            is_bool = key_field.cpp_type == FieldDescriptor.CPPTYPE_BOOL
            self._check_one(key_field, key == "true" if is_bool and key in ("true", "false") else key, at)
            value[key] = self._check_one(value_field, item, at)
        return value

    def _check_one(self, field: FieldDescriptor, value: Any, path: str) -> Any:
        single = wrapped(field) or field
        if single.message_type is None:
            wrong = _wrong_scalar(single, value)
        elif single.message_type.full_name == ANY:
            self._check_any(value, path)
            return value
        elif single.message_type.full_name.startswith(WELL_KNOWN):
            wrong = _wrong_well_known(single.message_type, value)
        elif isinstance(value, dict):
            self.check_object(value, single.message_type, f"{path}.")
            return value
        else:
            wrong = "must be an object."
        if wrong:
            raise invalid_field(path, wrong)
        return _rounded(value) if single.cpp_type == FieldDescriptor.CPPTYPE_FLOAT else value

    def _check_any(self, value: Any, path: str) -> None:
        named = value.get("@type") if isinstance(value, dict) else None
        name = named.rpartition("/")[2] if isinstance(named, str) else ""
        if name not in self._any_types:
            allowed = (
                f"name one of {', '.join(sorted(self._any_types))} as its @type" if self._any_types else "be left out"
            )
            raise invalid_field(path, f"must {allowed}.")
        held = descriptor_pool.Default().FindMessageTypeByName(name)
        if held.full_name.startswith(WELL_KNOWN):
            wrong = _wrong_well_known(held, value.get("value"))
            if wrong:
                raise invalid_field(f"{path}.value", wrong)
        else:
            self.check_object({key: item for key, item in value.items() if key != "@type"}, held, f"{path}.")


@cache
def _choices(descriptor: Descriptor) -> Mapping[str, str]:
    """Of what each field is one of several, by either of its spellings."""
    oneofs = [(name, field.containing_oneof) for name, field in _names(descriptor).items()]
    return {name: choice.name for name, choice in oneofs if choice is not None and len(choice.fields) > 1}


def takes_null(field: FieldDescriptor) -> bool:
    """Whether null is a value of the field, and not its absence."""
    if field.is_repeated:
        return False
    if field.message_type is not None:
        return field.message_type.full_name == f"{WELL_KNOWN}Value"
    return field.enum_type is not None and field.enum_type.full_name == _NULL


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
    return _wrong_number(field, value)


def _wrong_number(field: FieldDescriptor, value: Any) -> str:
    """JSON has no NaN and no infinity: proto3 has them as text, and other numbers may be text too."""
    if isinstance(value, str):
        if value in _NO_NUMBERS:
            return ""
        value = float(value) if _NUMBER.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "must be a number."
    is_double = field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE
    fits = abs(value) < (math.inf if is_double else _TOO_LARGE_FLOAT)
    return "" if fits else f"must be a number that {'64' if is_double else '32'} bits can hold."


def _rounded(value: str | float) -> str | float:
    """A float of 32 bits in few digits may lie beyond the largest one, which protobuf's parser refuses to round to."""
    value = value if value in _NO_NUMBERS else float(value)
    if isinstance(value, str):
        return value
    beyond = _LARGEST_FLOAT < abs(value) < _TOO_LARGE_FLOAT
    return math.copysign(_LARGEST_FLOAT, value) if beyond else value


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
    elif (value is None and enum.full_name == _NULL) or _is_whole(value, *_RANGES[FieldDescriptor.CPPTYPE_INT32]):
        return ""
    # Zero is "not set", which nobody needs to say.
    return f"must be one of {', '.join(each.name for each in enum.values if each.number)}."


def _wrong_text(value: Any) -> str:
    if not isinstance(value, str):
        return "must be text."
    return "must be text without unpaired surrogates (UTF-8 can't carry them)." if _UNPAIRED.search(value) else ""


def _wrong_bytes(value: Any) -> str:
    if isinstance(value, str) and _BASE64.fullmatch(value) and len(value.rstrip("=")) % 4 != 1:
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


def require_allowed(message: Any, any_types: frozenset[str]) -> None:
    """Raise ValueError where a google.protobuf.Any, at any depth, holds another message than these."""
    if message.DESCRIPTOR.full_name == ANY:
        if message.TypeName() not in any_types:
            raise ValueError(f"{message.TypeName()} isn't allowed in an Any")
        message = message_factory.GetMessageClass(
            descriptor_pool.Default().FindMessageTypeByName(message.TypeName())
        ).FromString(message.value)
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if _is_map(field):
            values = value.values() if field.message_type.fields_by_name["value"].message_type is not None else ()
        else:
            values = value if field.is_repeated else (value,)
        for each in values:
            require_allowed(each, any_types)
