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
from services._mesh.forwards import ForwardRule, forward_faults, forward_rule

_VERBS = ("get", "put", "post", "delete", "patch")
_VARIABLE = re.compile(r"\{([a-z_][a-z0-9_.]*)(?:=([^{}]+))?\}")


# Paths that the edge answers itself.
FIXED_PATHS = ("/healthz", "/readyz", "/.well-known/security.txt")


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


@dataclass(frozen=True)
class Forwarded:
    """An RPC that is handed HTTP as it is, under the prefix and for the methods of `forward`."""

    service: str
    rule: MethodRule
    forward: ForwardRule

    def fits(self, path: str) -> bool:
        """Whether a path lies under the prefix."""
        return path == self.forward.prefix or path.startswith(f"{self.forward.prefix}/")


def _decode(raw: str, multi: bool) -> str:
    """Percent-decoding of one variable; a multi-segment one keeps its encoded slashes."""
    kept = re.sub("(?i)%2f", "%252F", raw) if multi else raw
    return unquote(kept, errors="strict")


class Router:
    """All routes, the most specific first."""

    def __init__(self, services: Iterable[tuple[str, ServiceDescriptor]]) -> None:
        services = list(services)
        found = [route for name, service in services for route in _routes(name, service)]
        self.routes = sorted(found, key=lambda route: route.rank)
        _refuse_ambiguity(self.routes)
        forwards = [each for name, service in services for each in _forwards(name, service)]
        self.forwards = sorted(forwards, key=lambda each: -len(each.forward.prefix))
        _refuse_conflicts(self.forwards, self.routes)

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

    def find_forward(self, http_method: str, path: str) -> Forwarded | list[str] | None:
        """What is handed a request as it is; the methods that such a path knows, or None for every other path."""
        under = self._under(path)
        for each in under:
            if http_method in each.forward.methods:
                return each
        return sorted({method for each in under for method in each.forward.methods}) or None

    def has_scim_errors(self, path: str) -> bool:
        """Whether errors at this path are written as SCIM has them."""
        return any(each.forward.scim_errors for each in self._under(path))

    def _under(self, path: str) -> list[Forwarded]:
        """What is handed the path: all with the longest prefix that fits."""
        fits = [each for each in self.forwards if each.fits(path)]
        return [each for each in fits if each.forward.prefix == fits[0].forward.prefix]


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


def _forwards(name: str, service: ServiceDescriptor) -> Iterable[Forwarded]:
    for rule in method_rules(service):
        for fault in forward_faults(rule.descriptor):
            raise RouteError(f"{rule.name} {fault}")
        forward = forward_rule(rule.descriptor)
        if forward is not None:
            yield Forwarded(name, rule, forward)


def _refuse_conflicts(forwards: Sequence[Forwarded], routes: Sequence[Route]) -> None:
    """Two that would be handed the same request, a route below a prefix, or one prefix with two kinds of errors."""
    for place, each in enumerate(forwards):
        for other in forwards[:place]:
            if each.forward.prefix != other.forward.prefix:
                continue
            if each.forward.methods & other.forward.methods:
                raise RouteError(f"{each.rule.name} and {other.rule.name} are both handed {each.forward.prefix}")
            if each.forward.scim_errors != other.forward.scim_errors:
                raise RouteError(f"{each.rule.name} and {other.rule.name} write errors in different ways")
        for route in routes:
            if _may_lie_under(route.template, each.forward.prefix):
                raise RouteError(f"{route.rule.name} serves {route.template}, which lies under {each.forward.prefix}")
        if any(fixed == each.forward.prefix or fixed.startswith(f"{each.forward.prefix}/") for fixed in FIXED_PATHS):
            raise RouteError(f"{each.rule.name} takes a path of the edge itself: {each.forward.prefix}")


def _may_lie_under(template: str, prefix: str) -> bool:
    """Whether a template's paths can lie under a prefix: a variable or wildcard may be any segment, or several."""
    segments = re.sub(r"\{[^{}]*\}", lambda found: "**" if "**" in found.group() else "*", template[1:]).split("/")
    for place, part in enumerate(prefix[1:].split("/")):
        if place >= len(segments):
            return False
        if segments[place] == "**":
            return True
        if segments[place] not in ("*", part):
            return False
    return True
