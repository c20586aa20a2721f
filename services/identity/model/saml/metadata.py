"""Metadata: what an identity provider's says, and ours for it. An import takes its name, address and keys, no more.

So that importing never weakens anything: what it says about signing, encryption, formats or attributes is not read.
Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from lxml import etree

from services.identity.model.saml.certificates import MAX_CERTIFICATES, read_certificate
from services.identity.model.saml.documents import (
    DS,
    MAX_METADATA_BYTES,
    MD,
    POST_BINDING,
    REDIRECT_BINDING,
    SAMLP,
    SamlRefused,
    instant,
    only_child,
    parse,
    tag,
)

_ADDRESS = re.compile(r"https://[^\s\"'<>\\^`{|}#]{1,2000}")
_ENTITY = re.compile(r"[^\s\x00-\x1f]{1,1024}")


@dataclass(frozen=True, slots=True)
class ProviderMetadata:
    """What is taken from a provider's metadata. Certificates are PEM, in order, none twice."""

    entity_id: str
    sso_url: str
    certificates: tuple[str, ...]


def read_metadata(raw: bytes, now: datetime) -> ProviderMetadata:
    """The provider that a metadata document describes. Raises SamlRefused that says what is amiss."""
    root = parse(raw, MAX_METADATA_BYTES)
    if root.tag != tag(MD, "EntityDescriptor"):
        raise SamlRefused("METADATA", "The document must be the metadata of one entity (EntityDescriptor).")
    descriptor = only_child(root, MD, "IDPSSODescriptor")
    for element in (root, descriptor):
        until = instant(element, "validUntil")
        if until is not None and until <= now:
            raise SamlRefused("METADATA", "The metadata isn't valid any more (validUntil). Get a fresh copy.")
    entity_id = root.get("entityID", "")
    if not _ENTITY.fullmatch(entity_id):
        raise SamlRefused("METADATA", "The metadata has no usable entityID.")
    if SAMLP not in descriptor.get("protocolSupportEnumeration", "").split():
        raise SamlRefused("METADATA", "The identity provider doesn't speak SAML 2.0.")
    return ProviderMetadata(entity_id, _sso_url(descriptor), _certificates(descriptor))


def _sso_url(descriptor: etree._Element) -> str:
    services = descriptor.findall(tag(MD, "SingleSignOnService"))
    found = [each.get("Location", "") for each in services if each.get("Binding") == REDIRECT_BINDING]
    if len(found) != 1 or not _ADDRESS.fullmatch(found[0]):
        raise SamlRefused("METADATA", "The metadata must name one https address for HTTP-Redirect sign-in.")
    return found[0]


def _certificates(descriptor: etree._Element) -> tuple[str, ...]:
    held = [each for each in descriptor.findall(tag(MD, "KeyDescriptor")) if each.get("use") in (None, "signing")]
    path = f"{tag(DS, 'KeyInfo')}/{tag(DS, 'X509Data')}/{tag(DS, 'X509Certificate')}"
    found = dict.fromkeys(_certificate(each) for key in held for each in key.findall(path))
    if not 0 < len(found) <= MAX_CERTIFICATES:
        raise SamlRefused("METADATA", f"The metadata must have 1 to {MAX_CERTIFICATES} signing certificates.")
    return tuple(found)


def _certificate(element: etree._Element) -> str:
    if len(element.text or "") > 16_384:
        raise SamlRefused("CERTIFICATE", "A signing certificate is too large.")
    return read_certificate(element.text or "")


def sp_metadata(entity_id: str, acs_url: str) -> bytes:
    """Our own metadata for one provider: it must sign its assertions, and post them to one address."""
    root = etree.Element(tag(MD, "EntityDescriptor"), nsmap={"md": MD}, entityID=entity_id)
    descriptor = etree.SubElement(
        root,
        tag(MD, "SPSSODescriptor"),
        AuthnRequestsSigned="false",
        WantAssertionsSigned="true",
        protocolSupportEnumeration=SAMLP,
    )
    etree.SubElement(
        descriptor,
        tag(MD, "AssertionConsumerService"),
        Binding=POST_BINDING,
        Location=acs_url,
        index="0",
        isDefault="true",
    )
    return etree.tostring(root, xml_declaration=True, encoding="UTF-8")
