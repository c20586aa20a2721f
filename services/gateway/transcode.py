"""Between HTTP and messages: path, query and JSON body into a request, a response into JSON. Strict, and pure.

An unknown field or parameter is refused by name: a typing error that is silently dropped would change what a call
means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from services._mesh.errors import FieldViolation, Invalid, Reason
from services.gateway.routes import Route

_WELL_KNOWN = "google.protobuf."
_MAX_PARAMETERS = 100


def build_request(
    route: Route, variables: Mapping[str, str], query: Sequence[tuple[str, str]], body: bytes, max_depth: int
) -> Message:
    """The request message of a call. Raises Invalid that names the field, the rule and the way out."""
    content = _read_json(body, max_depth) if body else {}
    if body and not route.body:
        raise _unknown("(body)", f"{route.http_method} {route.template} takes no body")
    descriptor = route.rule.descriptor.input_type
    document: dict[str, Any] = content if route.body in ("", "*") else {route.body: content}
    if not isinstance(document, dict):
        raise Invalid(Reason.ERROR_REASON_BODY_MALFORMED, "The body must be a JSON object.", {"position": "0"})
    _refuse_unknown(document, descriptor, "")
    for name, value in variables.items():
        _place(document, descriptor, name, [value], "the path")
    _take_query(document, descriptor, route, variables, query)
    request = route.rule.request()
    try:
        json_format.ParseDict(document, request, max_recursion_depth=max_depth)
    except json_format.ParseError as error:
        raise _malformed(error) from error
    return request


def _take_query(
    document: dict[str, Any],
    descriptor: Descriptor,
    route: Route,
    variables: Mapping[str, str],
    query: Sequence[tuple[str, str]],
) -> None:
    if len(query) > _MAX_PARAMETERS:
        raise Invalid(Reason.ERROR_REASON_TOO_LARGE, "Too many parameters.", {"limit": str(_MAX_PARAMETERS)})
    grouped: dict[str, list[str]] = {}
    for name, value in query:
        grouped.setdefault(name, []).append(value)
    for name, values in grouped.items():
        if route.body == "*" or name in variables:
            raise _unknown(name, "this call takes it in its body or path, not as a parameter")
        _place(document, descriptor, name, values, "a parameter")


def _place(document: dict[str, Any], descriptor: Descriptor, path: str, values: Sequence[str], where: str) -> None:
    """Put text into the document at a field's path, in the form that JSON has for the field's type."""
    *parents, last = path.split(".")
    for parent in parents:
        field = _field(descriptor, parent)
        if field is None or field.message_type is None or field.is_repeated:
            raise _unknown(path, "there is no such parameter")
        document, descriptor = document.setdefault(_key(document, field), {}), field.message_type
    field = _field(descriptor, last)
    if field is None or (field.message_type and not field.message_type.full_name.startswith(_WELL_KNOWN)):
        raise _unknown(path, "there is no such parameter")
    if field.name in document or field.json_name in document:
        raise _unknown(path, f"it is given in {where} already")
    if len(values) > 1 and not field.is_repeated:
        raise Invalid(
            Reason.ERROR_REASON_FIELD_INVALID,
            f"{path}: give it once.",
            field_violations=[FieldViolation(path, "give it once")],
        )
    converted = [_convert(field, value, path) for value in values]
    document[field.name] = converted if field.is_repeated else converted[0]


def _convert(field: FieldDescriptor, value: str, path: str) -> Any:
    if field.type == FieldDescriptor.TYPE_BOOL:
        if value not in ("true", "false"):
            raise Invalid(
                Reason.ERROR_REASON_FIELD_INVALID,
                f"{path}: must be true or false.",
                field_violations=[FieldViolation(path, "must be true or false")],
            )
        return value == "true"
    if field.type == FieldDescriptor.TYPE_ENUM and value.lstrip("-").isdigit():
        return int(value)
    return value


def _refuse_unknown(document: Mapping[str, Any], descriptor: Descriptor, prefix: str) -> None:
    """Walk the body along the descriptor, and name the first field that isn't there."""
    for key, value in document.items():
        field = _field(descriptor, key)
        if field is None:
            raise _unknown(prefix + key, "there is no such field")
        inner = field.message_type
        if inner is None or inner.full_name.startswith(_WELL_KNOWN) or inner.GetOptions().map_entry:
            continue
        for place, item in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(item, dict):
                at = f"[{place}]" if isinstance(value, list) else ""
                _refuse_unknown(item, inner, f"{prefix}{key}{at}.")


def _field(descriptor: Descriptor, name: str) -> FieldDescriptor | None:
    found: FieldDescriptor | None = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
    return found


def _key(document: Mapping[str, Any], field: FieldDescriptor) -> str:
    return field.json_name if field.json_name in document else field.name


def _read_json(body: bytes, max_depth: int) -> Any:
    try:
        text = body.decode("utf-8")
        _check_depth(text, max_depth)
        return json.loads(text, object_pairs_hook=_no_twins)
    except json.JSONDecodeError as error:
        raise Invalid(
            Reason.ERROR_REASON_BODY_MALFORMED,
            f"The body isn't JSON: {error.msg} at character {error.pos}.",
            {"position": str(error.pos)},
        ) from error
    except UnicodeDecodeError as error:
        raise Invalid(
            Reason.ERROR_REASON_BODY_MALFORMED, "The body isn't UTF-8.", {"position": str(error.start)}
        ) from error


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
            raise _unknown(key, "it is given twice")
        found[key] = value
    return found


def _unknown(field: str, why: str) -> Invalid:
    return Invalid(
        Reason.ERROR_REASON_FIELD_UNKNOWN,
        f"{field}: {why}.",
        {"field": field[:100]},
        [FieldViolation(field[:100], why)],
    )


def _malformed(error: json_format.ParseError) -> Invalid:
    """json_format's own words, which name the field; never the value's content beyond what the caller sent."""
    return Invalid(Reason.ERROR_REASON_FIELD_INVALID, f"{str(error)[:300]}.".replace("..", "."))


def render(response: Message) -> bytes:
    """A response as proto3 JSON, with fields at their defaults."""
    return json_format.MessageToJson(
        response, always_print_fields_with_no_presence=True, indent=None, ensure_ascii=False
    ).encode()
