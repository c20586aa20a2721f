"""All RPCs as their descriptors have them, by what the isolation suite varies, and how one is asked over REST."""

from __future__ import annotations

import re
import time

from recoup.mesh.v1 import job_service_pb2
from recoup.services import SERVICES
from services._mesh.descriptors import Scope, method_rules, permission_rules
from services.gateway.routes import Route, Router
from tests.isolation.valid_requests import Case
from tests.support.mesh import Person

SERVED = [(process, each) for process, services in SERVICES.items() for each in services]
# Each API that owns jobs serves it.
JOBS = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]
HOLDERS = {rule.name: frozenset(rule.roles) for _, service in SERVED for rule in permission_rules(service)}
RULES = {rule.name: (process, rule) for process, service in SERVED for rule in method_rules(service)}
# An RPC's shortest route; further bindings of it only name more.
ROUTES: dict[str, Route] = {
    route.rule.name: route for route in sorted(Router(SERVED).routes, key=lambda each: -len(each.variables))
}
PLATFORM_HOLDERS = {
    rule.name: frozenset(rule.platform_roles) for _, service in SERVED for rule in permission_rules(service)
}
APPROVALS = {rule.name for _, service in SERVED for rule in permission_rules(service) if rule.is_approval}
TENANT = [name for name in ROUTES if RULES[name][1].scope is Scope.ORGANIZATION]
WHOLE = [name for name in ROUTES if RULES[name][1].scope is Scope.PLATFORM]
NAMED = [name for name in TENANT if len(ROUTES[name].variables) > 1]
LISTS = [name for name in TENANT if "page_token" in RULES[name][1].descriptor.input_type.fields_by_name]


def short(name: str) -> str:
    return name.rpartition("/")[2]


def ask(
    person: Person, name: str, case: Case, organization: str = "", token: str | None = None, **extra: str
) -> tuple[int, str]:
    """Call an RPC over REST, in the time that the edge leaves; returns the status and the reason.

    With a `token`, as whoever has that one, and at once.
    """
    route = ROUTES[name]
    path = route.template
    for variable, value in {"organization_id": organization or person.organization_id, **case.variables}.items():
        path = re.sub(rf"{{{variable}(=[^{{}}]*)?}}", value, path)
    request = person.client.build_request(
        route.http_method,
        path,
        params={**(case.query or {}), **extra},
        json=None if case.body is None else dict(case.body),
    )
    if token is not None:
        request.headers.pop("authorization")
        request.headers.update({"authorization": f"Bearer {token}"} if token else {})
    while True:
        answer = person.client.send(request)
        if answer.status_code != 429 or token is not None:
            break
        time.sleep(float(answer.headers["retry-after"]))  # As the edge asks; it ends, or the suite's own time does.
    is_refused = answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["reason"] if is_refused else ""
