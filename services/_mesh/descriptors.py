"""Reads from the protobuf descriptors what the mesh must know of each RPC: its access rule, types, tenant
fields.

The protos are the only source; nothing here can be overridden by code or configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from recoup.mesh.v1 import access_pb2
from services._mesh.forwards import forward_faults

ORGANIZATION_FIELD = "organization_id"
_TENANT_FIELDS = frozenset({ORGANIZATION_FIELD, "organization_ids"})
_ANY = "google.protobuf.Any"


class Scope(IntEnum):
    """The kind of authority that a call must carry; the numbers are the proto's."""

    UNSPECIFIED = access_pb2.SCOPE_UNSPECIFIED
    PUBLIC = access_pb2.SCOPE_PUBLIC
    SESSION = access_pb2.SCOPE_SESSION
    ORGANIZATION = access_pb2.SCOPE_ORGANIZATION
    PLATFORM = access_pb2.SCOPE_PLATFORM
    PEER = access_pb2.SCOPE_PEER


class Effect(IntEnum):
    """Whether a call changes state; the numbers are the proto's."""

    UNSPECIFIED = access_pb2.EFFECT_UNSPECIFIED
    READ = access_pb2.EFFECT_READ
    WRITE = access_pb2.EFFECT_WRITE
    BOOKKEEPING = access_pb2.EFFECT_BOOKKEEPING


class LimitRule(IntEnum):
    """What a call makes of a role that is limited to some resources; the numbers are the proto's."""

    UNSPECIFIED = access_pb2.LIMIT_RULE_UNSPECIFIED
    NEUTRAL = access_pb2.LIMIT_RULE_NEUTRAL
    HONOURED = access_pb2.LIMIT_RULE_HONOURED
    THROUGH_SERVICE = access_pb2.LIMIT_RULE_THROUGH_SERVICE


@dataclass(frozen=True)
class PermissionRule:
    """A permission as its service declares it; roles are names such as "FINOPS". `platform_roles` are those of the
    platform organization. `is_approval`: it is to decide about what somebody else asked for; `is_personal`: what
    somebody else has to agree to, or that says who is who.
    """

    name: str
    description: str
    roles: tuple[str, ...]
    platform_roles: tuple[str, ...]
    is_approval: bool = False
    is_personal: bool = False


@dataclass(frozen=True)
class MethodRule:
    """All that the mesh knows of one RPC. `name` is "package.Service/Method", which also names it in
    configuration.
    """

    name: str
    scope: Scope
    permission: str
    effect: Effect
    audit_action: str
    needs_grant: bool
    min_aal: int
    human_only: bool
    max_auth_age_seconds: int
    break_glass: bool
    limits: LimitRule
    request: type[Message]
    response: type[Message]
    request_streaming: bool
    response_streaming: bool
    descriptor: MethodDescriptor

    @property
    def method(self) -> str:
        """The RPC's own name, such as "GetThing"."""
        return self.descriptor.name

    @property
    def needs_passport(self) -> bool:
        """Whether the call is made on somebody's behalf."""
        return self.scope in (Scope.SESSION, Scope.ORGANIZATION, Scope.PLATFORM)

    @property
    def needs_fresh_feed(self) -> bool:
        """Whether a stale revocation feed stops it: it changes state, or uses the credential that a grant
        names.
        """
        return self.effect is Effect.WRITE or (self.needs_grant and self.effect is not Effect.READ)


def method_rules(service: ServiceDescriptor) -> list[MethodRule]:
    """The rules of a service's RPCs, in the order of the proto."""
    return [_method_rule(service, method) for method in service.methods]


def permission_rules(service: ServiceDescriptor) -> list[PermissionRule]:
    """The permissions that a service declares."""
    declared = service.GetOptions().Extensions[access_pb2.permissions]
    return [
        PermissionRule(
            item.name,
            item.description,
            _role_names(item.roles),
            _role_names(item.platform_roles),
            item.kind == access_pb2.PERMISSION_KIND_APPROVAL,
            item.kind == access_pb2.PERMISSION_KIND_PERSON,
        )
        for item in declared.permission
    ]


def _role_names(roles: Iterable[access_pb2.Role.ValueType]) -> tuple[str, ...]:
    return tuple(access_pb2.Role.Name(role).removeprefix("ROLE_") for role in roles)


def _method_rule(service: ServiceDescriptor, method: MethodDescriptor) -> MethodRule:
    access = method.GetOptions().Extensions[access_pb2.access]
    return MethodRule(
        name=f"{service.full_name}/{method.name}",
        scope=Scope(access.scope),
        permission=access.permission,
        effect=Effect(access.effect),
        audit_action=access.audit_action,
        needs_grant=access.grant == access_pb2.GRANT_RULE_REQUIRED,
        min_aal=access.min_aal,
        human_only=access.session == access_pb2.SESSION_RULE_HUMAN,
        max_auth_age_seconds=access.max_auth_age_seconds,
        break_glass=access.break_glass == access_pb2.BREAK_GLASS_REACHABLE,
        limits=LimitRule(access.limits),
        request=GetMessageClass(method.input_type),
        response=GetMessageClass(method.output_type),
        request_streaming=method.client_streaming,
        response_streaming=method.server_streaming,
        descriptor=method,
    )


def faults(services: Sequence[ServiceDescriptor]) -> list[str]:
    """What is wrong with the access rules of `services`, as sentences; a process with any of them doesn't
    start.
    """
    declared = {rule.name: rule for service in services for rule in permission_rules(service)}
    rules = [rule for service in services for rule in method_rules(service)]
    return [f"{rule.name} {fault}" for rule in rules for fault in _faults(rule, declared)]


def _faults(rule: MethodRule, declared: dict[str, PermissionRule]) -> Iterator[str]:
    if rule.scope is Scope.UNSPECIFIED or rule.effect is Effect.UNSPECIFIED:
        yield "has no access rule: set (recoup.mesh.v1.access) with a scope and an effect"
        return
    yield from _permission_faults(rule, declared)
    if rule.effect is Effect.WRITE and not rule.audit_action:
        yield "changes state without an audit_action"
    if rule.effect is not Effect.WRITE and rule.audit_action:
        yield "has an audit_action but doesn't change state"
    if rule.effect is Effect.BOOKKEEPING and rule.scope is not Scope.PEER:
        yield "is bookkeeping, which only PEER scope may be"
    if rule.break_glass and not rule.permission:
        yield "may be reached by break-glass, but needs no permission"
    if rule.needs_grant and rule.scope is not Scope.PEER:
        yield "asks for a grant, which only PEER scope may"
    if rule.human_only and not rule.needs_passport:
        yield f"is for a person's session, which {rule.scope.name} scope doesn't carry"
    if rule.max_auth_age_seconds and not rule.human_only:
        # A token authenticated when it was made, which says nothing.
        yield "asks for recent authentication without being for a person's session"
    if rule.limits is not LimitRule.UNSPECIFIED and rule.scope is not Scope.ORGANIZATION:
        yield f"says what it makes of limits, which {rule.scope.name} scope has none of"
    if rule.request_streaming:
        yield "streams requests, which the mesh doesn't check"
    yield from _tenant_faults(rule)
    yield from forward_faults(rule.descriptor)


def _permission_faults(rule: MethodRule, declared: dict[str, PermissionRule]) -> Iterator[str]:
    needs = rule.scope in (Scope.ORGANIZATION, Scope.PLATFORM)
    if needs and not rule.permission:
        yield f"has {rule.scope.name} scope without a permission"
    if not needs and rule.permission:
        yield f"names a permission, which {rule.scope.name} scope doesn't check"
    if rule.permission and rule.permission not in declared:
        yield f"names the permission {rule.permission!r}, which no service here declares"
    elif rule.scope is Scope.PLATFORM and rule.permission and declared[rule.permission].roles:
        # Its organization fields aren't compared with anything, so no role of an organization may reach it.
        yield f"has PLATFORM scope, but roles of an organization hold {rule.permission!r}"
    elif rule.scope is Scope.PLATFORM and rule.permission and not declared[rule.permission].platform_roles:
        yield f"has PLATFORM scope, but no role of the platform organization holds {rule.permission!r}"


def _tenant_faults(rule: MethodRule) -> Iterator[str]:
    fields = TenantFields(rule.descriptor.input_type)
    field = rule.descriptor.input_type.fields_by_name.get(ORGANIZATION_FIELD)
    if rule.scope is Scope.ORGANIZATION and (field is None or field.is_repeated):
        yield "has ORGANIZATION scope, but its request has no field organization_id"
    if rule.scope is Scope.PUBLIC and fields:
        yield "has PUBLIC scope, but its request names an organization"
    for path in fields.unusable:
        yield f"hides what it is about from the tenant check in {path}"


@dataclass(frozen=True)
class _Step:
    """One field on the way to tenant fields: the field itself is one (`inner` is None), or its messages
    hold some.
    """

    name: str
    repeated: bool
    is_map: bool
    inner: Descriptor | None


class TenantFields:
    """Where organization ids can stand in a request of one type, at any depth: found once, when the process
    starts.

    `unusable` names fields that can't be checked: an organization id that isn't a string, or a message of
    unknown type (google.protobuf.Any).
    """

    def __init__(self, root: Descriptor) -> None:
        self.unusable: list[str] = []
        types = _reachable(root)
        leading = self._leading(types)
        self._steps = {name: self._plan(types[name], leading) for name in leading}
        self._root = root.full_name
        # Nearly every request has exactly the one top-level field, and its value is read without any walk.
        self.only_top = [(s.name, s.inner) for s in self._steps.get(self._root, ())] == [(ORGANIZATION_FIELD, None)]

    def __bool__(self) -> bool:
        return self._root in self._steps

    def values(self, request: Message) -> Iterator[tuple[str, str]]:
        """Path and value of each organization id that is set in `request`."""
        if self._root in self._steps:
            yield from self._walk(request, self._root, "")

    def _walk(self, message: Any, type_name: str, prefix: str) -> Iterator[tuple[str, str]]:
        for step in self._steps[type_name]:
            path = prefix + step.name
            for place, item in _items(message, step):
                if step.inner is None:
                    yield path + place, item
                else:
                    yield from self._walk(item, step.inner.full_name, f"{path}{place}.")

    def _leading(self, types: dict[str, Descriptor]) -> set[str]:
        """The types that hold tenant fields, or messages that do; a fixed point, since types may be
        recursive.
        """
        found = {name for name, t in types.items() if any(f.name in _TENANT_FIELDS for f in t.fields)}
        for name, each in types.items():
            for field in each.fields:
                self._note_unusable(name, field)
        while True:
            more = {n for n, t in types.items() if any(s in found for s in _message_types(t))}
            if more <= found:
                return found
            found |= more

    def _note_unusable(self, type_name: str, field: FieldDescriptor) -> None:
        inner = _value_type(field)
        if inner is not None and inner.full_name == _ANY:
            self.unusable.append(f"{type_name}.{field.name}")
        if field.name in _TENANT_FIELDS and field.type != FieldDescriptor.TYPE_STRING:
            self.unusable.append(f"{type_name}.{field.name}")

    @staticmethod
    def _plan(each: Descriptor, leading: set[str]) -> tuple[_Step, ...]:
        steps = []
        for field in each.fields:
            inner = _value_type(field)
            if field.name in _TENANT_FIELDS:
                steps.append(_Step(field.name, field.is_repeated, False, None))
            elif inner is not None and inner.full_name in leading:
                steps.append(_Step(field.name, field.is_repeated, _is_map(field), inner))
        return tuple(steps)


def _items(message: Any, step: _Step) -> Iterable[tuple[str, Any]]:
    value = getattr(message, step.name)
    if step.is_map:
        return ((f"[{key}]", item) for key, item in value.items())
    if step.repeated:
        return ((f"[{n}]", item) for n, item in enumerate(value))
    if step.inner is None:
        return (("", value),) if value else ()
    return (("", value),) if message.HasField(step.name) else ()


def _reachable(root: Descriptor) -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if each.full_name not in found:
            found[each.full_name] = each
            waiting.extend(inner for field in each.fields if (inner := _value_type(field)) is not None)
    return found


def _message_types(each: Descriptor) -> Iterator[str]:
    return (inner.full_name for field in each.fields if (inner := _value_type(field)) is not None)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _value_type(field: FieldDescriptor) -> Descriptor | None:
    """The message type of a field's values; for a map, that of the map's values."""
    entry = field.message_type
    return entry.fields_by_name["value"].message_type if entry is not None and _is_map(field) else entry
