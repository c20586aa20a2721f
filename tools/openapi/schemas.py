"""JSON Schemas of messages as proto3 JSON has them, with the rules of buf.validate that a schema can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

Schema = dict[str, Any]
_WELL_KNOWN = "google.protobuf."
_TEXT: Schema = {"type": "string"}
_INT32: Schema = {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
_UINT32: Schema = {"type": "integer", "format": "uint32", "minimum": 0, "maximum": 2**32 - 1}
_INT64: Schema = {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"}
_UINT64: Schema = {"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"}
_SCALARS: Mapping[int, Schema] = {
    FieldDescriptor.TYPE_STRING: _TEXT,
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_UINT64: _UINT64,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
}
_KNOWN: Mapping[str, Schema] = {
    "Timestamp": {"type": "string", "format": "date-time"},
    "Duration": {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"},
    "FieldMask": {"type": "string"},
    "Struct": {"type": "object"},
    "ListValue": {"type": "array"},
    "Value": {},
    "Empty": {"type": "object", "maxProperties": 0},
}
_COMPONENTS = "#/components/schemas/"
_LENGTHS = (("min_len", "minLength"), ("max_len", "maxLength"))
_BOUNDS = (("gte", "minimum"), ("lte", "maximum"), ("gt", "exclusiveMinimum"), ("lt", "exclusiveMaximum"))


class Schemas:
    """The schemas that were asked for, and all that they refer to."""

    def __init__(self, comments: Mapping[str, str]) -> None:
        self._comments = comments
        self.components: dict[str, Schema] = {}
        self._messages: dict[str, Descriptor] = {}

    def reference(self, descriptor: Descriptor | EnumDescriptor) -> Schema:
        """A reference to the schema of a message or enum, which is among the components then."""
        name = descriptor.full_name.removeprefix("recoup.")
        if name not in self.components:
            self.components[name] = {}  # A message may hold messages of its own kind.
            if isinstance(descriptor, Descriptor):
                self._messages[name] = descriptor
            made = self._enum(descriptor) if isinstance(descriptor, EnumDescriptor) else self.object(descriptor)
            self.components[name] = made
        return {"$ref": f"{_COMPONENTS}{name}"}

    def object(self, descriptor: Descriptor, without: frozenset[str] = frozenset()) -> Schema:
        """The schema of a message, but for some of its fields."""
        fields = [field for field in descriptor.fields if field.name not in without]
        made: Schema = {"type": "object", **self._described(descriptor.full_name)}
        if fields:
            made["properties"] = {field.json_name: self.field(field) for field in fields}
        required = [field.json_name for field in fields if is_required(field)]
        if required:
            made["required"] = required
        return {**made, "additionalProperties": False}

    def require_what_answers_have(self, asked: Schema) -> None:
        """Say of messages that are only answered, and nowhere in the requests of these paths, that no field is left out
        but one that can be absent.
        """
        in_requests = self._within(asked)
        for name, descriptor in self._messages.items():
            always = [field.json_name for field in descriptor.fields if not field.has_presence]
            if always and name not in in_requests:
                self.components[name]["required"] = always

    def _within(self, schema: Any) -> set[str]:
        """The components that a schema refers to, and those that they refer to."""
        found: set[str] = set()
        waiting = [schema]
        while waiting:
            match waiting.pop():
                case {"$ref": str(reference)} if reference.startswith(_COMPONENTS):
                    name = reference.removeprefix(_COMPONENTS)
                    waiting += [] if name in found else [self.components[name]]
                    found.add(name)
                case dict(members):
                    waiting += members.values()
                case list(items):
                    waiting += items
        return found

    def field(self, field: FieldDescriptor) -> Schema:
        """The schema of a field, with what its comment and its rules say."""
        entry = field.message_type
        rules = _rules(field)
        if entry is not None and entry.GetOptions().map_entry:
            made: Schema = {"type": "object", "additionalProperties": self._single(entry.fields_by_name["value"])}
        elif field.is_repeated:
            items = {**self._single(field), **_single_rules(field, rules.repeated.items)}
            made = {"type": "array", "items": items, **_list_rules(rules.repeated)}
        else:
            made = {**self._single(field), **_single_rules(field, rules)}
        return {**made, **self._described(field.full_name)}

    def _single(self, field: FieldDescriptor) -> Schema:
        if field.enum_type is not None:
            return self.reference(field.enum_type)
        if field.message_type is None:
            return dict(_SCALARS[field.type])
        if not field.message_type.full_name.startswith(_WELL_KNOWN):
            return self.reference(field.message_type)
        name = field.message_type.full_name.removeprefix(_WELL_KNOWN)
        return dict(_KNOWN[name]) if name in _KNOWN else self._single(field.message_type.fields_by_name["value"])

    def _enum(self, enum: EnumDescriptor) -> Schema:
        """Zero is "not set": it is answered where nothing is, and nobody needs to say it."""
        lines = [
            f"- `{value.name}`: {self._comments[f'{enum.full_name}.{value.name}']}"
            for value in enum.values
            if f"{enum.full_name}.{value.name}" in self._comments
        ]
        text = "\n\n".join(filter(None, (self._comments.get(enum.full_name, ""), "\n".join(lines))))
        return {"type": "string", "enum": [value.name for value in enum.values], "description": text}

    def _described(self, name: str) -> Schema:
        return {"description": self._comments[name]} if name in self._comments else {}


def _rules(field: FieldDescriptor) -> Any:
    return field.GetOptions().Extensions[validate_pb2.field]


def is_required(field: FieldDescriptor) -> bool:
    """Whether a request without the field is refused: by name, or because its empty value breaks a rule."""
    rules = _rules(field)
    if rules.required:
        return True
    if rules.ignore or field.has_presence:
        return False
    return bool(rules.string.min_len or rules.string.uuid or rules.repeated.min_items or rules.enum.not_in)


def _single_rules(field: FieldDescriptor, rules: Any) -> Schema:
    kind = rules.WhichOneof("type")
    if kind is None or kind in ("repeated", "map", "any", "duration", "timestamp", "field_mask", "enum", "bool"):
        return {}
    said = getattr(rules, kind)
    if kind == "string":
        made: Schema = {name: getattr(said, rule) for rule, name in _LENGTHS if said.HasField(rule)}
        if said.HasField("pattern"):
            made["pattern"] = said.pattern
        if said.HasField("len"):
            made |= {"minLength": said.len, "maxLength": said.len}
        if said.uuid:
            made["format"] = "uuid"
        if getattr(said, "in"):
            made["enum"] = list(getattr(said, "in"))
        # An empty text may stay away, and then says nothing.
        return {"anyOf": [{**_TEXT, **made}, {"const": ""}]} if made and rules.ignore else made
    if kind == "bytes" or field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64):
        return {}
    return {name: getattr(said, rule) for rule, name in _BOUNDS if said.HasField(rule)}


def _list_rules(said: Any) -> Schema:
    made: Schema = {}
    if said.min_items:
        made["minItems"] = said.min_items
    if said.HasField("max_items"):
        made["maxItems"] = said.max_items
    if said.unique:
        made["uniqueItems"] = True
    return made
