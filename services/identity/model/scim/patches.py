"""The bounds of a PATCH, before anything of it is looked for: how many operations, and how long their paths. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scim2_models import InvalidPathException, InvalidValueException, Path

from services.identity.model.scim.queries import MAX_FILTER, MAX_TERMS, count_terms

MAX_OPERATIONS = 100


def require_bounded(payload: Mapping[str, Any], most_values: int) -> None:
    """Raise InvalidValueException or InvalidPathException for a PATCH with too many operations, for one whose path is
    too long or has too many terms, and for more than `most_values` values at once: a path is compared with all of them.
    Names count in any case, as whoever reads the PATCH takes them.
    """
    for name, operations in payload.items():
        if name.lower() != "operations" or not isinstance(operations, list):
            continue
        if len(operations) > MAX_OPERATIONS:
            raise InvalidValueException(detail=f"A PATCH may have at most {MAX_OPERATIONS} operations.")
        for each in operations:
            if isinstance(each, dict):
                _require_bounded(each, most_values)


def _require_bounded(operation: Mapping[str, Any], most_values: int) -> None:
    for name, value in operation.items():
        if name.lower() == "path" and isinstance(value, str):
            _require_bounded_path(value)
        if name.lower() != "value":
            continue
        for path, each in value.items() if isinstance(value, dict) else (("", value),):
            _require_bounded_path(path)
            if isinstance(each, list) and len(each) > most_values:
                raise InvalidValueException(detail=f"An operation may have at most {most_values} values.")


def _require_bounded_path(text: str) -> None:
    if len(text) > MAX_FILTER:
        raise InvalidPathException(detail=f"A path may have at most {MAX_FILTER} characters.")
    if "[" not in text and " " not in text:
        return
    selected = Path(text).value_filter
    if selected is not None and count_terms(selected) > MAX_TERMS:
        raise InvalidPathException(detail=f"A path's filter may have at most {MAX_TERMS} terms.")
