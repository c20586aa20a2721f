"""Whatever is sent, a SAML document is read rightly or refused: never another person, never another kind of failure."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lxml import etree

from services._mesh.errors import Invalid
from services.identity.model.saml.documents import SamlRefused
from services.identity.model.saml.metadata import read_metadata
from services.identity.model.saml.responses import Expected, read_response, unverified_request_id
from services.identity.model.sso import domain_name, domain_of
from services.identity.model.sso_tokens import CODE_PREFIX, SESSION_PREFIX, digest, organization_of
from services.identity.rpc.saml import _decoded, _fields
from tests.support.saml_idp import SAML, Said, TestIdp

NOW = datetime.now(UTC).replace(microsecond=0)
IDP = TestIdp()
EXPECTED = Expected("urn:sp", "https://sp.example/acs", IDP.entity_id, (IDP.certificate,), NOW)
SAID = Said(EXPECTED.acs_url, EXPECTED.sp_entity_id, "_request", now=NOW, attributes={"email": ["ada@acme.example"]})
GOOD = {signed: IDP.response(SAID, signed=signed) for signed in ("assertion", "response", "both")}
METADATA = IDP.metadata()
READ = {signed: read_response(raw, EXPECTED) for signed, raw in GOOD.items()}
bounded = settings(max_examples=100, deadline=None, derandomize=True)

_PIECES = st.binary(max_size=12) | st.sampled_from([b"<!-- -->", b"&#0;", b"<a>"])
edits = st.lists(
    st.tuples(
        st.integers(0, 10_000),
        st.integers(0, 40),
        _PIECES,
    ),
    min_size=1,
    max_size=4,
)


def edited(raw: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, put in changes:
        at %= len(raw) + 1
        raw = raw[:at] + put + raw[at + length :]
    return raw


@bounded
@given(st.sampled_from(sorted(GOOD)), edits)
def test_an_edited_response_says_the_same_or_nothing(signed: str, changes: list[tuple[int, int, bytes]]) -> None:
    raw = edited(GOOD[signed], changes)
    try:
        found = read_response(raw, EXPECTED)
    except SamlRefused:
        return
    assert found == READ[signed]


@bounded
@given(st.sampled_from(sorted(GOOD)), st.randoms(use_true_random=False))
def test_a_rearranged_response_says_the_same_or_nothing(signed: str, random: object) -> None:
    """Elements are copied and moved to where they don't belong, and the copies speak of somebody else."""
    root = etree.fromstring(GOOD[signed])
    for _ in range(random.randint(1, 3)):  # type: ignore[attr-defined]
        elements = list(root.iter("*"))
        source, target = random.choice(elements), random.choice(elements)  # type: ignore[attr-defined]
        copied = etree.fromstring(etree.tostring(source))
        for name in copied.iter(f"{{{SAML}}}NameID"):
            name.text = "victim"
        if random.random() < 0.5:  # type: ignore[attr-defined]
            copied.attrib.pop("ID", None)
        target.insert(random.randint(0, len(target)), copied)  # type: ignore[attr-defined]
    try:
        found = read_response(etree.tostring(root), EXPECTED)
    except SamlRefused:
        return
    assert found == READ[signed]


@bounded
@given(st.binary(max_size=2000) | st.text(max_size=500).map(lambda text: text.encode("utf-16")))
@example(b"<?xml version='1.0' encoding='utf-16'?><a/>")
@example(b"\xef\xbb\xbf<a/>")
def test_noise_is_refused(raw: bytes) -> None:
    with pytest.raises(SamlRefused):
        read_response(raw, EXPECTED)
    with pytest.raises(SamlRefused):
        read_metadata(raw, NOW)
    assert isinstance(unverified_request_id(raw), str)


@bounded
@given(edits)
def test_edited_metadata_is_read_or_refused(changes: list[tuple[int, int, bytes]]) -> None:
    try:
        found = read_metadata(edited(METADATA, changes), NOW)
    except SamlRefused:
        return
    assert found.sso_url.startswith("https://")
    assert 0 < len(found.certificates) <= 5


@bounded
@given(st.binary(max_size=500), st.text(max_size=500))
def test_forms_and_base64_are_read_or_refused(raw: bytes, text: str) -> None:
    for given_form in (raw, text.encode()):
        with suppress(Invalid):
            fields = _fields(given_form, "(body)")
            assert _fields(urlencode(fields).encode(), "(body)") == fields
    with suppress(SamlRefused):
        assert b64encode(_decoded(text)).decode() == "".join(text.split())


@bounded
@given(st.text(max_size=300))
def test_names_and_addresses_have_one_spelling_or_none(text: str) -> None:
    with suppress(Invalid):
        assert domain_name(domain_name(text)) == domain_name(text)
    with suppress(SamlRefused):
        assert domain_name(domain_of(f"{text}@acme.example")) == "acme.example"
        assert "@" not in text


@bounded
@given(st.text(max_size=200) | st.binary(max_size=60).map(lambda raw: raw.hex()))
def test_what_isnt_a_token_names_no_organization(text: str) -> None:
    for prefix in (SESSION_PREFIX, CODE_PREFIX):
        organization_of(prefix, prefix + text)
        assert organization_of(prefix, text) is None or text.startswith(prefix)
    assert len(digest(text)) == 32


def test_a_code_is_no_session_and_a_session_no_code() -> None:
    assert organization_of(SESSION_PREFIX, CODE_PREFIX + "A" * 64) is None
    assert organization_of(CODE_PREFIX, SESSION_PREFIX + "A" * 64) is None
    assert organization_of(SESSION_PREFIX, SESSION_PREFIX + "A" * 64) is not None


def test_another_providers_words_are_never_taken() -> None:
    other = TestIdp(IDP.entity_id)
    for raw in GOOD.values():
        with pytest.raises(SamlRefused):
            read_response(raw, replace(EXPECTED, certificates=(other.certificate,)))
