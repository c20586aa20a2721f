"""Users that a directory provisions: reading them, patching them, and the facts that are looked up by. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from scim2_models import Context, InvalidValueException, PatchOp, Path, PayloadTooLargeException

from services.identity.model.membership import Role, fold_address
from services.identity.model.scim import documents
from services.identity.model.scim.bodies import require_usable_texts
from services.identity.model.scim.patches import require_bounded
from services.identity.model.scim.resources import ENTERPRISE, MAX_DOCUMENT_BYTES, POLICY, ProvisionedUser

_NEVER_KEPT = ("id", "meta", "groups", "roles", "password")
_USER_NAME = Path[ProvisionedUser]("userName").resolve()  # type: ignore[valid-type]
_MAX_NAME, _MAX_ENTRIES = 256, 50
_MANAGER = f"{ENTERPRISE}:manager".lower()


@dataclass(frozen=True, slots=True)
class ScimUser:
    """A user as a directory has them. `document` is the resource without what we add; `user_id` is the person that
    signed in as them, once somebody has.
    """

    organization_id: UUID
    scim_id: UUID
    document: Mapping[str, Any]
    user_id: UUID | None
    version: int
    created_at: datetime
    modified_at: datetime

    @property
    def active(self) -> bool:
        """Whether they may be a member; where a directory took the attribute away, they may not."""
        return self.document.get("active") is True

    @property
    def user_name(self) -> str:
        """The name that is unique in the organization."""
        return str(self.document["userName"])

    @property
    def external_id(self) -> str:
        """The directory's own id for them; empty where it gave none."""
        return str(self.document.get("externalId", ""))

    @property
    def email(self) -> str:
        """Their primary address, else the one for work, else the first; their name where it looks like one."""
        entries = [each for each in self.document.get("emails", ()) if each.get("value")]
        ranked = sorted(entries, key=lambda each: (not each.get("primary"), each.get("type") != "work"))
        if ranked:
            return str(ranked[0]["value"])
        return self.user_name if "@" in self.user_name else ""

    @property
    def tag(self) -> str:
        """The entity tag."""
        return documents.version_tag(self.version)

    def changed(self, document: Mapping[str, Any], now: datetime) -> ScimUser:
        """The next version."""
        return replace(self, document=document, version=self.version + 1, modified_at=now)

    def columns(self) -> dict[str, Any]:
        """What the database looks them up by."""
        return {
            "user_name": self.user_name,
            "user_name_key": comparable(self.user_name),
            "external_id": self.external_id,
            "display_name_key": comparable(str(self.document.get("displayName", ""))),
            "email_key": fold_address(self.email),
            "active": self.active,
            "document": dict(self.document),
        }


def comparable(text: str) -> str:
    """A name as names are compared: NFC, in lower case (RFC 7643, 2.1)."""
    assert _USER_NAME is not None
    return str(_USER_NAME.comparable(text))


def created_document(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The document of a POST; who is created without `active` is active. Raises SCIMException, ValidationError."""
    return {"active": True, **_read(payload, Context.RESOURCE_CREATION_REQUEST)}


def replaced_document(user: ScimUser, payload: Mapping[str, Any]) -> dict[str, Any]:
    """The document after a PUT; one without `active` neither ends nor begins a membership."""
    document = _read(payload, Context.RESOURCE_REPLACEMENT_REQUEST)
    return document if "active" in document else {**document, "active": user.active}


def _read(payload: Mapping[str, Any], context: Context) -> dict[str, Any]:
    _require_known_roles(payload)
    return _document(ProvisionedUser.model_validate(dict(payload), scim_ctx=context, scim_policy=POLICY))


def patched_user(user: ScimUser, payload: Mapping[str, Any]) -> dict[str, Any] | None:
    """The document after a PATCH, or None where it changes nothing. Raises SCIMException, ValidationError."""
    require_bounded(payload, _MAX_ENTRIES)
    with POLICY:
        patch = PatchOp[ProvisionedUser].model_validate(  # type: ignore[valid-type]
            _in_our_dialect(payload), scim_ctx=Context.RESOURCE_PATCH_REQUEST
        )
        model = ProvisionedUser.model_validate(dict(user.document))
        patch.patch(model)
    document = _document(model)
    return None if document == user.document else document


def _document(model: Any) -> dict[str, Any]:
    document = model.model_dump()
    for name in _NEVER_KEPT:
        document.pop(name, None)
    user_name = str(document.get("userName", ""))
    if not user_name.strip() or len(user_name) > _MAX_NAME:
        raise InvalidValueException(detail=f"userName must have 1 to {_MAX_NAME} characters.")
    for name, value in document.items():
        if isinstance(value, list) and len(value) > _MAX_ENTRIES:
            raise InvalidValueException(detail=f"{name} may have at most {_MAX_ENTRIES} values.")
    require_usable_texts(document)  # A PATCH path holds texts of its own.
    if len(json.dumps(document)) > MAX_DOCUMENT_BYTES:
        raise PayloadTooLargeException(detail=f"The resource is larger than {MAX_DOCUMENT_BYTES} bytes.")
    found: dict[str, Any] = json.loads(json.dumps(document))
    return found


def _require_known_roles(payload: Mapping[str, Any]) -> None:
    """Roles are read-only, so they are ignored; one that there isn't is a mistake that somebody should hear of."""
    given = next((value for name, value in payload.items() if name.lower() == "roles"), None)
    for each in given if isinstance(given, list) else ():
        value = each.get("value") if isinstance(each, dict) else each
        if str(value).upper() not in Role.__members__:
            raise InvalidValueException(detail=f"There is no role {str(value)[:100]!r}. Roles follow from groups.")


def _in_our_dialect(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What Entra sends where RFC 7644 has another form: a manager as a bare id, and an empty one for none."""
    given = dict(payload)
    operations = given.get("Operations")
    if not isinstance(operations, list):
        return given
    given["Operations"] = [_translated(each) if isinstance(each, dict) else each for each in operations]
    return given


def _translated(operation: dict[str, Any]) -> dict[str, Any]:
    path, value = operation.get("path"), operation.get("value")
    if not isinstance(path, str) or path.lower() != _MANAGER or not isinstance(value, str):
        return operation
    return {**operation, "value": {"value": value}} if value else {"op": "remove", "path": path}
