"""Groups that a directory provisions, and a PATCH of one as what it does to its members. Pure.

Members are never loaded to be patched: a group may have thousands, and directories change them one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from scim2_models import Context, InvalidPathException, InvalidValueException, NoTargetException, PatchOp
from scim2_models.path import Comparison, FilterNode, LogicalExpr, LogicalOperator

from services.identity.model.scim import documents
from services.identity.model.scim.patches import require_bounded
from services.identity.model.scim.resources import GROUP_SCHEMA, MAX_GROUP_MEMBERS, POLICY, Group
from services.identity.model.scim.users import comparable

_MAX_NAME = 256


@dataclass(frozen=True, slots=True)
class ScimGroup:
    """A group as a directory has it, without its members."""

    organization_id: UUID
    group_id: UUID
    display_name: str
    external_id: str
    version: int
    created_at: datetime
    modified_at: datetime

    @property
    def tag(self) -> str:
        """The entity tag."""
        return documents.version_tag(self.version)

    @property
    def key(self) -> str:
        """The name as names are compared."""
        return comparable(self.display_name)

    def columns(self) -> dict[str, Any]:
        """What the database looks it up by."""
        return {"display_name": self.display_name, "display_name_key": self.key, "external_id": self.external_id}

    def document(self) -> dict[str, Any]:
        """The resource without members and metadata."""
        named = {"schemas": [GROUP_SCHEMA], "displayName": self.display_name}
        return {**named, "externalId": self.external_id} if self.external_id else named


@dataclass(frozen=True, slots=True)
class MemberChange:
    """One step of what happens to a group's members: all of them go first where `clears` says so."""

    clears: bool = False
    adds: frozenset[UUID] = frozenset()
    removes: frozenset[UUID] = frozenset()


@dataclass(slots=True)
class GroupPatch:
    """What a PATCH does: the group as it is named afterwards, and the steps for its members."""

    group: ScimGroup
    steps: list[MemberChange] = field(default_factory=list)


def read_group(payload: Mapping[str, Any], context: Context) -> tuple[str, str, frozenset[UUID]]:
    """Display name, external id and members of a POST or PUT. Raises SCIMException, or pydantic's ValidationError."""
    model = Group.model_validate(dict(payload), scim_ctx=context, scim_policy=POLICY)
    members = _ids(_values([{"value": each.value, "type": each.type or "User"} for each in model.members or ()]))
    return _name(model.display_name), model.external_id or "", members


def patch_of(group: ScimGroup, payload: Mapping[str, Any]) -> GroupPatch:
    """What a PATCH does to a group. Raises SCIMException, or pydantic's ValidationError."""
    require_bounded(payload, MAX_GROUP_MEMBERS)
    patch = PatchOp[Group].model_validate(dict(payload), scim_ctx=Context.RESOURCE_PATCH_REQUEST, scim_policy=POLICY)
    found = GroupPatch(group)
    for operation in patch.operations or ():
        binding = operation.path.resolve() if operation.path else None
        if operation.path is None or binding is None:
            _take_object(found, operation.op.value, operation.value)
        elif binding.field_name == "members":
            if binding.sub_field_name:
                raise InvalidPathException(detail=f"A member's {binding.sub_field_name} can't be changed.")
            found.steps.append(_step(operation.op.value, operation.path.value_filter, operation.value))
        else:
            _set(found, binding.field_name, None if operation.op.value == "remove" else operation.value)
    return found


def _take_object(found: GroupPatch, op: str, value: Any) -> None:
    """An operation without a path: its value holds the attributes."""
    if not isinstance(value, dict):
        raise InvalidValueException(detail="Without a path, the value must be an object.")
    for name, item in value.items():
        lowered = name.lower().removeprefix(f"{GROUP_SCHEMA.lower()}:")
        if lowered == "members":
            found.steps.append(_step(op, None, item))
        elif lowered == "id" and item != str(found.group.group_id):
            raise InvalidValueException(detail="A group's id can't be changed.")
        elif lowered in _FIELDS:
            _set(found, _FIELDS[lowered], item)
        elif lowered not in ("id", "schemas", "meta"):
            raise InvalidValueException(detail=f"{name[:100]!r} is not declared by the resource schema")


_FIELDS = {"displayname": "display_name", "externalid": "external_id"}


def _set(found: GroupPatch, name: str, value: Any) -> None:
    if name == "display_name":
        found.group = replace(found.group, display_name=_name(value))
    elif name == "external_id":
        if value is not None and not isinstance(value, str):
            raise InvalidValueException(detail="externalId must be text.")
        found.group = replace(found.group, external_id=value or "")
    elif name != "schemas":
        raise InvalidPathException(detail=f"{name} can't be changed.")


def _step(op: str, selected: FilterNode | None, value: Any) -> MemberChange:
    if op == "remove":
        if selected is not None:
            return MemberChange(removes=_known_ids(_selected(selected)))
        if value is None:
            return MemberChange(clears=True)
        return MemberChange(removes=_known_ids(_values(value)))  # Entra's way
    if selected is not None:
        raise NoTargetException(detail="A member can be added or removed, and not be changed.")
    entries = _ids(_values(value)) if value is not None else frozenset()
    return MemberChange(clears=op == "replace", adds=entries)


def _values(value: Any) -> list[Any]:
    entries = value if isinstance(value, list) else [value]
    found = []
    for each in entries:
        if not isinstance(each, dict):
            raise InvalidValueException(detail='Members are objects, such as {"value": "<id of a user>"}.')
        given = {name.lower(): item for name, item in each.items()}
        if str(given.get("type", "User")).lower() != "user":
            raise InvalidValueException(detail="Groups hold users, and no groups.")
        found.append(given.get("value"))
    return found


def _selected(node: FilterNode) -> Iterable[Any]:
    """The ids that a filter such as `value eq "…"` names, joined by `or`."""
    if isinstance(node, LogicalExpr) and node.op == LogicalOperator.or_:
        for term in node.terms:
            yield from _selected(term)
    elif isinstance(node, Comparison) and node.attr_path.attr.lower() == "value" and node.op.value == "eq":
        yield node.value
    else:
        raise InvalidPathException(detail='Members are selected by their id: members[value eq "…"].')


def _known_ids(values: Iterable[Any]) -> frozenset[UUID]:
    """The ids among values: whatever isn't one is nobody's, and so isn't in the group."""
    found = set()
    for value in values:
        try:
            found.add(UUID(value))
        except (ValueError, TypeError, AttributeError):
            continue
    return frozenset(found)


def _ids(values: Iterable[Any]) -> frozenset[UUID]:
    """The ids of members to be; each must be one, and stand there once."""
    values = list(values)
    if len(values) > MAX_GROUP_MEMBERS:
        raise InvalidValueException(detail=f"A group may have at most {MAX_GROUP_MEMBERS} members.")
    found = []
    for value in values:
        try:
            found.append(UUID(value))
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidValueException(detail=f"There is no user {str(value)[:100]!r}.") from error
    if len(set(found)) != len(found):
        raise InvalidValueException(detail="A member is given twice.")
    return frozenset(found)


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_NAME:
        raise InvalidValueException(detail=f"displayName must have 1 to {_MAX_NAME} characters.")
    return value
