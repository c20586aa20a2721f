"""SAML's own HTTP, as browsers speak it: /saml/{organization}/{provider}/metadata, /login and /acs.

What goes wrong with a sign-in is told to a person who looks at a browser, as a plain text with a name for its cause.
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

from recoup.mesh.v1 import forward_pb2
from services._mesh.errors import Invalid, NotFound, Reason, invalid_field
from services.identity.model.saml.documents import MAX_RESPONSE_BYTES, SamlRefused
from services.identity.model.sso_logins import REQUEST_SECONDS
from services.identity.usecases import saml_logins, saml_requests
from services.identity.usecases.saml_requests import SamlOffice

_TEXT = "text/plain; charset=utf-8"
_METADATA = "application/samlmetadata+xml"
_MAX_FIELDS, _MAX_RELAY_STATE = 10, 200


async def serve(office: SamlOffice, http: forward_pb2.HttpRequest) -> forward_pb2.HttpResponse:
    """Metadata, or the redirect that a sign-in begins with."""
    organization_id, provider_id, what = _where(http.path, ("metadata", "login"))
    query = _fields(http.query.encode(), "(query)")
    if what == "metadata":
        document = await saml_requests.read_sp_metadata(office, organization_id, provider_id)
        return forward_pb2.HttpResponse(status=200, media_type=_METADATA, body=document)
    location, browser = await saml_requests.start_login(
        office,
        organization_id,
        provider_id,
        query.get("code_challenge", ""),
        query.get("return_to", ""),
        anew=query.get("force_authn") == "true",
    )
    answer = _redirect(location)
    answer.cookie.CopyFrom(forward_pb2.HttpCookie(value=browser, max_age_seconds=REQUEST_SECONDS))
    return answer


async def accept(office: SamlOffice, http: forward_pb2.HttpRequest) -> forward_pb2.HttpResponse:
    """The provider's answer, as the browser posts it."""
    organization_id, provider_id, _ = _where(http.path, ("acs",))
    form = _fields(http.body, "(body)")
    relay_state = form.get("RelayState", "")
    try:
        if len(relay_state) > _MAX_RELAY_STATE:
            raise SamlRefused("RELAY_STATE", "RelayState is too long.")
        response = _decoded(form.get("SAMLResponse", ""))
        where = (organization_id, provider_id)
        accepted = await saml_logins.accept_saml_response(office, *where, response, relay_state, http.cookie)
    except SamlRefused as refused:
        return _say(403, f"Sign-in refused ({refused.cause}). {refused.message}")
    if accepted.is_test:
        return _say(200, "The test sign-in passed. You can close this window; nobody was signed in.")
    answer = _redirect(f"{accepted.return_to}?{urlencode({'code': accepted.code})}")
    answer.cookie.CopyFrom(forward_pb2.HttpCookie())  # It was for this one sign-in.
    return answer


def _where(path: str, known: tuple[str, ...]) -> tuple[UUID, UUID, str]:
    """Organization, provider and what is asked for. Raises NotFound for any other path, and any other spelling."""
    parts = path.split("/")
    try:
        _, organization, provider, what = parts
        found = (UUID(organization), UUID(provider))
    except ValueError:
        raise _nothing() from None
    if what not in known or [str(each) for each in found] != [organization, provider]:
        raise _nothing()
    return *found, what


def _nothing() -> NotFound:
    return NotFound(message="Nothing is served at this path.", reason=Reason.ERROR_REASON_ROUTE_NOT_FOUND, metadata={})


def _fields(raw: bytes, where: str) -> dict[str, str]:
    """The fields of a form or query, each at most once. Raises Invalid."""
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError as error:
        raise invalid_field(where, f"must be at most {_MAX_FIELDS} percent-encoded UTF-8 fields.") from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Invalid(Reason.ERROR_REASON_BODY_MALFORMED, "A field came twice.")
    return found


def _decoded(text: str) -> bytes:
    """The response's document. Providers break base64 into lines; nothing else is let by."""
    try:
        raw = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SamlRefused("BASE64", "SAMLResponse isn't base64.") from error
    if not 0 < len(raw) <= MAX_RESPONSE_BYTES:
        raise SamlRefused("TOO_LARGE", f"SAMLResponse must be a document of at most {MAX_RESPONSE_BYTES} bytes.")
    return raw


def _redirect(location: str) -> forward_pb2.HttpResponse:
    return forward_pb2.HttpResponse(status=303, headers=[forward_pb2.HttpHeader(name="location", value=location)])


def _say(status: int, text: str) -> forward_pb2.HttpResponse:
    return forward_pb2.HttpResponse(status=status, media_type=_TEXT, body=text.encode())
