"""Between HTTP and messages: path, query and JSON body into a request, a response into JSON. Strict, and pure.

An unknown field or parameter is refused by name: a typing error that is silently dropped would change what a call
means.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services._mesh.errors import FieldViolation, Invalid, Reason, invalid_field
from services.gateway import filling, json_text, writing
from services.gateway.bindings import EVERYTHING, Route
from services.gateway.shapes import Shapes, find_field, has_text, printable, require_allowed, unknown, wrapped

_MAX_PARAMETERS = 100
_ENUM_NUMBER = re.compile("-?[0-9]{1,10}")
_NOT_ENCODED = re.compile(b"%(?![0-9A-Fa-f]{2})")


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """The parameters of a query, decoded strictly. Raises Invalid where there are too many, or they aren't UTF-8."""
    if not raw:
        return []
    if raw.count(b"&") >= _MAX_PARAMETERS:
        raise Invalid(
            Reason.ERROR_REASON_TOO_LARGE,
            f"The query has more than {_MAX_PARAMETERS} parameters.",
            {"limit": str(_MAX_PARAMETERS)},
            [FieldViolation("(query)", f"must have at most {_MAX_PARAMETERS} parameters")],
        )
    try:
        if _NOT_ENCODED.search(raw):
            raise invalid_field("(query)", "must be percent-encoded: % is followed by two hexadecimal digits.")
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise invalid_field("(query)", "must be percent-encoded UTF-8.") from error


def build_request(
    route: Route, variables: Mapping[str, str], query: Sequence[tuple[str, str]], body: bytes, max_depth: int
) -> Message:
    """The request message of a call. Raises Invalid that names the field, the rule and the way out."""
    descriptor = route.rule.descriptor.input_type
    document = _document(route, body, max_depth)
    shapes = Shapes(route.any_types)
    shapes.check_object(document, descriptor)
    placing = _Placing(document, descriptor, shapes, max_depth)
    for name, value in variables.items():
        if name in route.texts and not document.keys() & route.texts[name]:
            document[name] = value  # There is nothing about it that could be wrong.
        else:
            placing.put(name, [value], "the path")
    _take_query(placing, route, variables, query)
    request = route.rule.request()
    try:
        filling.fill(request, document)
    except (ValueError, TypeError, json_format.ParseError) as error:
        raise invalid_field("(request)", f"doesn't fit {descriptor.name}.") from error
    return request


def _document(route: Route, body: bytes, max_depth: int) -> dict[str, Any]:
    """What the body says of the request."""
    if not body:
        return {}
    if not route.body:
        raise unknown("(body)", f"{route.http_method} {route.template} takes no body")
    content = json_text.read(body, max_depth)
    document = content if route.body == EVERYTHING else {route.body: content}
    if not isinstance(document, dict):
        raise Invalid(Reason.ERROR_REASON_BODY_MALFORMED, "The body must be a JSON object.", {"position": "0"})
    return document


def _take_query(
    placing: _Placing, route: Route, variables: Mapping[str, str], query: Sequence[tuple[str, str]]
) -> None:
    if not query:
        return
    grouped: dict[str, list[str]] = {}
    for name, value in query:
        grouped.setdefault(name, []).append(value)
    in_body = find_field(route.rule.descriptor.input_type, route.body)
    for name, values in grouped.items():
        first = find_field(route.rule.descriptor.input_type, name.partition(".")[0])
        if route.body == EVERYTHING or name in variables or (first is not None and first is in_body):
            raise unknown(name, "this call takes it in its body or path, not as a parameter")
        placing.put(name, values, "a parameter")


class _Placing:
    """Puts texts into a document at their fields' paths, in the form that JSON has for the field's type."""

    def __init__(self, document: dict[str, Any], descriptor: Descriptor, shapes: Shapes, max_depth: int) -> None:
        self._document, self._descriptor = document, descriptor
        self._shapes, self._max_depth = shapes, max_depth

    def put(self, path: str, values: Sequence[str], where: str) -> None:
        """Raises Invalid where there is no such field, or it is given already, or can't hold the text."""
        document, descriptor, field = self._at(path)
        if field.name in document or field.json_name in document:
            raise unknown(path, f"it is given in {where} already")
        if len(values) > 1 and not field.is_repeated:
            raise invalid_field(printable(path), "must be given once.")
        converted = [_convert(field, value) for value in values]
        given = converted if field.is_repeated else converted[0]
        document[field.name] = self._shapes.check_field(field, given, printable(path))
        self._shapes.check_choices(document, descriptor, printable(path.rpartition(".")[0]))

    def _at(self, path: str) -> tuple[dict[str, Any], Descriptor, FieldDescriptor]:
        """The object that the field is of, made where there is none, and the field."""
        *parents, last = path.split(".")
        if len(parents) >= self._max_depth:
            raise unknown(path, f"it names more than {self._max_depth} levels")
        document, descriptor = self._document, self._descriptor
        for parent in parents:
            field = find_field(descriptor, parent)
            if field is None or field.message_type is None or field.is_repeated or has_text(field):
                raise unknown(path, "there is no such parameter")
            key = field.json_name if field.json_name in document else field.name
            if document.get(key) is None:
                document[key] = {}
            document, descriptor = document[key], field.message_type
        field = find_field(descriptor, last)
        if field is None or (field.message_type is not None and not has_text(field)):
            raise unknown(path, "there is no such parameter")
        return document, descriptor, field


def _convert(field: FieldDescriptor, value: str) -> Any:
    """Text as JSON has it for the field's type, where that isn't text; what doesn't fit stays for the check."""
    field = wrapped(field) or field
    if field.type == FieldDescriptor.TYPE_BOOL and value in ("true", "false"):
        return value == "true"
    if field.type == FieldDescriptor.TYPE_ENUM and _ENUM_NUMBER.fullmatch(value):
        return int(value)
    return value


def render(route: Route, response: Message) -> bytes:
    """A response as proto3 JSON, with fields at their defaults; of it the one field that the route answers with.

    Raises ValueError where it holds a message in a google.protobuf.Any that isn't allowed there.
    """
    if route.any_types:
        require_allowed(response, route.any_types)
    if not route.response_body:
        return writing.text(writing.document(response))
    field = route.rule.descriptor.output_type.fields_by_name[route.response_body]
    return writing.text(writing.of_field(field, response))
