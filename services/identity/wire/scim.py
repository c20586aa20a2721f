"""Between SCIM's messages and its model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import unquote
from uuid import UUID

from recoup.identity.v1 import scim_service_pb2 as pb
from recoup.mesh.v1 import forward_pb2
from services._mesh.times import stamp
from services.identity.model.scim.answers import Answer, Request
from services.identity.model.scim.roles import GroupRole
from services.identity.model.scim.tokens import ScimToken
from services.identity.wire.members import role, role_message

_MEDIA_TYPE = "application/scim+json"


def token(found: ScimToken) -> pb.ScimToken:
    """A token's facts as they are read."""
    return pb.ScimToken(
        token_id=str(found.token_id),
        name=found.name,
        created_by=str(found.created_by),
        created_at=stamp(found.created_at),
        expires_at=stamp(found.expires_at),
        revoked_at=stamp(found.revoked_at) if found.revoked_at else None,
        last_used_at=stamp(found.last_used_at) if found.last_used_at else None,
    )


def roles(messages: Iterable[pb.ScimRole]) -> list[GroupRole]:
    """What groups stand for, from the wire."""
    return [
        GroupRole(each.group, role(each.role), UUID(each.custom_role_id) if each.custom_role_id else None)
        for each in messages
    ]


def role_messages(found: Iterable[GroupRole]) -> list[pb.ScimRole]:
    """What groups stand for, for the wire."""
    return [
        pb.ScimRole(group=each.group, role=role_message(each.role), custom_role_id=str(each.custom_role_id or ""))
        for each in found
    ]


def request(message: forward_pb2.HttpRequest) -> Request | None:
    """A request; None for a path that isn't one."""
    if message.path in ("", "/"):
        segments: tuple[str, ...] = ()
    else:
        try:
            segments = tuple(unquote(each, errors="strict") for each in message.path.removeprefix("/").split("/"))
        except UnicodeDecodeError:
            return None
    headers = {each.name: each.value for each in message.headers}
    return Request(message.method, segments, message.query, headers, message.body)


def response(answer: Answer) -> forward_pb2.HttpResponse:
    """An answer."""
    body = b"" if answer.document is None else json.dumps(answer.document, ensure_ascii=False).encode()
    headers = [forward_pb2.HttpHeader(name=name, value=value) for name, value in answer.headers.items()]
    media_type = "" if answer.document is None else _MEDIA_TYPE
    return forward_pb2.HttpResponse(status=answer.status, headers=headers, media_type=media_type, body=body)
