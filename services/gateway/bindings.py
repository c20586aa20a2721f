"""One HTTP binding of an RPC: what `google.api.http` says of it, resolved against its messages when the process starts.

A binding that can't be served as it is written stops the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from google.api import annotations_pb2
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.descriptor import Descriptor, FieldDescriptor, ServiceDescriptor

from services._mesh.descriptors import MethodRule, method_rules
from services.gateway import lifecycle, templates
from services.gateway.lifecycle import Notices
from services.gateway.shapes import ANY
from services.gateway.templates import RouteError, Template

_METHODS = ("get", "put", "post", "delete", "patch")
_BODY = HttpBody.DESCRIPTOR.full_name
EVERYTHING = "*"


@dataclass(frozen=True)
class Route:
    """One binding. `body` is "*", a field, or empty; `response_body` a field of the response, or empty: what the answer
    consists of. `any_types` are the messages that a google.protobuf.Any in either may hold;
    `notices` are headers of every answer.
    """

    service: str
    rule: MethodRule
    http_method: str
    pattern: Template
    body: str = ""
    response_body: str = ""
    any_types: frozenset[str] = frozenset()
    notices: Notices = ()

    @property
    def template(self) -> str:
        """The template as the proto has it."""
        return self.pattern.text

    @cached_property
    def name(self) -> str:
        """What measurements call it."""
        return f"{self.http_method} {self.template}"

    @property
    def variables(self) -> tuple[str, ...]:
        """The paths of the fields that the path says."""
        return tuple(each.path for each in self.pattern.variables)

    @cached_property
    def texts(self) -> Mapping[str, frozenset[str]]:
        """The variables that are plain texts of the request itself, each with both spellings that a body may have."""
        fields = self.rule.descriptor.input_type.fields_by_name
        found = [fields[name] for name in self.variables if name in fields]
        return {
            field.name: frozenset({field.name, field.json_name})
            for field in found
            if field.type == FieldDescriptor.TYPE_STRING and field.containing_oneof is None
        }

    def values(self, segments: Sequence[str]) -> dict[str, str]:
        """The decoded variables of a path that fits. Raises UnicodeDecodeError."""
        return {each.path: each.value(segments) for each in self.pattern.variables}


def bindings(name: str, service: ServiceDescriptor, any_types: frozenset[str] = frozenset()) -> Iterator[Route]:
    """The bindings of a service's RPCs. Raises RouteError."""
    for rule in method_rules(service):
        options = rule.descriptor.GetOptions()
        if not options.HasExtension(annotations_pb2.http):
            continue
        binding = options.Extensions[annotations_pb2.http]
        for each in (binding, *binding.additional_bindings):
            try:
                yield replace(_route(name, rule, each), any_types=any_types)
            except RouteError as error:
                raise RouteError(f"{rule.name}: {error}") from None
        held = [each for each in (rule.descriptor.input_type, rule.descriptor.output_type) if _may_hold(each, ANY)]
        if held and not any_types:
            raise RouteError(f"{rule.name}: {held[0].name} may hold a message of any type, and none is allowed")


def _may_hold(root: Descriptor, name: str) -> bool:
    """Whether a message of that type can stand in it, at any depth, and be written as JSON: HttpBody isn't."""
    seen, waiting = {_BODY}, [root]
    while waiting:
        each = waiting.pop()
        if each.full_name == name:
            return True
        if each.full_name not in seen:
            seen.add(each.full_name)
            waiting += [field.message_type for field in each.fields if field.message_type is not None]
    return False


def _route(name: str, rule: MethodRule, binding: Any) -> Route:
    method = binding.WhichOneof("pattern")
    if method not in _METHODS:
        raise RouteError(f"only {', '.join(_METHODS)} are served")
    if rule.request_streaming:
        raise RouteError("streams requests, which HTTP has no form for here")
    template = templates.parse(getattr(binding, method))
    taken, answered = rule.descriptor.input_type, rule.descriptor.output_type
    for variable in template.variables:
        _require_scalar(taken, variable.path, template.text)
    _require_body(taken, binding.body, method)
    _require_answer(answered, binding.response_body, streams=rule.response_streaming)
    return Route(
        name,
        rule,
        method.upper(),
        template,
        binding.body,
        binding.response_body,
        notices=lifecycle.notices(rule.descriptor),
    )


def _require_scalar(descriptor: Descriptor, path: str, template: str) -> None:
    """A variable is one value; of what holds several, or is a message, a path has no form."""
    *parents, last = path.split(".")
    for parent in parents:
        field = descriptor.fields_by_name.get(parent)
        if field is None or field.message_type is None or field.is_repeated:
            raise RouteError(f"{template} binds {path}, which the request doesn't have")
        descriptor = field.message_type
    field = descriptor.fields_by_name.get(last)
    if field is None or field.message_type is not None or field.is_repeated:
        raise RouteError(f"{template} binds {path}, which isn't one plain value of the request")


def _require_body(descriptor: Descriptor, body: str, method: str) -> None:
    if not body:
        return
    if method == "get":
        raise RouteError("takes a body with GET, which means nothing there")
    field = descriptor.fields_by_name.get(body)
    if body != EVERYTHING and field is None:
        raise RouteError(f"takes the body as {body}, which the request doesn't have")
    if _BODY in (descriptor.full_name, _type(field)):
        raise RouteError("takes bodies as they come (google.api.HttpBody): hand it HTTP by `forward` instead")


def _require_answer(descriptor: Descriptor, name: str, *, streams: bool) -> None:
    field = descriptor.fields_by_name.get(name)
    if name and field is None:
        raise RouteError(f"answers {name}, which the response doesn't have")
    if streams and _BODY in (descriptor.full_name, _type(field)):
        raise RouteError("streams google.api.HttpBody, which is no line of JSON")


def _type(field: FieldDescriptor | None) -> str:
    return field.message_type.full_name if field is not None and field.message_type is not None else ""
