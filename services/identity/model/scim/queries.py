"""What a list is asked for: a filter within bounds, an order, a page, and the attributes that are wanted. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from scim2_models import InvalidFilterException, InvalidValueException, Resource, ScimFilter
from scim2_models.path import Comparison, FilterNode, LogicalExpr, Not, ValuePath

from services.identity.model.scim.bodies import require_usable
from services.identity.model.scim.documents import Wanted, wanted
from services.identity.model.scim.resources import DEFAULT_PAGE, MAX_PAGE

MAX_FILTER = 2000
MAX_TERMS = 50
_PARAMETERS = frozenset(
    {"filter", "sortby", "sortorder", "startindex", "count", "attributes", "excludedattributes", "schemas"}
)
_MAX_START = 10_000_000


@dataclass(frozen=True, slots=True)
class Query:
    """A list as it is asked for. `start` counts from 1; `filter` is bound to the resource's schema."""

    wanted: Wanted
    filter: ScimFilter[Any] | None = None
    sort_by: str = ""
    descending: bool = False
    start: int = 1
    count: int = DEFAULT_PAGE


def from_url(raw: str) -> dict[str, Any]:
    """The parameters of a URL's query. Raises InvalidValueException where one is there twice."""
    found: dict[str, Any] = {}
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise InvalidValueException(detail="The query must be percent-encoded UTF-8.") from error
    for name, value in pairs:
        if name.lower() in found:
            raise InvalidValueException(detail=f"{name[:100]} is given twice.")
        require_usable(value, name[:100])
        found[name.lower()] = value
    return found


def from_search(body: Mapping[str, Any]) -> dict[str, Any]:
    """The same of a search request's body."""
    return {name.lower(): value for name, value in body.items()}


def read_query(given: Mapping[str, Any], model: type[Resource[Any]]) -> Query:
    """A list of resources of one type. Raises SCIMException."""
    for name in given:
        if name not in _PARAMETERS:
            raise InvalidValueException(detail=f"There is no parameter {name[:100]!r}.")
    order = str(given.get("sortorder") or "ascending").lower()
    if order not in ("ascending", "descending"):
        raise InvalidValueException(detail="sortOrder is ascending or descending.")
    return Query(
        read_wanted(given, model),
        _filter(given.get("filter"), model),
        str(given.get("sortby") or ""),
        order == "descending",
        min(max(_whole(given, "startindex", 1), 1), _MAX_START),
        min(max(_whole(given, "count", DEFAULT_PAGE), 0), MAX_PAGE),
    )


def read_wanted(given: Mapping[str, Any], model: type[Resource[Any]]) -> Wanted:
    """Which attributes are wanted."""
    return wanted(_names(given.get("attributes")), _names(given.get("excludedattributes")), str(model.__schema__))


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [each for each in value.split(",") if each.strip()]
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidValueException(detail="attributes and excludedAttributes are names.")
    return list(value)


def _whole(given: Mapping[str, Any], name: str, default: int) -> int:
    value = given.get(name)
    if value is None or value == "":
        return default
    text = str(value)
    if isinstance(value, bool) or not text.removeprefix("-").isdecimal() or len(text) > 18:
        raise InvalidValueException(detail=f"{name} must be a whole number.")
    return int(text)


def _filter(text: Any, model: type[Resource[Any]]) -> ScimFilter[Any] | None:
    if text is None or text == "":
        return None
    if not isinstance(text, str) or len(text) > MAX_FILTER:
        raise InvalidFilterException(detail=f"The filter must be text of at most {MAX_FILTER} characters.")
    found: ScimFilter[Any] = ScimFilter.__class_getitem__(model)(text)
    found._validate_semantics()
    if count_terms(found.ast) > MAX_TERMS:
        raise InvalidFilterException(detail=f"The filter may have at most {MAX_TERMS} terms.")
    return found


def count_terms(node: FilterNode) -> int:
    """How many terms there are; each compares with text that the database can hold."""
    if isinstance(node, LogicalExpr):
        return sum(count_terms(each) for each in node.terms)
    if isinstance(node, Not):
        return count_terms(node.expr)
    if isinstance(node, ValuePath):
        return count_terms(node.val_filter)
    if isinstance(node, Comparison) and isinstance(node.value, str):
        require_usable(node.value, "A value in the filter")
    return 1
