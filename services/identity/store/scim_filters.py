"""SCIM filters as SQL: only attributes that stand here can be asked for, and every value is a bound parameter."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scim2_models import InvalidFilterException, InvalidValueException, ScimFilter
from scim2_models.path import (
    AttributeBinding,
    CompareOperator,
    Comparison,
    FilterVisitor,
    LogicalExpr,
    LogicalOperator,
    Not,
    Present,
    ValuePath,
    coerce_value,
)
from sqlalchemy import ColumnElement, Text, and_, cast, exists, false, func, not_, or_, select, true
from sqlalchemy.dialects.postgresql import JSONB

from services.identity.model.scim.resources import ENTERPRISE, GROUP_SCHEMA, USER_SCHEMA, Group, ProvisionedUser
from services.identity.model.scim.users import comparable
from services.identity.tables.scim import scim_group_members, scim_groups, scim_users

Condition = ColumnElement[bool]
_LISTS = ("emails", "phoneNumbers", "addresses", "ims", "entitlements")
_SUBS = ("value", "type", "display", "primary")
_NAMES = ("formatted", "familyName", "givenName", "middleName", "honorificPrefix", "honorificSuffix")
_TEXTS = ("nickName", "title", "userType", "preferredLanguage", "locale", "timezone")
_ENTERPRISE = ("employeeNumber", "costCenter", "organization", "division", "department")


@dataclass(frozen=True, slots=True)
class _Column:
    """What an attribute is compared as. `folded`: texts are compared without their case, so the value is folded.

    Where it can't be NULL, the bare comparison stands in the SQL, which an index can answer.
    """

    expression: Any
    folded: bool = False
    nullable: bool = False

    def known(self, condition: Any) -> Condition:
        """The condition, and false where there is no value."""
        found: Condition = func.coalesce(condition, False) if self.nullable else condition
        return found

    @property
    def text(self) -> ColumnElement[str]:
        """The text, empty where there is none."""
        found: ColumnElement[str] = func.coalesce(self.expression, "") if self.nullable else self.expression
        return found


def _text_of(document: Any, *path: str) -> Any:
    return func.jsonb_extract_path_text(document, *path, type_=Text)


def _folded(expression: Any) -> _Column:
    return _Column(func.lower(func.normalize(expression, type_=Text)), folded=True, nullable=True)


def _of_document(*path: str) -> _Column:
    return _folded(_text_of(scim_users.c.document, *path))


def _user_columns() -> dict[str, _Column]:
    users, core = scim_users.c, f"{USER_SCHEMA}:"
    found = {
        f"{core}id": _Column(cast(users.scim_id, Text)),
        f"{core}userName": _Column(users.user_name_key, folded=True),
        f"{core}externalId": _Column(users.external_id),
        f"{core}displayName": _Column(users.display_name_key, folded=True),
        f"{core}active": _Column(users.active),
        f"{core}meta.created": _Column(users.created_at),
        f"{core}meta.lastModified": _Column(users.modified_at),
    }
    found |= {f"{core}{name}": _of_document(name) for name in _TEXTS}
    found |= {f"{core}name.{name}": _of_document("name", name) for name in _NAMES}
    found |= {f"{ENTERPRISE}:{name}": _of_document(ENTERPRISE, name) for name in _ENTERPRISE}
    manager = _text_of(users.document, ENTERPRISE, "manager", "value")
    found[f"{ENTERPRISE}:manager.value"] = _Column(manager, nullable=True)
    return {name.lower(): column for name, column in found.items()}


def _group_columns() -> dict[str, _Column]:
    groups, core = scim_groups.c, f"{GROUP_SCHEMA}:"
    found = {
        f"{core}id": _Column(cast(groups.group_id, Text)),
        f"{core}displayName": _Column(groups.display_name_key, folded=True),
        f"{core}externalId": _Column(groups.external_id),
        f"{core}meta.created": _Column(groups.created_at),
        f"{core}meta.lastModified": _Column(groups.modified_at),
    }
    return {name.lower(): column for name, column in found.items()}


_COLUMNS = {ProvisionedUser: _user_columns(), Group: _group_columns()}
_SORTED: Mapping[Any, Mapping[str, str]] = {
    ProvisionedUser: {name: f"{USER_SCHEMA}:{name}".lower() for name in ("id", "username", "externalid", "displayname",
        "active", "meta.created", "meta.lastmodified", "name.familyname", "name.givenname", "title")},
    Group: {name: f"{GROUP_SCHEMA}:{name}".lower() for name in ("id", "displayname", "externalid", "meta.created",
        "meta.lastmodified")},
}  # fmt: skip


def condition_of(given: ScimFilter[Any] | None) -> Condition:
    """The condition that a filter stands for. Raises InvalidFilterException for what can't be asked for."""
    return true() if given is None else _Sql(given).visit(given.ast)


def order_of(model: Any, sort_by: str, descending: bool) -> list[Any]:
    """The order of a list; without one, resources come as they were made. Raises InvalidValueException."""
    identifier = scim_users.c.scim_id if model is ProvisionedUser else scim_groups.c.group_id
    if not sort_by:
        return [identifier]
    bare = sort_by.lower().removeprefix(f"{str(model.__schema__).lower()}:")
    name = _SORTED[model].get(bare)
    if name is None:
        raise InvalidValueException(detail=f"Sort by one of {', '.join(_SORTED[model])}.")
    column = _COLUMNS[model][name].expression
    return [column.desc().nulls_first() if descending else column.asc().nulls_last(), identifier]


class _Sql(FilterVisitor[Condition]):
    """Translates one filter; every condition is true or false, and never unknown, so that `not` is its opposite."""

    def __init__(self, given: ScimFilter[Any]) -> None:
        self._filter, self._columns = given, _COLUMNS[given.model]

    def visit_logical_expr(self, node: LogicalExpr) -> Condition:
        terms = [self.visit(each) for each in node.terms]
        return and_(*terms) if node.op == LogicalOperator.and_ else or_(*terms)

    def visit_not(self, node: Not) -> Condition:
        return not_(self.visit(node.expr))

    def visit_comparison(self, node: Comparison) -> Condition:
        bound = self._filter.resolve_comparison(node.attr_path)
        assert bound is not None
        value = coerce_value(bound, node.value, node.op)
        column = self._columns.get(bound.urn.lower())
        if column is not None:
            return _compared(column, node.op, value)
        negated = node.op == CompareOperator.ne
        wanted = CompareOperator.eq if negated else node.op
        found = self._among(bound, lambda entry: _compared(entry(bound.sub_field_name or "value"), wanted, value))
        return not_(found) if negated else found

    def visit_present(self, node: Present) -> Condition:
        bound = self._filter.resolve(node.attr_path)
        assert bound is not None
        column = self._columns.get(bound.urn.lower())
        if column is not None:
            return _present(column)
        name = bound.sub_field_name
        return self._among(bound, lambda entry: _present(entry(name)) if name else true())

    def visit_value_path(self, node: ValuePath) -> Condition:
        bound = self._filter.resolve(node.attr_path)
        assert bound is not None
        return self._among(bound, lambda entry: _Entry(entry).visit(node.val_filter))

    def _among(self, bound: AttributeBinding, holds: Callable[[Callable[[str], _Column]], Condition]) -> Condition:
        """Whether one entry of a list holds a condition, which gets the columns of the entry by name."""
        name = bound.model._scim_name(bound.field_name)
        if self._filter.model is Group and name == "members":
            of_group = scim_group_members.c.group_id == scim_groups.c.group_id
            return _exists(of_group, holds(_by_name({"value": scim_group_members.c.scim_id})))
        if self._filter.model is ProvisionedUser and name == "groups":
            of_user = scim_group_members.c.scim_id == scim_users.c.scim_id
            return _exists(of_user, holds(_by_name({"value": scim_group_members.c.group_id})))
        if self._filter.model is not ProvisionedUser or name not in _LISTS:
            raise _unfilterable(bound.urn)
        entries = func.jsonb_array_elements(
            func.coalesce(func.jsonb_extract_path(scim_users.c.document, name), cast("[]", JSONB))
        ).table_valued("value").render_derived()  # fmt: skip
        entry = cast(entries.c.value, JSONB)

        def column(sub: str) -> _Column:
            if sub.lower() not in _SUBS:
                raise _unfilterable(f"{bound.urn}.{sub}")
            text = _text_of(entry, sub.lower())
            return _Column(func.coalesce(text, "false") == "true") if sub.lower() == "primary" else _folded(text)

        return exists(select(1).select_from(entries).where(holds(column)))


class _Entry(FilterVisitor[Condition]):
    """The filter within the brackets of a selection, about one entry."""

    def __init__(self, column: Callable[[str], _Column]) -> None:
        self._column = column

    def visit_logical_expr(self, node: LogicalExpr) -> Condition:
        terms = [self.visit(each) for each in node.terms]
        return and_(*terms) if node.op == LogicalOperator.and_ else or_(*terms)

    def visit_not(self, node: Not) -> Condition:
        return not_(self.visit(node.expr))

    def visit_comparison(self, node: Comparison) -> Condition:
        return _compared(self._column(node.attr_path.attr), node.op, node.value)

    def visit_present(self, node: Present) -> Condition:
        return _present(self._column(node.attr_path.attr))

    def visit_value_path(self, node: ValuePath) -> Condition:
        raise InvalidFilterException(detail="A selection can't hold another one.")


def _exists(joined: Condition, holds: Condition) -> Condition:
    return exists(select(1).select_from(scim_group_members).where(joined, holds))


def _by_name(columns: Mapping[str, Any]) -> Callable[[str], _Column]:
    def column(name: str) -> _Column:
        if name.lower() not in columns:
            raise _unfilterable(name)
        return _Column(cast(columns[name.lower()], Text))

    return column


def _unfilterable(urn: str) -> InvalidFilterException:
    return InvalidFilterException(detail=f"{urn[:200]} can't be filtered by.")


def _present(column: _Column) -> Condition:
    if _is_text(column):
        return column.text != ""
    return column.expression.is_not(None)  # type: ignore[no-any-return]


def _is_text(column: _Column) -> bool:
    return isinstance(column.expression.type, Text) or column.folded


def _compared(column: _Column, op: CompareOperator, value: Any) -> Condition:
    if value is None:
        return _compared_to_nothing(column, op)
    if isinstance(value, str):
        value = comparable(value) if column.folded else value
    if isinstance(value, datetime) or not _is_text(column):
        return _ordered(column, op, value)
    if not isinstance(value, str):
        return true() if op == CompareOperator.ne else false()
    if op == CompareOperator.co:
        return column.text.contains(value, autoescape=True)
    if op == CompareOperator.sw:
        return column.text.startswith(value, autoescape=True)
    if op == CompareOperator.ew:
        return column.text.endswith(value, autoescape=True)
    return _ordered(column, op, value)


def _compared_to_nothing(column: _Column, op: CompareOperator) -> Condition:
    if op == CompareOperator.eq:
        return not_(_present(column))
    return _present(column) if op == CompareOperator.ne else false()


def _ordered(column: _Column, op: CompareOperator, value: Any) -> Condition:
    expression = column.expression
    if op == CompareOperator.ne:
        return expression.is_distinct_from(value)  # type: ignore[no-any-return]
    if not isinstance(value, bool | str | datetime):
        return false()
    if isinstance(value, str) and not _is_text(column):
        return false()
    if op == CompareOperator.eq:
        return column.known(expression == value)
    compare = _BY_ORDER.get(op)
    if compare is None or isinstance(value, bool):  # Of true and false, none is greater.
        raise InvalidFilterException(detail=f"{op.value} can't compare that attribute.")
    return column.known(compare(expression, value))


_BY_ORDER: Mapping[CompareOperator, Callable[[Any, Any], Any]] = {
    CompareOperator.gt: operator.gt,
    CompareOperator.ge: operator.ge,
    CompareOperator.lt: operator.lt,
    CompareOperator.le: operator.le,
}
