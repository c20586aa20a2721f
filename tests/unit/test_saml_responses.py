"""What a SAML response must be to be believed; each refusal names the control that made it."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from lxml import etree

from services.identity.model.saml.documents import SamlRefused, parse
from services.identity.model.saml.responses import Assertion, Expected, read_response
from tests.support.saml_idp import DS, MFA, SAML, SAMLP, Said, TestIdp, certificate

NOW = datetime.now(UTC).replace(microsecond=0)
ACS = "https://recoup.example.com/saml/o/i/acs"
SP = "https://recoup.example.com/saml/o/i/metadata"
IDP = TestIdp()
EXPECTED = Expected(SP, ACS, IDP.entity_id, (IDP.certificate,), NOW)
SIGNED = ("assertion", "response", "both")


def said(**changes: Any) -> Said:
    return replace(Said(ACS, SP, "_request", now=NOW, attributes={"email": ["ada@acme.example"]}), **changes)


def refused(raw: bytes, expected: Expected = EXPECTED) -> str:
    with pytest.raises(SamlRefused) as caught:
        read_response(raw, expected)
    return caught.value.cause


@pytest.mark.parametrize("signed", SIGNED)
def test_a_good_response_is_read(signed: str) -> None:
    found = read_response(IDP.response(said(authn_context=MFA), signed=signed), EXPECTED)
    assert found.name_id == "person-1"
    assert found.in_response_to == "_request"
    assert found.authn_context == MFA
    assert found.attributes == {"email": ("ada@acme.example",)}
    assert (found.authenticated_at, found.usable_until) == (NOW, NOW + timedelta(minutes=5))


@pytest.mark.parametrize("key", [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())])
def test_rsa_and_other_curves_are_read(key: Any) -> None:
    idp = TestIdp(key=key)
    assert read_response(idp.response(said()), replace(EXPECTED, certificates=(idp.certificate,))).name_id == "person-1"


def test_the_second_of_two_pinned_certificates_does() -> None:
    other = TestIdp()
    both = replace(EXPECTED, certificates=(other.certificate, IDP.certificate))
    assert read_response(IDP.response(said()), both).name_id == "person-1"
    assert refused(IDP.response(said()), replace(EXPECTED, certificates=(other.certificate,))) == "SIGNATURE"


def test_unsigned_is_refused() -> None:
    assert refused(IDP.response(said(), signed="none")) == "UNSIGNED"


def test_the_attackers_own_key_in_keyinfo_is_refused() -> None:
    attacker = TestIdp(IDP.entity_id)
    for signed in SIGNED:
        assert refused(attacker.response(said(), signed=signed)) == "SIGNATURE"


def test_an_expired_certificate_signs_nothing() -> None:
    old = certificate(IDP.key, "idp", days=10, begun_days=20)
    assert refused(IDP.response(said()), replace(EXPECTED, certificates=(old,))) == "SIGNATURE"


def test_a_changed_value_is_refused() -> None:
    for signed in SIGNED:
        raw = IDP.response(said(), signed=signed)
        assert refused(raw.replace(b"person-1", b"person-2")) == "SIGNATURE"


def test_a_comment_in_the_name_cuts_nothing_off() -> None:
    """CVE-2018-0489 and its kin: canonical XML has no comments, and a reader that stops at one reads another name."""
    raw = IDP.response(said(name_id="admin@acme.example.evil.example"))
    commented = raw.replace(b"admin@acme.example.evil", b"admin@acme.example<!-- -->.evil")
    assert commented != raw
    assert read_response(commented, EXPECTED).name_id == "admin@acme.example.evil.example"


# XML signature wrapping: XSW 1 to 8 as "On Breaking SAML" numbers them.


def parts(signed: str) -> tuple[Any, Any, Any]:
    """A signed response, its assertion, and a forged assertion about somebody else."""
    root = etree.fromstring(IDP.response(said(), signed=signed))
    original = root.find(f"{{{SAML}}}Assertion")
    evil = copy.deepcopy(original)
    evil.set("ID", "_evil")
    evil.find(f".//{{{SAML}}}NameID").text = "victim"
    return root, original, evil


def without_signature(element: Any) -> Any:
    for signature in element.findall(f"{{{DS}}}Signature"):
        element.remove(signature)
    return element


def evil_response(root: Any) -> Any:
    evil = copy.deepcopy(root)
    evil.set("ID", "_evil")
    evil.find(f".//{{{SAML}}}NameID").text = "victim"
    return evil


def xsw1() -> Any:
    """The original response within the forged one's signature."""
    root, _, _ = parts("response")
    evil = evil_response(root)
    signature = evil.find(f"{{{DS}}}Signature")
    signature.append(without_signature(copy.deepcopy(root)))
    return evil


def xsw2() -> Any:
    """The original response beside the signature in the forged one."""
    root, _, _ = parts("response")
    evil = evil_response(root)
    evil.find(f"{{{DS}}}Signature").addprevious(without_signature(copy.deepcopy(root)))
    return evil


def xsw3() -> Any:
    root, original, evil = parts("assertion")
    original.addprevious(without_signature(evil))
    return root


def xsw4() -> Any:
    root, original, evil = parts("assertion")
    without_signature(evil)
    root.replace(original, evil)
    evil.append(original)
    return root


def xsw5() -> Any:
    root, original, evil = parts("assertion")
    root.replace(original, evil)
    root.append(without_signature(original))
    return root


def xsw6() -> Any:
    root, original, evil = parts("assertion")
    root.replace(original, evil)
    evil.find(f"{{{DS}}}Signature").append(without_signature(original))
    return root


def xsw7() -> Any:
    root, original, evil = parts("assertion")
    extensions = etree.Element(f"{{{SAMLP}}}Extensions")
    extensions.append(without_signature(evil))
    original.addprevious(extensions)
    return root


def xsw8() -> Any:
    root, original, evil = parts("assertion")
    signature = original.find(f"{{{DS}}}Signature")
    root.replace(original, evil)
    without_signature(evil)
    evil.insert(1, signature)
    inner = etree.SubElement(signature, f"{{{DS}}}Object")
    inner.append(original)
    return root


WRAPPED = [xsw1, xsw2, xsw3, xsw4, xsw5, xsw6, xsw7, xsw8]


def victim(read: Assertion) -> bool:
    return read.name_id == "victim"


@pytest.mark.parametrize("wrap", WRAPPED, ids=lambda wrap: wrap.__name__)
def test_signature_wrapping_is_refused(wrap: Any) -> None:
    assert refused(etree.tostring(wrap())) in ("STRUCTURE", "SIGNATURE_SHAPE", "SIGNATURE_PLACE", "REFERENCE")


@pytest.mark.parametrize("wrap", WRAPPED, ids=lambda wrap: wrap.__name__)
def test_no_wrapping_ever_yields_the_victim(wrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the look at the structure, what is read is still the signed element alone."""
    monkeypatch.setattr("services.identity.model.saml.responses._require_structure", lambda root: None)
    try:
        read = read_response(etree.tostring(wrap()), EXPECTED)
    except SamlRefused:
        return
    assert not victim(read)


@pytest.mark.parametrize("spelling", ["ID", "Id", "id", "{http://www.w3.org/XML/1998/namespace}id"])
def test_a_duplicate_id_is_refused(spelling: str) -> None:
    root = etree.fromstring(IDP.response(said()))
    root.find(f"{{{SAMLP}}}Status").set(spelling, root.find(f"{{{SAML}}}Assertion").get("ID"))
    assert refused(etree.tostring(root)) == "DUPLICATE_ID"


def test_two_assertions_are_refused() -> None:
    two = [IDP.sign(IDP.assertion(said(assertion_id=f"_{name}"))) for name in "ab"]
    assert refused(etree.tostring(IDP.sign(IDP.envelope(said(), *two)))) == "STRUCTURE"


def test_an_encrypted_assertion_is_refused_with_the_way_out() -> None:
    root = etree.fromstring(IDP.response(said()))
    assertion = root.find(f"{{{SAML}}}Assertion")
    root.replace(assertion, etree.Element(f"{{{SAML}}}EncryptedAssertion"))
    with pytest.raises(SamlRefused, match="turn its encryption off") as caught:
        read_response(etree.tostring(root), EXPECTED)
    assert caught.value.cause == "ENCRYPTED"


XSLT = """<xsl:stylesheet xmlns:xsl="http://www.w3.org/1999/XSL/Transform" version="1.0"><xsl:template match="/">
<xsl:for-each select="//*"><xsl:for-each select="//*"><xsl:for-each select="//*"/></xsl:for-each></xsl:for-each>
</xsl:template></xsl:stylesheet>"""


def with_transform(algorithm: str, content: str = "", *, instead: bool = False) -> bytes:
    root = etree.fromstring(IDP.response(said()))
    transforms = root.find(f".//{{{DS}}}Transforms")
    added = etree.Element(f"{{{DS}}}Transform", Algorithm=algorithm)
    if content:
        added.append(etree.fromstring(content))
    if instead:
        transforms[1] = added
    else:
        transforms.append(added)
    return etree.tostring(root)


@pytest.mark.parametrize("instead", [True, False])
@pytest.mark.parametrize(
    ("algorithm", "content"),
    [
        ("http://www.w3.org/TR/1999/REC-xslt-19991116", XSLT),
        ("http://www.w3.org/TR/1999/REC-xpath-19991116", f'<ds:XPath xmlns:ds="{DS}">//*[//*[//*]]</ds:XPath>'),
        ("http://www.w3.org/2000/09/xmldsig#base64", ""),
        ("http://www.w3.org/2001/10/xml-exc-c14n#WithComments", ""),
        ("http://www.w3.org/TR/2001/REC-xml-c14n-20010315", ""),
    ],
)
def test_transforms_beyond_the_two_are_refused_before_anything_is_computed(
    algorithm: str, content: str, instead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.identity.model.saml.signatures._verify", lambda *_: pytest.fail("it was computed"))
    assert refused(with_transform(algorithm, content, instead=instead)) == "TRANSFORM"


def test_a_stylesheet_within_an_accepted_transform_is_refused() -> None:
    raw = with_transform("http://www.w3.org/2001/10/xml-exc-c14n#", XSLT, instead=True)
    assert refused(raw) == "TRANSFORM"


@pytest.mark.parametrize(
    "replacement",
    [
        (b"xmldsig-more#ecdsa-sha256", b"xmldsig-more#ecdsa-sha1"),
        (b"2001/04/xmldsig-more#ecdsa-sha256", b"2000/09/xmldsig#hmac-sha1"),
        (b"2001/04/xmldsig-more#ecdsa-sha256", b"2001/04/xmldsig-more#hmac-sha256"),
        (b"2001/04/xmlenc#sha256", b"2000/09/xmldsig#sha1"),
    ],
)
def test_weak_algorithms_are_refused(replacement: tuple[bytes, bytes]) -> None:
    raw = IDP.response(said())
    assert replacement[0] in raw
    assert refused(raw.replace(*replacement)) == "ALGORITHM"


def test_a_reference_elsewhere_is_refused() -> None:
    raw = IDP.response(said(assertion_id="_mine", response_id="_other"))
    for uri in (b"", b"#_other", b"#xpointer(/)", b"https://evil.example/a.xml", b"file:///etc/passwd"):
        assert refused(raw.replace(b'URI="#_mine"', b'URI="' + uri + b'"')) == "REFERENCE"


BILLION_LAUGHS = b"""<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>"""


# Markup that only a reader of UTF-7 sees. The text that was matched ends with what looks like a good declaration.
UTF_7 = b"""<?xml version="1.0" encoding="UTF-7" ?+AD4-+ADw-+ACE-DOCTYPE r +AFs-+ADw-+ACE-ENTITY a "x"+AD4-+AF0-+AD4-"""
UTF_7 += b"""+ADw-r encoding="utf-8"+AD4-+ADw-/r+AD4-"""


@pytest.mark.parametrize("raw", [UTF_7, UTF_7.decode().encode("utf-16"), UTF_7.decode().encode("utf-16-le")])
def test_no_declared_encoding_hides_a_dtd(raw: bytes) -> None:
    with pytest.raises(SamlRefused) as caught:
        parse(raw, 1000)
    assert caught.value.cause in ("XML", "CHARSET")


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (BILLION_LAUGHS + IDP.response(said()), "DTD"),
        (b'<!DOCTYPE r SYSTEM "file:///etc/passwd">' + IDP.response(said()), "DTD"),
        # Before anything is parsed: what is no DTD to a parser either.
        (b'<a><!ENTITY x "y"></a>', "DTD"),
        (b"<?xml-stylesheet href='x'?>" + IDP.response(said()), "PROCESSING_INSTRUCTION"),
        (IDP.response(said()).decode().encode("utf-16"), "CHARSET"),
        (b"<?xml version='1.0' encoding='UTF-7'?>" + IDP.response(said()), "CHARSET"),
        (b"\xff\xfe" + IDP.response(said()), "CHARSET"),
        (IDP.response(said())[:-20], "XML"),
        (b"", "XML"),
        (b"<a>" * 100 + b"</a>" * 100, "TOO_DEEP"),
        (b"<a>" * 100_000, "TOO_LARGE"),
        (b"<a>" * 20_000, "XML"),
        (b"<a>" + b"<b/>" * 6000 + b"</a>", "TOO_DEEP"),
        (b"<a>" + b"x" * 200_000 + b"</a>", "TOO_LARGE"),
        (IDP.metadata(), "STRUCTURE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_documents_are_refused(raw: bytes, cause: str) -> None:
    assert refused(raw) == cause


@pytest.mark.parametrize("signed", SIGNED)
@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"audience": "https://recoup.example.com/saml/o/other/metadata"}, "AUDIENCE"),
        ({"recipient": "https://recoup.example.com/saml/o/other/acs"}, "RECIPIENT"),
        ({"recipient": ""}, "RECIPIENT"),
        ({"destination": "https://recoup.example.com/saml/o/other/acs"}, "DESTINATION"),
        ({"destination": ""}, "DESTINATION"),
        ({"issuer": "https://other.example.com/saml"}, "ISSUER"),
        ({"status": "urn:oasis:names:tc:SAML:2.0:status:Responder"}, "STATUS"),
        ({"name_id": ""}, "NAME_ID"),
        ({"name_id": "x" * 1000}, "NAME_ID"),
        ({"not_on_or_after": NOW + timedelta(days=3)}, "LIFETIME"),
        ({"session_not_on_or_after": NOW - timedelta(seconds=1)}, "EXPIRED"),
        ({"attributes": {f"a{n}": ["x"] for n in range(300)}}, "TOO_LARGE"),
    ],
)
def test_what_isnt_for_us_now_is_refused(changes: dict[str, Any], cause: str, signed: str) -> None:
    assert refused(IDP.response(said(**changes), signed=signed)) == cause


@pytest.mark.parametrize("minutes", [-2, 2])
def test_two_minutes_of_skew_are_allowed(minutes: int) -> None:
    shifted = NOW + timedelta(minutes=minutes)
    window = {"not_before": shifted, "not_on_or_after": shifted + timedelta(seconds=1)}
    raw = IDP.response(said(now=shifted, **window))
    read = read_response(raw, EXPECTED)
    assert read.authenticated_at == min(shifted, NOW)


@pytest.mark.parametrize(("minutes", "cause"), [(-10, "EXPIRED"), (10, "NOT_YET")])
def test_ten_minutes_of_skew_are_refused(minutes: int, cause: str) -> None:
    shifted = NOW + timedelta(minutes=minutes)
    window = {"not_before": shifted, "not_on_or_after": shifted + timedelta(seconds=1)}
    assert refused(IDP.response(said(now=shifted, **window))) == cause
    assert refused(IDP.response(said(**window))) == cause


def test_response_and_assertion_must_answer_the_same_request() -> None:
    raw = IDP.response(said())
    assert refused(raw.replace(b'InResponseTo="_request"', b'InResponseTo="_other"', 1)) == "IN_RESPONSE_TO"


@pytest.mark.parametrize("within", ["Subject", "Conditions", "Issuer"])
def test_a_signature_anywhere_else_is_refused(within: str) -> None:
    """A signature that holds, over the assertion, where it doesn't belong."""
    root = etree.fromstring(IDP.response(said()))
    assertion = root.find(f"{{{SAML}}}Assertion")
    assertion.find(f"{{{SAML}}}{within}").append(assertion.find(f"{{{DS}}}Signature"))
    assert refused(etree.tostring(root)) == "SIGNATURE_PLACE"


@pytest.mark.parametrize("order", [(1,), (0,), (1, 0), (0, 0), (0, 1, 1), ()])
def test_transforms_are_the_two_in_their_order(order: tuple[int, ...]) -> None:
    root = etree.fromstring(IDP.response(said()))
    transforms = root.find(f".//{{{DS}}}Transforms")
    kept = [copy.deepcopy(transforms[place]) for place in order]
    del transforms[:]
    transforms.extend(kept)
    assert refused(etree.tostring(root)) == "TRANSFORM"


def test_an_assertion_of_another_provider_in_this_ones_response_is_refused() -> None:
    foreign = IDP.sign(IDP.assertion(said(issuer="https://other.example.com/saml")))
    root = IDP.envelope(said(), foreign)
    root.remove(root.find(f"{{{DS}}}Signature[@Id='placeholder']"))
    assert refused(etree.tostring(root)) == "ISSUER"
