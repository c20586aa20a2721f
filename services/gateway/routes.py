"""The routes, from `google.api.http` in the descriptors: decided when the process starts, refused when ambiguous.

They are a tree of segments, in which literals beat `*`, which beats `**`: what a look-up costs depends on the path, not
on how many routes there are. Only verbs that some route registers are split off at the last colon.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from google.protobuf.descriptor import ServiceDescriptor

from services._mesh.descriptors import MethodRule, method_rules
from services._mesh.forwards import ForwardRule, forward_faults, forward_rule
from services.gateway import templates
from services.gateway.bindings import Route, bindings
from services.gateway.templates import MANY, ONE, RouteError

__all__ = ["FIXED_PATHS", "Forwarded", "Route", "RouteError", "Router"]

# Paths that the edge answers itself.
_SCRIPTS = tuple(f"/docs/{name}" for name in ("start.js", "swagger-ui-bundle.js", "swagger-ui.css"))
FIXED_PATHS = ("/healthz", "/readyz", "/.well-known/security.txt", "/openapi.json", "/docs", *_SCRIPTS)


@dataclass(frozen=True)
class Forwarded:
    """An RPC that is handed HTTP as it is, under the prefix and for the methods of `forward`."""

    service: str
    rule: MethodRule
    forward: ForwardRule


@dataclass
class _Node:
    """What may follow a beginning of a path, and the routes that end there, by verb and method."""

    literals: dict[str, _Node] = field(default_factory=dict)
    wild: dict[str, _Node] = field(default_factory=dict)
    ends: dict[str, dict[str, Route]] = field(default_factory=dict)


class Router:
    """All routes. `any_types` are the messages that a google.protobuf.Any may hold."""

    def __init__(
        self, services: Iterable[tuple[str, ServiceDescriptor]], any_types: frozenset[str] = frozenset()
    ) -> None:
        services = list(services)
        self.routes = [route for name, service in services for route in bindings(name, service, any_types)]
        self._verbs = frozenset(route.pattern.verb for route in self.routes) - {""}
        self._root = _Node()
        for route in self.routes:
            _plant(self._root, route)
        self.forwards = [each for name, service in services for each in _forwards(name, service)]
        _refuse_conflicts(self.forwards, self.routes)
        self._handed: dict[str, list[Forwarded]] = {}
        for each in self.forwards:
            self._handed.setdefault(each.forward.prefix, []).append(each)
        self._first = frozenset(prefix.split("/", 2)[1] for prefix in self._handed)
        self._deepest = max((prefix.count("/") for prefix in self._handed), default=0)

    def find(self, http_method: str, path: str) -> tuple[Route, dict[str, str]] | list[str]:
        """The route and its variables; or the methods that the path knows, none where it knows no route.

        What GET has, HEAD has too. Raises ValueError, whose text says what a path must be.
        """
        wanted = "GET" if http_method == "HEAD" else http_method
        segments, verb = self._split(path)
        allowed: set[str] = set()
        route = _sought(self._root, segments, 0, verb, wanted, allowed)
        if route is not None:
            return route, _values(route, segments)
        return sorted(allowed | ({"HEAD"} if "GET" in allowed else set()))

    def _split(self, path: str) -> tuple[list[str], str]:
        segments = templates.split(path)
        before, colon, verb = segments[-1].rpartition(":")
        if colon and verb in self._verbs:
            return [*segments[:-1], before], verb
        return segments, ""

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

    def _under(self, path: str) -> Sequence[Forwarded]:
        """What is handed the path: all with the longest prefix that fits."""
        if path[1:].partition("/")[0] not in self._first:
            return ()
        steps = path.split("/", self._deepest + 1)[: self._deepest + 1]
        for length in range(len(steps), 1, -1):
            found = self._handed.get("/".join(steps[:length]))
            if found:
                return found
        return ()


def _values(route: Route, segments: Sequence[str]) -> dict[str, str]:
    try:
        return route.values(segments)
    except UnicodeDecodeError as error:
        raise ValueError("must be percent-encoded UTF-8.") from error


def _sought(
    node: _Node, segments: Sequence[str], place: int, verb: str, method: str, allowed: set[str]
) -> Route | None:
    """The most specific route that the path fits; no deeper than the deepest template. `allowed` gets the methods of
    what fits but for the method.
    """
    if place == len(segments):
        if verb in node.ends:
            allowed.update(node.ends[verb])
            if method in node.ends[verb]:
                return node.ends[verb][method]
    elif segments[place]:  # An empty segment fits nothing: one resource has one address.
        for after in (node.literals.get(segments[place]), node.wild.get(ONE)):
            found = after and _sought(after, segments, place + 1, verb, method, allowed)
            if found:
                return found
    rest = node.wild.get(MANY)
    if rest is None or verb not in rest.ends or not all(segments[place:]):
        return None
    allowed.update(rest.ends[verb])
    return rest.ends[verb].get(method)


def _plant(root: _Node, route: Route) -> None:
    node = root
    for segment in route.pattern.segments:
        node = (node.wild if segment in (ONE, MANY) else node.literals).setdefault(segment, _Node())
    other = node.ends.setdefault(route.pattern.verb, {}).setdefault(route.http_method, route)
    if other is not route:
        raise RouteError(f"{route.rule.name} and {other.rule.name} both serve {route.http_method} {route.template}")
    if route.template in FIXED_PATHS:
        raise RouteError(f"{route.rule.name} serves {route.template}, which the edge answers itself")


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
            if _may_lie_under(route.pattern.segments, each.forward.prefix):
                raise RouteError(f"{route.rule.name} serves {route.template}, which lies under {each.forward.prefix}")
        if any(fixed == each.forward.prefix or fixed.startswith(f"{each.forward.prefix}/") for fixed in FIXED_PATHS):
            raise RouteError(f"{each.rule.name} takes a path of the edge itself: {each.forward.prefix}")


def _may_lie_under(segments: Sequence[str], prefix: str) -> bool:
    """Whether a template's paths can lie under a prefix: a variable or wildcard may be any segment, or several."""
    for place, part in enumerate(prefix[1:].split("/")):
        if place >= len(segments):
            return False
        if segments[place] == MANY:
            return True
        if segments[place] not in (ONE, part):
            return False
    return True
