"""Checks requests against the limits in their protos (buf.validate), and names the fields that break them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import Message

from services._mesh.errors import FieldViolation, Invalid, Reason

if TYPE_CHECKING:
    from protovalidate import Validator, Violation

_MAX_VIOLATIONS = 10


class RequestValidator:
    """Validates messages natively; the rules of a type are compiled when it is first prepared."""

    def __init__(self) -> None:
        import protovalidate

        self._validator: Validator = protovalidate.Validator()

    def prepare(self, request: type[Message]) -> None:
        """Compiles the rules of a type, so that a broken rule stops the process instead of a call."""
        self._validator.collect_violations(request())

    def check(self, request: Message) -> None:
        """Raises Invalid with FIELD_INVALID and the violations, by path."""
        violations = self._validator.collect_violations(request)
        if violations:
            fields = [_field(each) for each in violations[:_MAX_VIOLATIONS]]
            first = fields[0]
            raise Invalid(
                Reason.ERROR_REASON_FIELD_INVALID, f"{first.field}: {first.description}", field_violations=fields
            )


def _field(violation: Violation) -> FieldViolation:
    """The violation with its path as people write it: "filter.regions[0]"."""
    path = ""
    field = violation.proto.field
    for element in field.elements if field is not None else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return FieldViolation(path, violation.proto.message)
