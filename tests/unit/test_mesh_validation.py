"""No string of a request may hold what PostgreSQL's text can't: wherever it stands, its path is named."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, struct_pb2, wrappers_pb2
from google.protobuf.message import Message

from recoup.identity.v1.identity_service_pb2 import ListMembersRequest
from recoup.scanner.v1.scanner_pb2 import AwsAccount, Connection, Finding
from recoup.scanner.v1.scanner_service_pb2 import CreateConnectionRequest, StartScanRequest
from services._mesh.errors import Invalid, Reason
from services._mesh.validation import RequestValidator

VALIDATOR = RequestValidator()
ORG = "3dcd07a2-aef7-54d0-b11c-6638c1b15e53"
NUL = "a\0b"


def _struct(value: Any) -> struct_pb2.Struct:
    made = struct_pb2.Struct()
    made.update(value)
    return made


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (StartScanRequest(organization_id=ORG, connection_id=NUL), "connection_id"),
        (CreateConnectionRequest(regions=["ok", NUL]), "regions[1]"),
        (
            CreateConnectionRequest(aws_accounts=[AwsAccount(), AwsAccount(scan_role_arn=NUL)]),
            "aws_accounts[1].scan_role_arn",
        ),
        (Finding(evidence={"k": NUL}), "evidence[k]"),
        (Finding(evidence={NUL: "v"}), "evidence[a\\u0000b]"),
        # Types that contain themselves, through a map and through lists.
        (_struct({"a": {"b": [1, NUL]}}), "fields[a].struct_value.fields[b].list_value.values[1].string_value"),
        (
            descriptor_pb2.DescriptorProto(
                nested_type=[
                    descriptor_pb2.DescriptorProto(field=[descriptor_pb2.FieldDescriptorProto(name=NUL)]),
                ]
            ),
            "nested_type[0].field[0].name",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_nul_character_is_refused_by_the_path_of_its_string(request_: Message, path: str) -> None:
    with pytest.raises(Invalid) as refused:
        VALIDATOR.check(request_)
    assert refused.value.reason == Reason.ERROR_REASON_FIELD_INVALID
    assert [(each.field, each.description) for each in refused.value.field_violations] == [
        (path, "must not contain a NUL character.")
    ]
    assert "\0" not in refused.value.message


def test_bytes_and_other_control_characters_are_not_refused_for_it() -> None:
    VALIDATOR.prepare(ListMembersRequest)
    for message in (
        ListMembersRequest(organization_id=ORG),
        Connection(display_name="a\nb"),
        struct_pb2.Value(string_value="\x01"),
        wrappers_pb2.BytesValue(value=b"a\0b"),
    ):
        VALIDATOR.check(message)  # Raises nothing; what it says of the same as text:
    with pytest.raises(Invalid):
        VALIDATOR.check(wrappers_pb2.StringValue(value="a\0b"))
