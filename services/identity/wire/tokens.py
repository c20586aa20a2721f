"""Service accounts and API tokens between their messages and the model."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from recoup.identity.v1 import token_service_pb2 as pb
from services._mesh.times import stamp
from services.identity.model.api_tokens import ApiToken, NewToken, ServiceAccount


def service_account(found: ServiceAccount) -> pb.ServiceAccount:
    """A service account as it is read."""
    return pb.ServiceAccount(
        service_account_id=str(found.service_account_id),
        organization_id=str(found.organization_id),
        display_name=found.display_name,
        owner_user_id=str(found.owner_user_id),
        state=pb.ServiceAccountState.Value(f"SERVICE_ACCOUNT_STATE_{found.state}"),
        etag=found.etag,
        created_at=stamp(found.created_at),
    )


def token(found: ApiToken, wall_now: datetime) -> pb.Token:
    """A token as it stands at `wall_now`."""
    return pb.Token(
        token_id=str(found.token_id),
        organization_id=str(found.organization_id),
        display_name=found.display_name,
        service_account_id=str(found.service_account_id or ""),
        creator_user_id=str(found.creator_user_id),
        permissions=sorted(found.permissions),
        connection_ids=sorted(str(each) for each in found.connection_ids),
        state=pb.TokenState.Value(f"TOKEN_STATE_{found.standing(wall_now)}"),
        created_at=stamp(found.created_at),
        expires_at=stamp(found.expires_at),
        last_used_at=None if found.last_used_at is None else stamp(found.last_used_at),
        replaced_by_token_id=str(found.replaced_by or ""),
        hint=found.hint,
    )


def new_token(request: pb.CreateTokenRequest) -> NewToken:
    """What somebody asks for."""
    return NewToken(
        request.display_name,
        frozenset(request.permissions),
        frozenset(UUID(each) for each in request.connection_ids),
        moment(request.expires_at),
        UUID(request.service_account_id) if request.service_account_id else None,
    )


def moment(message: Timestamp) -> datetime:
    """A moment from the wire, to the second: passports know no less."""
    return datetime.fromtimestamp(message.seconds, UTC)
