"""The routes, from `google.api.http` in the descriptors: decided when the process starts, refused when ambiguous.

Literals beat `*`, which beats `**`. A path is decoded once: single-segment variables wholly, multi-segment ones all
but `%2F`. Only verbs that a route registers are split off at the last colon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from google.api import annotations_pb2
from google.protobuf.descriptor import ServiceDescriptor

from services._mesh.descriptors import MethodRule, method_rules

_VERBS = ("get", "put", "post", "delete", "patch")
_VARIABLE = re.compile(r"\{([a-z_][a-z0-9_.]*)(?:=([^{}]+))?\}")


class RouteError(Exception):
    """A route that can't be served: its template is wrong, or another one shadows it."""


@dataclass(frozen=True)
class Route:
    """One HTTP binding of an RPC. `body` is "*", a field, or empty; `response_body` a field of the response, or empty:
    what the answer consists of.
    """

    service: str
    rule: MethodRule
    http_method: str
    template: str
    body: str
    pattern: re.Pattern[str]
    variables: tuple[str, ...]
    multi: frozenset[str]
    rank: tuple[int, ...]
    verb: str
    response_body: str = ""

    def match(self, path: str) -> dict[str, str] | None:
        """The decoded path variables, or None when the path isn't this route's."""
        found = self.pattern.fullmatch(path)
        if found is None:
            return None
        return {
            name: _decode(found.group(place), name in self.multi) for place, name in enumerate(self.variables, start=1)
        }


def _decode(raw: str, multi: bool) -> str:
    """Percent-decoding of one variable; a multi-segment one keeps its encoded slashes."""
    kept = re.sub("(?i)%2f", "%252F", raw) if multi else raw
    return unquote(kept, errors="strict")


class Router:
    """All routes, the most specific first."""

    def __init__(self, services: Iterable[tuple[str, ServiceDescriptor]]) -> None:
        found = [route for name, service in services for route in _routes(name, service)]
        self.routes = sorted(found, key=lambda route: route.rank)
        _refuse_ambiguity(self.routes)

    def find(self, http_method: str, path: str) -> tuple[Route, dict[str, str]] | list[str]:
        """The route and its variables; or the methods that the path knows, none where it knows no route."""
        allowed: list[str] = []
        for route in self.routes:
            variables = route.match(path)
            if variables is None:
                continue
            if route.http_method == http_method:
                return route, variables
            allowed.append(route.http_method)
        return sorted(set(allowed))


def _routes(name: str, service: ServiceDescriptor) -> Iterable[Route]:
    for rule in method_rules(service):
        options = rule.descriptor.GetOptions()
        if not options.HasExtension(annotations_pb2.http):
            continue
        binding = options.Extensions[annotations_pb2.http]
        for each in (binding, *binding.additional_bindings):
            yield _route(name, rule, each)


def _route(name: str, rule: MethodRule, binding: Any) -> Route:
    verb = binding.WhichOneof("pattern")
    if verb not in _VERBS:
        raise RouteError(f"{rule.name}: only {', '.join(_VERBS)} are served")
    template = getattr(binding, verb)
    pattern, variables, multi, rank, custom = compile_template(template)
    for variable in variables:
        if variable.split(".")[0] not in rule.descriptor.input_type.fields_by_name:
            raise RouteError(f"{rule.name}: {template} binds {variable}, which the request doesn't have")
    answered = rule.descriptor.output_type.fields_by_name.get(binding.response_body)
    if binding.response_body and (answered is None or answered.message_type is None or answered.is_repeated):
        raise RouteError(f"{rule.name}: {template} answers {binding.response_body}, which isn't one message")
    return Route(
        name, rule, verb.upper(), template, binding.body, pattern, variables, multi, rank, custom, binding.response_body
    )


def compile_template(
    template: str,
) -> tuple[re.Pattern[str], tuple[str, ...], frozenset[str], tuple[int, ...], str]:
    """A template as an expression over the raw path, its variables, the multi-segment ones, its rank and verb.

    Raises RouteError for a template that the grammar of google.api.http doesn't allow.
    """
    if not template.startswith("/"):
        raise RouteError(f"{template}: a template starts with /")
    head, _, last = template.rpartition("/")
    verb = ""
    if ":" in re.sub(r"\{[^{}]*\}", "", last):
        last, _, verb = last.rpartition(":")
        template = f"{head}/{last}"
    variables: list[str] = []
    multi: set[str] = set()
    expression, rank = [], []
    for part in re.sub(r"\{[^{}]*\}", lambda m: m.group().replace("/", "\x1f"), template[1:]).split("/"):
        piece, score = _segment(part.replace("\x1f", "/"), variables, multi)
        expression.append(piece)
        rank += score
    pattern = "/" + "/".join(expression) + (re.escape(f":{verb}") if verb else "")
    return re.compile(pattern), tuple(variables), frozenset(multi), (*rank, 0 if verb else 1), verb


_ONE = r"[^/:]+"
_MANY = r"[^/:]+(?:/[^/:]+)*"


def _segment(part: str, variables: list[str], multi: set[str]) -> tuple[str, list[int]]:
    """One segment as an expression, and its rank: 0 literal, 1 one segment, 2 many."""
    if part == "*":
        return _ONE, [1]
    if part == "**":
        return _MANY, [2]
    variable = _VARIABLE.fullmatch(part)
    if variable is None:
        if not part or "{" in part or "*" in part:
            raise RouteError(f"{part!r} isn't a segment")
        return re.escape(part), [0]
    name, inner = variable.group(1), variable.group(2) or "*"
    variables.append(name)
    pieces = [_segment(each, [], set()) for each in inner.split("/")]
    if len(pieces) > 1 or inner == "**":
        multi.add(name)
    return "(" + "/".join(piece for piece, _ in pieces) + ")", [score for _, scores in pieces for score in scores]


def _refuse_ambiguity(routes: Sequence[Route]) -> None:
    shapes: dict[tuple[str, str], Route] = {}
    for route in routes:
        shape = (route.http_method, re.sub(r"[()]", "", route.pattern.pattern))
        other = shapes.setdefault(shape, route)
        if other is not route:
            raise RouteError(f"{route.rule.name} and {other.rule.name} both serve {route.http_method} {route.template}")
