"""Resources as they go out: their metadata, and only the attributes that were asked for (RFC 7644, 3.9). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from scim2_models import InvalidValueException

from services.identity.model.scim.resources import BASE

_LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
# Returned whatever is asked for.
_ALWAYS = frozenset({"id", "schemas"})
_MAX_NAMES = 100
_NAME = re.compile(
    r"(?:(?P<urn>urn:[a-z0-9:._-]+):)?(?P<attribute>[a-z$][a-z0-9$_-]*)(?:\.(?P<sub>[a-z$][a-z0-9$_-]*))?"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which attributes an answer holds. Of `included` and `excluded` at most one is given; names are in lower case.

    A name is (URN of an extension or "", attribute, sub-attribute or ""); an extension alone has no attribute.
    """

    included: frozenset[tuple[str, str, str]] = frozenset()
    excluded: frozenset[tuple[str, str, str]] = frozenset()

    def has(self, attribute: str) -> bool:
        """Whether an attribute of the core schema is wanted at all, so that it need be read."""
        names = attribute.lower()
        if self.included:
            return any(not urn and name == names for urn, name, _ in self.included)
        return ("", names, "") not in self.excluded


def wanted(included: Iterable[str], excluded: Iterable[str], core: str) -> Wanted:
    """What `attributes` and `excludedAttributes` ask for. `core` is the URN of the resource's own schema."""
    first, second = list(included), list(excluded)
    if first and second:
        raise InvalidValueException(detail="Ask for attributes or for excludedAttributes, not for both.")
    if len(first) + len(second) > _MAX_NAMES:
        raise InvalidValueException(detail=f"At most {_MAX_NAMES} attributes can be named.")
    return Wanted(frozenset(_name(each, core) for each in first), frozenset(_name(each, core) for each in second))


def _name(text: str, core: str) -> tuple[str, str, str]:
    lowered = text.strip().lower()
    if lowered.startswith("urn:") and lowered.endswith(":user"):
        return ("", "", "") if lowered == core.lower() else (lowered, "", "")
    found = _NAME.fullmatch(lowered)
    if found is None:
        raise InvalidValueException(detail=f"{text[:100]!r} isn't the name of an attribute.")
    urn = found["urn"] or ""
    return "" if urn == core.lower() else urn, found["attribute"], found["sub"] or ""


def projected(document: Mapping[str, Any], asked: Wanted) -> dict[str, Any]:
    """The part of a resource that is wanted."""
    if not asked.included and not asked.excluded:
        return dict(document)
    found = {}
    for name, value in document.items():
        lowered = name.lower()
        if lowered in _ALWAYS:
            found[name] = value
        elif lowered.startswith("urn:"):
            kept = {k: part for k, v in value.items() if (part := _part(v, asked, lowered, k.lower())) is not None}
            if kept and (lowered, "", "") not in asked.excluded:
                found[name] = kept
        elif (part := _part(value, asked, "", lowered)) is not None:
            found[name] = part
    return found


def _part(value: Any, asked: Wanted, urn: str, name: str) -> Any:
    """What is wanted of an attribute; None where nothing is."""
    if asked.included:
        if (urn, name, "") in asked.included or (urn and (urn, "", "") in asked.included):
            return value
        subs = {sub for u, n, sub in asked.included if (u, n) == (urn, name)}
        return _cut(value, lambda sub: sub in subs) if subs else None
    if (urn, name, "") in asked.excluded:
        return None
    subs = {sub for u, n, sub in asked.excluded if (u, n) == (urn, name)}
    return _cut(value, lambda sub: sub not in subs) if subs else value


def _cut(value: Any, keep: Any) -> Any:
    if isinstance(value, list):
        return [part for each in value if (part := _cut(each, keep))] or None
    if isinstance(value, dict):
        return {name: each for name, each in value.items() if keep(name.lower())} or None
    return None


def location(kind: str, identifier: UUID | str) -> str:
    """Where a resource is: `kind` is "Users" or "Groups"."""
    return f"{BASE}/{kind}/{identifier}"


def version_tag(version: int) -> str:
    """The entity tag of a version. Weak: what was asked for decides what is in an answer."""
    return f'W/"{version}"'


def matches(tag: str, given: str) -> bool:
    """Whether a list of entity tags names this one (RFC 9110, 13.1: compared weakly, ours hold no comma)."""
    names = (each.strip().removeprefix("W/") for each in given.split(","))
    return given.strip() == "*" or tag.removeprefix("W/") in names


def meta(kind: str, identifier: UUID, version: int, created: datetime, modified: datetime) -> dict[str, str]:
    """A resource's metadata."""
    return {
        "resourceType": kind.removesuffix("s"),
        "created": stamp(created),
        "lastModified": stamp(modified),
        "location": location(kind, identifier),
        "version": version_tag(version),
    }


def stamp(moment: datetime) -> str:
    """A moment as RFC 3339 has it, to the millisecond."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def page(resources: list[dict[str, Any]], total: int, start: int) -> dict[str, Any]:
    """A list response."""
    return {
        "schemas": [_LIST],
        "totalResults": total,
        "startIndex": start,
        "itemsPerPage": len(resources),
        "Resources": resources,
    }
