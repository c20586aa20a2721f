"""An identity provider of a test's own: keys, metadata, and responses signed with signxml, right or wrong as asked."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, SignatureConstructionMethod
from signxml.signer import XMLSigner

SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
DS = "http://www.w3.org/2000/09/xmldsig#"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
PASSWORD = "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport"
MFA = "urn:example:mfa"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def certificate(key: PrivateKey, name: str, days: int = 365, begun_days: int = 1) -> str:
    """A self-signed certificate in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begins = datetime.now(UTC) - timedelta(days=begun_days)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True)
class Said:
    """What a response says. Tests change one thing at a time."""

    acs_url: str
    audience: str
    in_response_to: str = ""
    name_id: str = "person-1"
    name_id_format: str = PERSISTENT
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    authn_context: str = PASSWORD
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    not_before: datetime | None = None
    not_on_or_after: datetime | None = None
    authn_instant: datetime | None = None
    session_not_on_or_after: datetime | None = None
    destination: str | None = None
    recipient: str | None = None
    issuer: str | None = None
    status: str = SUCCESS
    assertion_id: str = field(default_factory=lambda: f"_{uuid4().hex}")
    response_id: str = field(default_factory=lambda: f"_{uuid4().hex}")


class TestIdp:
    """A provider with one signing key."""

    __test__ = False

    def __init__(self, name: str = "https://idp.example.com/saml", key: PrivateKey | None = None) -> None:
        self.entity_id = name
        self.key: PrivateKey = key or ec.generate_private_key(ec.SECP256R1())
        self.certificate = certificate(self.key, "idp")
        self.sso_url = "https://idp.example.com/sso"

    def metadata(self, **changes: str) -> bytes:
        """The provider's metadata. `changes` replace entity_id, sso_url, certificate or descriptor attributes."""
        bare = "".join(
            line for line in changes.get("certificate", self.certificate).splitlines() if not line.startswith("-----")
        )
        return f"""<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata"
  entityID="{changes.get("entity_id", self.entity_id)}">
 <md:IDPSSODescriptor protocolSupportEnumeration="{SAMLP}" {changes.get("attributes", "")}>
  <md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="{DS}"><ds:X509Data><ds:X509Certificate>{bare}
  </ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>
  <md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
    Location="{changes.get("sso_url", self.sso_url)}"/>
 </md:IDPSSODescriptor>
</md:EntityDescriptor>""".encode()

    def assertion(self, said: Said) -> etree._Element:
        """The assertion, not signed yet."""
        until = said.not_on_or_after or said.now + timedelta(minutes=5)
        root = etree.Element(f"{{{SAML}}}Assertion", nsmap={"saml": SAML}, ID=said.assertion_id, Version="2.0")
        root.set("IssueInstant", stamp(said.now))
        _add(root, "Issuer", said.issuer or self.entity_id)
        root.append(_placeholder())
        subject = _add(root, "Subject")
        _add(subject, "NameID", said.name_id, Format=said.name_id_format)
        confirmation = _add(subject, "SubjectConfirmation", Method="urn:oasis:names:tc:SAML:2.0:cm:bearer")
        answered = {"InResponseTo": said.in_response_to} if said.in_response_to else {}
        recipient = said.acs_url if said.recipient is None else said.recipient
        _add(confirmation, "SubjectConfirmationData", Recipient=recipient, NotOnOrAfter=stamp(until), **answered)
        begins = stamp(said.not_before or said.now - timedelta(minutes=1))
        conditions = _add(root, "Conditions", NotBefore=begins, NotOnOrAfter=stamp(until))
        _add(_add(conditions, "AudienceRestriction"), "Audience", said.audience)
        ends = {"SessionNotOnOrAfter": stamp(e)} if (e := said.session_not_on_or_after) else {}
        statement = _add(root, "AuthnStatement", AuthnInstant=stamp(said.authn_instant or said.now), **ends)
        _add(_add(statement, "AuthnContext"), "AuthnContextClassRef", said.authn_context)
        if said.attributes:
            held = _add(root, "AttributeStatement")
            for name, values in said.attributes.items():
                attribute = _add(held, "Attribute", Name=name)
                for value in values:
                    _add(attribute, "AttributeValue", value)
        return root

    def envelope(self, said: Said, *assertions: etree._Element) -> etree._Element:
        """The response around assertions, not signed yet."""
        root = etree.Element(f"{{{SAMLP}}}Response", nsmap={"samlp": SAMLP}, ID=said.response_id, Version="2.0")
        root.set("IssueInstant", stamp(said.now))
        root.set("Destination", said.acs_url if said.destination is None else said.destination)
        if said.in_response_to:
            root.set("InResponseTo", said.in_response_to)
        _add(root, "Issuer", said.issuer or self.entity_id)
        root.append(_placeholder())
        status = etree.SubElement(root, f"{{{SAMLP}}}Status")
        etree.SubElement(status, f"{{{SAMLP}}}StatusCode", Value=said.status)
        for assertion in assertions:
            root.append(assertion)
        return root

    def sign(self, element: etree._Element, **settings: Any) -> etree._Element:
        """The element with its enveloped signature, where its placeholder stands."""
        method = "rsa-sha256" if isinstance(self.key, rsa.RSAPrivateKey) else "ecdsa-sha256"
        signer = XMLSigner(
            method=SignatureConstructionMethod.enveloped,
            signature_algorithm=settings.get("signature_algorithm", method),
            digest_algorithm=settings.get("digest_algorithm", "sha256"),
            c14n_algorithm=settings.get("c14n", CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0),
        )
        signed: etree._Element = signer.sign(
            element, key=self.key, cert=self.certificate, reference_uri=f"#{element.get('ID')}", id_attribute="ID"
        )
        return signed

    def response(self, said: Said, *, signed: str = "assertion") -> bytes:
        """A whole response: its "assertion", its "response", "both" or "none" signed."""
        assertion = self.assertion(said)
        assertion = self.sign(assertion) if signed in ("assertion", "both") else _bare(assertion)
        response = self.envelope(said, assertion)
        response = self.sign(response) if signed in ("response", "both") else _bare(response)
        return etree.tostring(response)

    def answer(self, location: str, said: Said, **settings: Any) -> dict[str, str]:
        """The form that the provider has the browser post, for the redirect that it was sent with."""
        query = parse_qs(urlsplit(location).query)
        request = etree.fromstring(zlib.decompress(base64.b64decode(query["SAMLRequest"][0]), wbits=-15))
        answered = replace(said, in_response_to=str(request.get("ID")))
        return form(self.response(answered, **settings), query["RelayState"][0])


def form(response: bytes, relay_state: str = "") -> dict[str, str]:
    """The fields that a browser posts."""
    return {"SAMLResponse": base64.b64encode(response).decode(), "RelayState": relay_state}


def stamp(moment: datetime) -> str:
    """A time as SAML writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _add(parent: etree._Element, name: str, text: str | None = None, **attributes: str) -> etree._Element:
    child = etree.SubElement(parent, f"{{{SAML}}}{name}", attributes)
    child.text = text
    return child


def _placeholder() -> etree._Element:
    return etree.Element(f"{{{DS}}}Signature", nsmap={"ds": DS}, Id="placeholder")


def _bare(element: etree._Element) -> etree._Element:
    """Without the placeholder."""
    for child in element.findall(f"{{{DS}}}Signature[@Id='placeholder']"):
        element.remove(child)
    return element
