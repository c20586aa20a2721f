"""Writes the permission table from the protos: `python -m services._mesh.docs [--check]`.

The same descriptors are what every process enforces, so the page can't say anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from google.api import annotations_pb2

from recoup.mesh.v1 import job_service_pb2
from recoup.services import SERVICES
from services._mesh.descriptors import LimitRule, MethodRule, method_rules, permission_rules
from services._mesh.forwards import forward_rule
from services._mesh.ids import PLATFORM

PAGE = Path(__file__).resolve().parents[2] / "docs" / "PERMISSIONS.md"
_ROLES = ("ADMIN", "FINOPS", "SECURITY", "APPROVER", "FINANCE", "AUDITOR", "VIEWER")
JOBS = job_service_pb2.DESCRIPTOR.services_by_name["JobService"]
# The mesh's own service is each process's that has jobs.
_ALL = (*(each for name in sorted(SERVICES) for each in SERVICES[name]), JOBS)

_LIMITED = {
    LimitRule.UNSPECIFIED: "",
    LimitRule.NEUTRAL: "unlimited",
    LimitRule.HONOURED: "limited",
    LimitRule.THROUGH_SERVICE: "through a service",
}
_CUSTOM = (
    "## Custom roles",
    "A custom role is a set of the permissions above (`recoup role create night-watch --permission"
    " scanner.finding.read …`). It holds no permission that its maker doesn't hold, and none of the platform. Advice:",
    "- Begin with what one of the seven holds (`recoup role show finops`) and leave out; a role that only reads should"
    " hold no `.update`, `.request` or `.approve`.",
    "- `audit.event.read` shows nothing by itself: add one of `audit.event.read_…`. Who requests actions needs"
    " `scanner.finding.read`, `scanner.connection.read`, `pricing.bill.read` and `actions.action.read` besides.",
    "- Don't put `actions.action.request` and `actions.action.approve` into one role: nobody approves what they"
    " requested, but two people with such a role approve each other's.",
    "- Permissions to approve are withheld for the first day, or until another Admin confirms"
    " (`recoup role confirm`): {approvals}.",
    "- A role can be limited to connections or tags where it is given (`recoup role assign … --connection … --tag …`)."
    " It then reaches only what is marked below: *limited* RPCs show and change what fits the limits, *unlimited* ones"
    " concern no resource, and *through a service* means one that has looked at the limits.",
)


def page() -> str:
    """The page's text."""
    lines = [
        "# Permissions",
        "Generated from the protos by `make docs`; never edited. Every service enforces exactly this.",
        "",
        "## Who may do what",
        f"| permission | {' | '.join(role.title() for role in _ROLES)} | what it lets a person do |",
        f"|---|{'---|' * len(_ROLES)}---|",
    ]
    for service in _ALL:
        for rule in permission_rules(service):
            marks = " | ".join("●" if role in rule.roles else "" for role in _ROLES)
            lines.append(f"| `{rule.name}` | {marks} | {rule.description} |")
    lines += ["", *_custom(), "", *_platform_table()]
    lines += [
        "",
        "## Every RPC",
        "| RPC | REST | scope | permission | limited roles | effect | event |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [_row(rule) for service in _ALL for rule in method_rules(service)]
    return "\n".join([*lines, ""])


def _custom() -> list[str]:
    rules = [rule for service in _ALL for rule in permission_rules(service) if rule.is_approval]
    return [line.replace("{approvals}", ", ".join(f"`{rule.name}`" for rule in rules)) for line in _CUSTOM]


def _platform_table() -> list[str]:
    """What members of the platform organization hold: this, and nothing of the table above."""
    rules = [rule for service in _ALL for rule in permission_rules(service) if rule.platform_roles]
    roles = [role for role in _ROLES if any(role in rule.platform_roles for rule in rules)]
    return [
        "## Who may do what in the platform organization",
        f"Its members hold these and no others. It has the id `{PLATFORM}`; events of the installation itself are its"
        " own. RPCs of PLATFORM scope are about the whole installation, all others about this one organization.",
        "",
        f"| permission | {' | '.join(role.title() for role in roles)} |",
        f"|---|{'---|' * len(roles)}",
        *(f"| `{r.name}` | {' | '.join('●' if role in r.platform_roles else '' for role in roles)} |" for r in rules),
    ]


def _row(rule: MethodRule) -> str:
    name = rule.name.removeprefix("recoup.")
    cells = [
        f"`{name}`",
        _rest(rule),
        _authority(rule),
        _code(rule.permission),
        _LIMITED[rule.limits],
        rule.effect.name,
        _code(rule.audit_action),
    ]
    return f"| {' | '.join(cells)} |"


def _authority(rule: MethodRule) -> str:
    parts = [
        rule.scope.name + (" + grant" if rule.needs_grant else ""),
        "human" if rule.human_only else "",
        f"aal{rule.min_aal}" if rule.min_aal else "",
        f"authenticated ≤ {rule.max_auth_age_seconds // 60} min ago" if rule.max_auth_age_seconds else "",
        "break-glass" if rule.break_glass else "",
    ]
    return ", ".join(part for part in parts if part)


def _rest(rule: MethodRule) -> str:
    forwarded = forward_rule(rule.descriptor)
    if forwarded:
        return f"`{' '.join(sorted(forwarded.methods))} {forwarded.prefix}/**`"
    options = rule.descriptor.GetOptions()
    if not options.HasExtension(annotations_pb2.http):
        return ""
    binding = options.Extensions[annotations_pb2.http]
    verb = binding.WhichOneof("pattern")
    return f"`{verb.upper()} {getattr(binding, verb)}`"


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def write_or_check(path: Path, text: str, arguments: Iterable[str]) -> int:
    """Write a generated page, or with --check compare it. Returns the exit code."""
    if "--check" in arguments:
        return 0 if path.exists() and path.read_text("utf-8") == text else 1
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page(), sys.argv[1:]))
