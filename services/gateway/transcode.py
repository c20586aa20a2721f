"""Between HTTP and messages: path, query and JSON body into a request, a response into JSON. Strict, and pure.

An unknown field or parameter is refused by name: a typing error that is silently dropped would change what a call
means.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services._mesh.errors import FieldViolation, Invalid, Reason, invalid_field
from services.gateway.routes import Route
from services.gateway.shapes import WELL_KNOWN, check_field, check_object, find_field, printable, unknown

_MAX_PARAMETERS = 100
# Python reads no more than 4300 digits, and takes a time that grows with their square; 64 bits have 20.
_MAX_DIGITS = 40
_ENUM_NUMBER = re.compile("-?[0-9]{1,10}")


def parse_query(raw: bytes) -> list[tuple[str, str]]:
    """The parameters of a query, decoded strictly. Raises Invalid where there are too many, or they aren't UTF-8."""
    if raw.count(b"&") >= _MAX_PARAMETERS:
        raise Invalid(
            Reason.ERROR_REASON_TOO_LARGE,
            f"The query has more than {_MAX_PARAMETERS} parameters.",
            {"limit": str(_MAX_PARAMETERS)},
            [FieldViolation("(query)", f"must have at most {_MAX_PARAMETERS} parameters")],
        )
    try:
        return parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise invalid_field("(query)", "must be percent-encoded UTF-8.") from error


def build_request(
    route: Route, variables: Mapping[str, str], query: Sequence[tuple[str, str]], body: bytes, max_depth: int
) -> Message:
    """The request message of a call. Raises Invalid that names the field, the rule and the way out."""
    content = _read_json(body, max_depth) if body else {}
    if body and not route.body:
        raise unknown("(body)", f"{route.http_method} {route.template} takes no body")
    descriptor = route.rule.descriptor.input_type
    document: dict[str, Any] = content if route.body in ("", "*") else {route.body: content}
    if not isinstance(document, dict):
        raise Invalid(Reason.ERROR_REASON_BODY_MALFORMED, "The body must be a JSON object.", {"position": "0"})
    check_object(document, descriptor)
    for name, value in variables.items():
        _place(document, descriptor, name, [value], "the path")
    _take_query(document, descriptor, route, variables, query)
    request = route.rule.request()
    try:
        json_format.ParseDict(document, request, max_recursion_depth=max_depth)
    except json_format.ParseError as error:
        raise invalid_field("(request)", f"doesn't fit {descriptor.name}.") from error
    return request


def _take_query(
    document: dict[str, Any],
    descriptor: Descriptor,
    route: Route,
    variables: Mapping[str, str],
    query: Sequence[tuple[str, str]],
) -> None:
    grouped: dict[str, list[str]] = {}
    for name, value in query:
        grouped.setdefault(name, []).append(value)
    for name, values in grouped.items():
        if route.body == "*" or name in variables:
            raise unknown(name, "this call takes it in its body or path, not as a parameter")
        _place(document, descriptor, name, values, "a parameter")


def _place(document: dict[str, Any], descriptor: Descriptor, path: str, values: Sequence[str], where: str) -> None:
    """Put text into the document at a field's path, in the form that JSON has for the field's type."""
    *parents, last = path.split(".")
    for parent in parents:
        field = find_field(descriptor, parent)
        if field is None or field.message_type is None or field.is_repeated or _is_well_known(field):
            raise unknown(path, "there is no such parameter")
        key = _key(document, field)
        if document.get(key) is None:
            document[key] = {}
        document, descriptor = document[key], field.message_type
    field = find_field(descriptor, last)
    if field is None or (field.message_type and not _is_well_known(field)):
        raise unknown(path, "there is no such parameter")
    if field.name in document or field.json_name in document:
        raise unknown(path, f"it is given in {where} already")
    if len(values) > 1 and not field.is_repeated:
        raise invalid_field(printable(path), "must be given once.")
    converted = [_convert(field, value) for value in values]
    document[field.name] = converted if field.is_repeated else converted[0]
    check_field(field, document[field.name], printable(path))


def _convert(field: FieldDescriptor, value: str) -> Any:
    """Text as JSON has it for the field's type, where that isn't text; what doesn't fit stays for the check."""
    if field.type == FieldDescriptor.TYPE_BOOL and value in ("true", "false"):
        return value == "true"
    if field.type == FieldDescriptor.TYPE_ENUM and _ENUM_NUMBER.fullmatch(value):
        return int(value)
    return value


def _is_well_known(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name.startswith(WELL_KNOWN)


def _key(document: Mapping[str, Any], field: FieldDescriptor) -> str:
    return field.json_name if field.json_name in document else field.name


def _read_json(body: bytes, max_depth: int) -> Any:
    try:
        text = body.decode("utf-8")
        _check_depth(text, max_depth)
        return json.loads(text, object_pairs_hook=_no_twins, parse_int=_number, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise Invalid(
            Reason.ERROR_REASON_BODY_MALFORMED,
            f"The body isn't JSON: it can't be read on at character {error.pos}.",
            {"position": str(error.pos)},
        ) from error
    except UnicodeDecodeError as error:
        raise Invalid(
            Reason.ERROR_REASON_BODY_MALFORMED, "The body isn't UTF-8.", {"position": str(error.start)}
        ) from error


def _number(digits: str) -> int | float:
    """An integer; one that no field could hold as a float, which the check of its field refuses by name."""
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _no_constant(name: str) -> Any:
    raise Invalid(Reason.ERROR_REASON_BODY_MALFORMED, f"The body isn't JSON: it has no {name}.", {"position": "0"})


def _check_depth(text: str, max_depth: int) -> None:
    """Refuse nesting before a parser recurses into it; brackets in strings don't count."""
    depth = 0
    in_string = escaped = False
    for place, character in enumerate(text):
        if in_string:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                in_string = False
        elif character == '"':
            in_string = True
        elif character in "{[":
            depth += 1
            if depth > max_depth:
                raise Invalid(
                    Reason.ERROR_REASON_BODY_MALFORMED,
                    f"The body is nested deeper than {max_depth} levels.",
                    {"position": str(place)},
                )
        elif character in "}]":
            depth -= 1


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise unknown(key, "it is given twice")
        found[key] = value
    return found


def render(response: Message) -> bytes:
    """A response as proto3 JSON, with fields at their defaults."""
    return json_format.MessageToJson(
        response, always_print_fields_with_no_presence=True, indent=None, ensure_ascii=False
    ).encode()
