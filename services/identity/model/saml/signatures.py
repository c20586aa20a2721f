"""What of a document is signed, by one of the pinned certificates. Everything else in it is nobody's word.

The shape of each signature is held to a short list before anything is computed from it: a transform is a program that
a stranger sends. Pure.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.verifier import SignatureConfiguration, XMLVerifier

from services.identity.model.saml.certificates import load
from services.identity.model.saml.documents import DS, SAML, SAMLP, SamlRefused, local_name, only_child, tag

log = logging.getLogger(__name__)

EXCLUSIVE_C14N = "http://www.w3.org/2001/10/xml-exc-c14n#"
ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
SIGNATURE_METHODS = frozenset(
    {
        SignatureMethod.RSA_SHA256,
        SignatureMethod.RSA_SHA384,
        SignatureMethod.RSA_SHA512,
        SignatureMethod.ECDSA_SHA256,
        SignatureMethod.ECDSA_SHA384,
        SignatureMethod.ECDSA_SHA512,
    }
)
DIGESTS = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})
_METHOD_NAMES = frozenset(method.value for method in SIGNATURE_METHODS)
_DIGEST_NAMES = frozenset(digest.value for digest in DIGESTS)
_INCLUSIVE = f"{{{EXCLUSIVE_C14N}}}InclusiveNamespaces"
_LOCATIONS = {tag(SAMLP, "Response"): "./", tag(SAML, "Assertion"): f"./{tag(SAML, 'Assertion')}/"}


def verified(
    root: etree._Element, certificates: Sequence[str], now: datetime
) -> tuple[etree._Element | None, etree._Element | None]:
    """The response and the assertion as far as each is signed itself; None for one that isn't.

    Both are new trees, made of the signed bytes alone. Raises SamlRefused where there is no signature, one that isn't
    of the one accepted shape, or one that no pinned certificate verifies.
    """
    require_unique_ids(root)
    signatures = root.findall(f".//{tag(DS, 'Signature')}")
    if not signatures:
        raise SamlRefused("UNSIGNED", "Neither the response nor the assertion is signed.")
    owners = [_owner(root, signature) for signature in signatures]
    if len({id(owner) for owner in owners}) != len(owners):
        raise SamlRefused("SIGNATURE_PLACE", "An element has two signatures.")
    for signature, owner in zip(signatures, owners, strict=True):
        _require_shape(signature, owner)
    found = {owner.tag: _verify(root, owner, certificates, now) for owner in owners}
    return found.get(tag(SAMLP, "Response")), found.get(tag(SAML, "Assertion"))


def require_unique_ids(root: etree._Element) -> None:
    """Raises SamlRefused where two elements have one id, however it is spelled: a reference must mean one element."""
    seen: set[str | bytes] = set()
    for element in root.iter("*"):
        for name, value in element.attrib.items():
            if etree.QName(name).localname.lower() != "id":
                continue
            if value in seen:
                raise SamlRefused("DUPLICATE_ID", "Two elements have the same ID.")
            seen.add(value)


def _owner(root: etree._Element, signature: etree._Element) -> etree._Element:
    """The element that a signature stands in: the response, or its one assertion."""
    parent = signature.getparent()
    allowed = (root, root.find(tag(SAML, "Assertion")))
    if parent is None or parent not in allowed or parent.tag not in _LOCATIONS:
        raise SamlRefused("SIGNATURE_PLACE", "A signature must stand in the response or in its assertion.")
    return parent


def _require_shape(signature: etree._Element, owner: etree._Element) -> None:
    """One reference to the very element that it stands in, the two transforms, algorithms of the list."""
    children = [local_name(child) for child in signature.iterchildren("*")]
    if children not in (["SignedInfo", "SignatureValue"], ["SignedInfo", "SignatureValue", "KeyInfo"]):
        raise SamlRefused("SIGNATURE_SHAPE", "A signature must have SignedInfo, SignatureValue and KeyInfo alone.")
    info = only_child(signature, DS, "SignedInfo")
    _require_algorithm(only_child(info, DS, "CanonicalizationMethod"), frozenset({EXCLUSIVE_C14N}), "TRANSFORM")
    _require_algorithm(only_child(info, DS, "SignatureMethod"), _METHOD_NAMES, "ALGORITHM")
    reference = only_child(info, DS, "Reference")
    if not owner.get("ID") or reference.get("URI") != f"#{owner.get('ID')}":
        raise SamlRefused("REFERENCE", "A signature must be over the element that it stands in.")
    transforms = only_child(reference, DS, "Transforms").findall("*")
    if [each.get("Algorithm") for each in transforms] != [ENVELOPED, EXCLUSIVE_C14N]:
        raise SamlRefused("TRANSFORM", "The transforms must be enveloped-signature and exclusive c14n.")
    for transform in transforms:
        _require_algorithm(transform, frozenset({ENVELOPED, EXCLUSIVE_C14N}), "TRANSFORM")
    _require_algorithm(only_child(reference, DS, "DigestMethod"), _DIGEST_NAMES, "ALGORITHM")


def _require_algorithm(element: etree._Element, allowed: frozenset[str], cause: str) -> None:
    if element.get("Algorithm") not in allowed or any(child.tag != _INCLUSIVE for child in element.iterchildren("*")):
        raise SamlRefused(cause, f"{local_name(element)} isn't one that is accepted (RSA or ECDSA, SHA-256 or more).")


def _verify(root: etree._Element, owner: etree._Element, certificates: Sequence[str], now: datetime) -> etree._Element:
    """The owner as one of the certificates signed it. What KeyInfo says is never used."""
    document = etree.tostring(root)
    config = SignatureConfiguration(
        location=_LOCATIONS[owner.tag],
        expect_references=1,
        signature_methods=SIGNATURE_METHODS,
        digest_algorithms=DIGESTS,
        ignore_ambiguous_key_info=True,
        verification_time=now,
    )
    for pem in certificates:
        try:
            result = XMLVerifier().verify(document, x509_cert=load(pem), expect_config=config)
        except Exception as error:  # Whatever a hostile document makes the verifier raise, it isn't verified.
            log.debug("a signature doesn't hold: %s", type(error).__name__)
            continue
        signed = None if isinstance(result, list) else result.signed_xml
        if signed is not None and signed.tag == owner.tag and signed.get("ID") == owner.get("ID"):
            return signed
    raise SamlRefused("SIGNATURE", "The signature doesn't hold under any certificate of the identity provider.")
