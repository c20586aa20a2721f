"""Checks requests against the limits in their protos (buf.validate), and names the fields that break them.

One limit holds for every string and stands in no proto: no NUL character, which PostgreSQL's text can't hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services._mesh.errors import FieldViolation, Invalid, Reason, invalid_field

if TYPE_CHECKING:
    from protovalidate import Validator, Violation

_MAX_VIOLATIONS = 10
_NUL = "\0"


class RequestValidator:
    """Validates messages natively; the rules of a type are compiled when it is first prepared."""

    def __init__(self) -> None:
        import protovalidate

        self._validator: Validator = protovalidate.Validator()
        self._strings: dict[str, _Strings] = {}

    def prepare(self, request: type[Message]) -> None:
        """Compiles the rules of a type, so that a broken rule stops the process instead of a call."""
        self._strings_of(request.DESCRIPTOR)
        self._validator.collect_violations(request())

    def check(self, request: Message) -> None:
        """Raises Invalid with FIELD_INVALID and the violations, by path."""
        field = self._strings_of(request.DESCRIPTOR).find_nul(request)
        if field:
            raise invalid_field(field, "must not contain a NUL character.")
        violations = self._validator.collect_violations(request)
        if violations:
            fields = [_field(each) for each in violations[:_MAX_VIOLATIONS]]
            first = fields[0]
            raise Invalid(
                Reason.ERROR_REASON_FIELD_INVALID, f"{first.field}: {first.description}", field_violations=fields
            )

    def _strings_of(self, descriptor: Any) -> _Strings:
        return self._strings.get(descriptor.full_name) or _Strings(descriptor, self._strings)


class _Strings:
    """Where the strings of one type are, worked out once; types that contain each other share `known`."""

    def __init__(self, descriptor: Descriptor, known: dict[str, _Strings]) -> None:
        known[descriptor.full_name], self._built = self, False
        fields = [field for field in descriptor.fields if not _is_map(field)]
        self._single = [field.name for field in fields if _is_text(field) and not field.is_repeated]
        self._lists = [field.name for field in fields if _is_text(field) and field.is_repeated]
        nested = [(field, _within(field, known)) for field in fields if field.message_type is not None]
        self._messages = [(field.name, inner) for field, inner in nested if not field.is_repeated and inner.any]
        self._repeated = [(field.name, inner) for field, inner in nested if field.is_repeated and inner.any]
        self._maps = [_Map(field, known) for field in descriptor.fields if _is_map(field)]
        self._built = True

    @property
    def any(self) -> bool:
        """Whether there may be anything to look at; of a type that contains itself it isn't known while it is built."""
        return not self._built or bool(self._single or self._lists or self._messages or self._repeated or self._maps)

    def find_nul(self, message: Any) -> str:
        """The path of the first string that has a NUL, as "filter.regions[0]"; empty where none has."""
        for name in self._single:
            if _NUL in getattr(message, name):
                return name
        for name in self._lists:
            for place, text in enumerate(getattr(message, name)):
                if _NUL in text:
                    return f"{name}[{place}]"
        return self._find_within(message) if self._messages or self._repeated or self._maps else ""

    def _find_within(self, message: Any) -> str:
        for name, inner in self._messages:
            if message.HasField(name) and (path := inner.find_nul(getattr(message, name))):
                return f"{name}.{path}"
        for name, inner in self._repeated:
            for place, each in enumerate(getattr(message, name)):
                if path := inner.find_nul(each):
                    return f"{name}[{place}].{path}"
        return next((path for each in self._maps if (path := each.find_nul(message))), "")


class _Map:
    """A map's keys and values, of which either may be text and the values messages."""

    def __init__(self, field: FieldDescriptor, known: dict[str, _Strings]) -> None:
        assert field.message_type is not None
        key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        self._name, self._keys, self._values = field.name, _is_text(key), _is_text(value)
        self._inner = None if value.message_type is None else _within(value, known)

    def find_nul(self, message: Any) -> str:
        """The path of the first key or value that has a NUL; a key is shown with an escape for it."""
        entries = getattr(message, self._name)
        for key in entries:
            at = f"{self._name}[{key}]"
            if self._keys and _NUL in key:
                return at.replace(_NUL, "\\u0000")
            if self._values and _NUL in entries[key]:
                return at
            if self._inner is not None and (path := self._inner.find_nul(entries[key])):
                return f"{at}.{path}"
        return ""


def _within(field: FieldDescriptor, known: dict[str, _Strings]) -> _Strings:
    inner = field.message_type
    assert inner is not None
    return known.get(inner.full_name) or _Strings(inner, known)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _is_text(field: FieldDescriptor) -> bool:
    return bool(field.type == FieldDescriptor.TYPE_STRING)


def _field(violation: Violation) -> FieldViolation:
    """The violation with its path as people write it: "filter.regions[0]"."""
    path = ""
    field = violation.proto.field
    for element in field.elements if field is not None else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return FieldViolation(path, violation.proto.message)
