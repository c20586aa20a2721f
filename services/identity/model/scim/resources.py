"""The resources that directories provision (RFC 7643), what describes them, and what this service claims to support.

scim2-models has the schemas, the PATCH rules and the filter grammar; here stands only where we differ.
"""

from __future__ import annotations

from typing import Annotated, Any

import scim2_models as scim
from pydantic import Field
from scim2_models import (
    AuthenticationScheme,
    Bulk,
    ChangePassword,
    ComplexAttribute,
    EnterpriseUser,
    ETag,
    Filter,
    Mutability,
    Patch,
    Reference,
    ResourceType,
    Schema,
    ScimPolicy,
    ScimProvider,
    ServiceProviderConfig,
    Sort,
)
from scim2_models.resources.user import Email as AnyEmail
from scim2_models.resources.user import Role as AnyRole

BASE = "/scim/v2"
MAX_PAGE, DEFAULT_PAGE = 200, 100
MAX_OPERATIONS, MAX_PAYLOAD_BYTES = 100, 1_048_576
MAX_DOCUMENT_BYTES = 64 * 1024
MAX_GROUP_MEMBERS = 10_000


class Email(AnyEmail):
    """An address as directories have them: also inside domains that the public internet doesn't know."""

    value: str | None = Field(None, max_length=254, pattern=r"^[^@\s]{1,64}@[^@\s]{1,253}$")


class User(scim.User[Any]):
    """Somebody in a directory. Their roles follow from their groups, so that nobody sets them here."""

    emails: list[Email] | None = None  # type: ignore[assignment]
    roles: Annotated[list[AnyRole] | None, Mutability.read_only] = None


class GroupMember(ComplexAttribute):
    """A user in a group; groups don't nest."""

    value: Annotated[str | None, Mutability.immutable, scim.CaseExact.true] = None
    ref: Annotated[Reference[User] | None, Mutability.immutable] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    type: Annotated[str | None, Mutability.immutable] = Field(None, examples=["User"])
    display: Annotated[str | None, Mutability.read_only] = None


class Group(scim.Group):
    """A group of users."""

    members: list[GroupMember] | None = None  # type: ignore[assignment]


ProvisionedUser: type[User] = User[EnterpriseUser]  # type: ignore[misc]
ENTERPRISE = str(EnterpriseUser.__schema__)
USER_SCHEMA, GROUP_SCHEMA = str(User.__schema__), str(Group.__schema__)
# How Okta and Entra depart from RFC 7644 where it does no harm.
POLICY = ScimPolicy(
    remove_value_as_filter=ScimPolicy.RemoveValue.apply,
    unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
)
CONFIG = ServiceProviderConfig(
    patch=Patch(supported=True),
    bulk=Bulk(supported=True, max_operations=MAX_OPERATIONS, max_payload_size=MAX_PAYLOAD_BYTES),
    filter=Filter(supported=True, max_results=MAX_PAGE),
    change_password=ChangePassword(supported=False),
    sort=Sort(supported=True),
    etag=ETag(supported=True),
    authentication_schemes=[
        AuthenticationScheme(
            name="Bearer token",
            description="A token of one organization, from `recoup scim token create`.",
            type=AuthenticationScheme.Type.oauthbearertoken,
            primary=True,
        )
    ],
)
PROVIDER = ScimProvider(
    models=[User, EnterpriseUser, Group],
    resource_types=[ResourceType.from_resource(ProvisionedUser), ResourceType.from_resource(Group)],
    config=CONFIG,
    policy=POLICY,
)


def resource_types() -> list[ResourceType]:
    """What `/ResourceTypes` lists."""
    return list(PROVIDER.resource_types)


def schemas() -> list[Schema]:
    """What `/Schemas` lists: the resources', and those of what describes them."""
    described = [model.to_schema() for model in (User, EnterpriseUser, Group)]
    return described + [model.to_schema() for model in (ServiceProviderConfig, ResourceType, Schema)]
