"""Fills messages with JSON whose shape was checked: how each field is set is worked out once for each type. Pure.

It decides nothing: what may be given is said by `shapes`. protobuf's own parser checks it all again, in Python.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services.gateway.shapes import WELL_KNOWN, takes_null

# Gives a message the JSON value of one field.
_Set = Callable[[Any, Any], None]
_Read = Callable[[Any], Any]

_FLOATS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)
_AS_IT_IS = (FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_BOOL)
_KNOWN: dict[Descriptor, _Fields] = {}


def fill(message: Message, document: Mapping[str, Any]) -> None:
    """Raises ValueError or TypeError for what wasn't checked."""
    _filler(message.DESCRIPTOR)(message, document)  # type: ignore[arg-type]


def _filler(descriptor: Descriptor) -> _Set:
    """How a message is given what JSON has for it."""
    if descriptor.full_name.startswith(WELL_KNOWN):
        return _well_known
    return _KNOWN.get(descriptor) or _Fields(descriptor)


class _Fields:
    """Fills messages of one type; it is known before it is whole, since a type may contain itself."""

    def __init__(self, descriptor: Descriptor) -> None:
        _KNOWN[descriptor] = self
        made = [(field, _setter(field)) for field in descriptor.fields]
        self._setters = {name: made for field, made in made for name in (field.name, field.json_name)}
        nullable = {name for field, _ in made if takes_null(field) for name in (field.name, field.json_name)}
        self._nullable = frozenset(nullable)

    def __call__(self, message: Any, document: Mapping[str, Any]) -> None:
        for name, value in document.items():
            if value is not None or name in self._nullable:  # JSON's null is a field that wasn't given.
                self._setters[name](message, value)


def _well_known(message: Message, value: Any) -> None:
    json_format.ParseDict(value, message)


def _setter(field: FieldDescriptor) -> _Set:
    name, inner = field.name, field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return _map_setter(name, inner)
    if inner is not None:
        return _message_setter(field, inner)
    read = _reader(field)
    if field.is_repeated:
        return lambda message, values: getattr(message, name).extend([read(each) for each in values])
    return lambda message, value: setattr(message, name, read(value))


def _message_setter(field: FieldDescriptor, inner: Descriptor) -> _Set:
    name, filled = field.name, _filler(inner)

    def fill_one(message: Any, value: Any) -> None:
        held = getattr(message, name)
        held.SetInParent()  # An empty one is there, too.
        filled(held, value)

    def fill_all(message: Any, values: Any) -> None:
        held = getattr(message, name)
        for each in values:
            filled(held.add(), each)

    return fill_all if field.is_repeated else fill_one


def _map_setter(name: str, entry: Descriptor) -> _Set:
    key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
    read_key = _truth if key.cpp_type == FieldDescriptor.CPPTYPE_BOOL else _reader(key)

    def fill_values(message: Any, given: Mapping[str, Any]) -> None:
        held = getattr(message, name)
        for each, content in given.items():
            held[read_key(each)] = read(content)

    def fill_messages(message: Any, given: Mapping[str, Any]) -> None:
        held = getattr(message, name)
        for each, content in given.items():
            filled(held[read_key(each)], content)

    if value.message_type is None:
        read = _reader(value)
        return fill_values
    filled = _filler(value.message_type)
    return fill_messages


def _reader(field: FieldDescriptor) -> _Read:
    """A single value of a field that is no message. Numbers may come as text, and whole ones with a point."""
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _from_base64
    if field.cpp_type in _AS_IT_IS:
        return _same
    if field.enum_type is not None:
        numbers = {name: value.number for name, value in field.enum_type.values_by_name.items()}
        return lambda value: numbers[value] if isinstance(value, str) else int(value or 0)
    return float if field.cpp_type in _FLOATS else int


def _same(value: Any) -> Any:
    return value


def _truth(text: str) -> bool:
    return text == "true"


def _from_base64(text: str) -> bytes:
    """Of either alphabet, with or without its padding."""
    return base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
