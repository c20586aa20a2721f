"""A response of an identity provider: who it says signed in. Read from the signed element alone (OASIS SAML 2.0). Pure.

Whether its request was ours and its ids are new is the store's to say; both are given back for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from lxml import etree

from services.identity.model.saml import signatures
from services.identity.model.saml.documents import (
    MAX_RESPONSE_BYTES,
    SAML,
    SAMLP,
    XENC,
    SamlRefused,
    instant,
    only_child,
    parse,
    tag,
    text_in,
)

SKEW = timedelta(minutes=3)
MAX_LIFETIME = timedelta(hours=24)
EMAIL_FORMAT = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
TRANSIENT_FORMAT = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
_SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
_BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
_ENCRYPTED = (tag(SAML, "EncryptedAssertion"), tag(SAML, "EncryptedID"), tag(SAML, "EncryptedAttribute"))
_CONDITIONS = frozenset({"AudienceRestriction", "OneTimeUse", "ProxyRestriction"})
_MAX_ATTRIBUTES, _MAX_VALUES, _MAX_NAME = 200, 1000, 512


@dataclass(frozen=True, slots=True)
class Expected:
    """What a response must be about: us, the provider, and now (wall clock)."""

    sp_entity_id: str
    acs_url: str
    idp_entity_id: str
    certificates: tuple[str, ...]
    now: datetime


@dataclass(frozen=True, slots=True)
class Assertion:
    """What the provider says, as far as it is signed. `in_response_to` is empty where nothing of ours is answered."""

    assertion_id: str
    in_response_to: str
    name_id: str
    name_id_format: str
    authn_context: str
    authenticated_at: datetime
    session_ends_at: datetime | None
    usable_until: datetime
    attributes: Mapping[str, tuple[str, ...]]


def read_response(raw: bytes, expected: Expected) -> Assertion:
    """The assertion in a response. Raises SamlRefused that names the first rule that it breaks."""
    root = parse(raw, MAX_RESPONSE_BYTES)
    _require_structure(root)
    response, assertion = signatures.verified(root, expected.certificates, expected.now)
    signed = assertion if assertion is not None else _assertion_of(response)
    # Status, Destination and the like are the response's: signed where it is, and only compared where it isn't.
    answered = _check_response(response if response is not None else root, expected)
    found = _read_assertion(signed, expected)
    if found.in_response_to != answered:
        raise SamlRefused("IN_RESPONSE_TO", "Response and assertion answer different requests.")
    return found


def unverified_request_id(raw: bytes) -> str:
    """What a response says that it answers: nobody's word, good for finding a test that is to be told why it failed."""
    try:
        return parse(raw, MAX_RESPONSE_BYTES).get("InResponseTo", "")[:_MAX_NAME]
    except SamlRefused:
        return ""


def _require_structure(root: etree._Element) -> None:
    """One response with one assertion in it, and no place for another one anywhere."""
    if root.tag != tag(SAMLP, "Response"):
        raise SamlRefused("STRUCTURE", "The document isn't a SAML 2.0 response.")
    if any(True for _ in root.iter(*_ENCRYPTED, f"{{{XENC}}}*")):
        raise SamlRefused(
            "ENCRYPTED", "The assertion is encrypted, which isn't supported: turn its encryption off; TLS protects it."
        )
    if len(list(root.iter(tag(SAMLP, "Response")))) != 1:
        raise SamlRefused("STRUCTURE", "There must be one response.")
    _require_success(root)
    assertions = list(root.iter(tag(SAML, "Assertion")))
    if len(assertions) != 1 or assertions[0].getparent() is not root:
        raise SamlRefused("STRUCTURE", "There must be exactly one assertion, directly in the response.")


def _require_success(response: etree._Element) -> None:
    status = only_child(only_child(response, SAMLP, "Status"), SAMLP, "StatusCode")
    if status.get("Value") != _SUCCESS:
        raise SamlRefused("STATUS", "The identity provider didn't let the person in.")


def _assertion_of(response: etree._Element | None) -> etree._Element:
    if response is None:
        raise SamlRefused("UNSIGNED", "Neither the response nor the assertion is signed.")
    return only_child(response, SAML, "Assertion")


def _check_response(response: etree._Element, expected: Expected) -> str:
    """Holds the response to us; returns the request that it answers, or nothing."""
    _require_version(response)
    _require_success(response)
    issuers = response.findall(tag(SAML, "Issuer"))
    if len(issuers) > 1 or any(text_in(issuer) != expected.idp_entity_id for issuer in issuers):
        raise SamlRefused("ISSUER", "The response is of another identity provider.")
    if response.get("Destination") != expected.acs_url:
        raise SamlRefused("DESTINATION", "The response is meant for another address.")
    issued = instant(response, "IssueInstant")
    if issued is None or issued > expected.now + SKEW:
        raise SamlRefused("NOT_YET", "The response was issued in the future.")
    return response.get("InResponseTo", "")


def _require_version(element: etree._Element) -> None:
    if element.get("Version") != "2.0":
        raise SamlRefused("VERSION", "Only SAML 2.0 is spoken here.")


def _read_assertion(assertion: etree._Element, expected: Expected) -> Assertion:
    _require_version(assertion)
    assertion_id = assertion.get("ID", "")
    if not 0 < len(assertion_id) <= _MAX_NAME:
        raise SamlRefused("STRUCTURE", "The assertion has no ID, or one that is too long.")
    if text_in(only_child(assertion, SAML, "Issuer")) != expected.idp_entity_id:
        raise SamlRefused("ISSUER", "The assertion is of another identity provider.")
    subject = only_child(assertion, SAML, "Subject")
    name_id = only_child(subject, SAML, "NameID")
    name = text_in(name_id)
    if not 0 < len(name) <= _MAX_NAME:
        raise SamlRefused("NAME_ID", "The assertion's NameID is empty or too long.")
    answered, confirmed_until = _confirmation(subject, expected)
    usable_until = min(confirmed_until, _check_conditions(only_child(assertion, SAML, "Conditions"), expected))
    statement = only_child(assertion, SAML, "AuthnStatement")
    authenticated_at, ends_at = _authentication(statement, expected.now)
    return Assertion(
        assertion_id,
        answered,
        name,
        name_id.get("Format", "")[:_MAX_NAME],
        text_in(only_child(only_child(statement, SAML, "AuthnContext"), SAML, "AuthnContextClassRef")),
        authenticated_at,
        ends_at,
        usable_until,
        _attributes(assertion),
    )


def _confirmation(subject: etree._Element, expected: Expected) -> tuple[str, datetime]:
    """The one bearer confirmation: for our address, not over, and what it answers."""
    bearers = [each for each in subject.findall(tag(SAML, "SubjectConfirmation")) if each.get("Method") == _BEARER]
    if len(bearers) != 1:
        raise SamlRefused("CONFIRMATION", "The assertion must have exactly one bearer confirmation.")
    data = only_child(bearers[0], SAML, "SubjectConfirmationData")
    if data.get("Recipient") != expected.acs_url:
        raise SamlRefused("RECIPIENT", "The assertion is meant for another address.")
    return data.get("InResponseTo", ""), _window(data, expected.now)


def _check_conditions(conditions: etree._Element, expected: Expected) -> datetime:
    ends_at = _window(conditions, expected.now)
    if any(etree.QName(each).localname not in _CONDITIONS for each in conditions.iterchildren("*")):
        raise SamlRefused("CONDITION", "The assertion has a condition that we don't know.")
    restrictions = conditions.findall(tag(SAML, "AudienceRestriction"))
    for restriction in restrictions:
        audiences = [text_in(each) for each in restriction.findall(tag(SAML, "Audience"))]
        if expected.sp_entity_id not in audiences:
            raise SamlRefused("AUDIENCE", "The assertion is meant for another service.")
    if not restrictions:
        raise SamlRefused("AUDIENCE", "The assertion doesn't say for which service it is.")
    return ends_at


def _window(element: etree._Element, now: datetime) -> datetime:
    """The end of a time window that we are in, give or take the clocks' skew."""
    begins, ends = instant(element, "NotBefore"), instant(element, "NotOnOrAfter")
    if ends is None or ends > now + MAX_LIFETIME:
        raise SamlRefused("LIFETIME", "The assertion doesn't end within a day.")
    if begins is not None and begins > now + SKEW:
        raise SamlRefused("NOT_YET", "The assertion isn't valid yet. Are the clocks right?")
    if ends <= now - SKEW:
        raise SamlRefused("EXPIRED", "The assertion isn't valid any more. Are the clocks right?")
    return ends


def _authentication(statement: etree._Element, now: datetime) -> tuple[datetime, datetime | None]:
    """When the person proved who they are (never later than now), and when the provider says that this is over."""
    at, ends = instant(statement, "AuthnInstant"), instant(statement, "SessionNotOnOrAfter")
    if at is None or at > now + SKEW:
        raise SamlRefused("NOT_YET", "The assertion doesn't say when the person signed in, or says it is yet to come.")
    if ends is not None and ends <= now:
        raise SamlRefused("EXPIRED", "The session at the identity provider is over.")
    return min(at, now), ends


def _attributes(assertion: etree._Element) -> dict[str, tuple[str, ...]]:
    """All attributes by name, in order. Complex values are left out; too many are refused."""
    found: dict[str, list[str]] = {}
    values = 0
    for attribute in assertion.findall(f"{tag(SAML, 'AttributeStatement')}/{tag(SAML, 'Attribute')}"):
        name = attribute.get("Name", "")[:_MAX_NAME]
        held = [text_in(each) for each in attribute.findall(tag(SAML, "AttributeValue")) if not len(each)]
        values += len(held)
        if len(found) >= _MAX_ATTRIBUTES or values > _MAX_VALUES:
            raise SamlRefused("TOO_LARGE", "The assertion has too many attributes.")
        found.setdefault(name, []).extend(held)
    return {name: tuple(held) for name, held in found.items()}
