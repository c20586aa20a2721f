"""What people give to connect Azure and Google Cloud: every fault names its field, the rule and the way out."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.scanner.v1 import scanner_pb2, scanner_service_pb2
from services._mesh.errors import Invalid
from services.broker import federation
from services.scanner import wire
from services.scanner.model.azure_actions import PermissionSet, is_allowed
from services.scanner.model.azure_input import certificate_fault
from services.scanner.model.cloud import Identity, Provider
from services.scanner.model.connection import Account, NewConnection
from services.scanner.model.gcp_input import KeyRefused, read_key
from services.scanner.model.given import faults, plaintext, taken
from tests.support.clouds import (
    CLIENT,
    CLIENT_SECRET,
    DEV,
    EMAIL,
    ISSUER,
    POOL,
    PROD,
    TENANT,
    certificate,
    certificate_pem,
    pem,
    private_key,
    service_account_key,
)

NOW = datetime.now(UTC)
KEY, CERTIFICATE = pem(private_key()), certificate_pem(certificate(private_key()))
_EC = ec.generate_private_key(ec.SECP256R1())
_SMALL = rsa.generate_private_key(65537, 1024)
_ENCRYPTED = private_key().private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"password")
)
_PUBLIC = private_key().public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)  # fmt: skip


def azure(tenant: str = TENANT, **secret: str) -> list[tuple[str, str]]:
    identity = Identity({"tenant_id": tenant, "client_id": CLIENT}, secret)
    made = NewConnection("acme", "", "", (Account(PROD, "", ""),), (), Provider.AZURE, identity)
    return list(faults(made, NOW))


def gcp(text: str | dict[str, Any], *projects: str, named: str = "") -> list[tuple[str, str]]:
    given = text if isinstance(text, str) else json.dumps(text)
    identity = Identity({"service_account": named}, {"key": given})
    accounts = tuple(Account(each, "", "") for each in projects or ("acme-prod",))
    return list(faults(NewConnection("acme", "", "", accounts, (), Provider.GCP, identity), NOW))


def test_what_is_right_has_no_fault() -> None:
    traditional = pem(private_key(), serialization.PrivateFormat.TraditionalOpenSSL)
    assert azure(client_secret=CLIENT_SECRET) == azure(certificate=CERTIFICATE + KEY) == []
    assert azure(certificate=f"bag\n{traditional}\n{CERTIFICATE}") == []
    assert gcp(service_account_key()) == gcp(service_account_key(), "acme-dev", named=EMAIL) == []


@pytest.mark.parametrize(
    ("secret", "field", "rule"),
    [
        ({}, "azure_client_secret", "must be given, or azure_certificate in its stead"),
        ({"client_secret": "x" * 40, "certificate": KEY}, "azure_client_secret", "and not both"),
        ({"client_secret": f" {CLIENT_SECRET}"}, "azure_client_secret", "has a blank or a line break before"),
        ({"client_secret": f"{CLIENT_SECRET}\n"}, "azure_client_secret", "copy it again without"),
        ({"client_secret": DEV}, "azure_client_secret", "must be the secret's value, and is its id; copy it again"),
        ({"client_secret": "two words of it"}, "azure_client_secret", "16 to 256 characters without blanks"),
        ({"certificate": "abc"}, "azure_certificate", "has nothing in PEM; put both into one file"),
        ({"certificate": KEY}, "azure_certificate", "and has a PRIVATE KEY; put both"),
        ({"certificate": CERTIFICATE}, "azure_certificate", "and has a CERTIFICATE; put both"),
        ({"certificate": CERTIFICATE + _PUBLIC.decode()}, "azure_certificate", "has a PUBLIC KEY; export"),
        ({"certificate": CERTIFICATE + _ENCRYPTED.decode()}, "azure_certificate", "take its password off"),
        ({"certificate": CERTIFICATE + pem(_EC, serialization.PrivateFormat.TraditionalOpenSSL)}, "azure_certificate",
         "has a EC PRIVATE KEY; make one with RSA"),
        ({"certificate": CERTIFICATE + pem(_EC)}, "azure_certificate", "of 2048 to 8192 bits; make a new one"),
        ({"certificate": certificate_pem(certificate(_SMALL)) + pem(_SMALL)}, "azure_certificate", "2048 to 8192 bits"),
        ({"certificate": CERTIFICATE + pem(private_key(1))}, "azure_certificate", "the key is another certificate's"),
        ({"certificate": certificate_pem(certificate(private_key(), -1)) + KEY}, "azure_certificate", "is expired"),
        ({"certificate": CERTIFICATE + KEY.replace("MII", "MJJ", 1)}, "azure_certificate", "can't be read; export"),
    ],
)  # fmt: skip
def test_a_fault_of_azure_names_its_field_the_rule_and_the_way_out(
    secret: dict[str, str], field: str, rule: str
) -> None:
    ((found, said),) = azure(**secret)
    assert (found, rule in said) == (field, True), said
    assert "canary0003" not in said


def test_an_application_is_no_directory() -> None:
    assert [field for field, _ in azure(CLIENT.upper(), client_secret=CLIENT_SECRET)] == ["azure.client_id"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "must be given"),
        ("{", "must be JSON"),
        ("[" * 5000, "must be JSON"),
        ("[1]", "must be a JSON object"),
        (KEY, "is a PEM file; give the JSON"),
        (service_account_key(type="authorized_user"), "is a person's own sign-in"),
        (service_account_key(type="external_account"), "addresses aren't followed"),
        (service_account_key(type=["service_account"]), 'must have "service_account" as its type'),
        (service_account_key(token_uri="https://tokens.example.com/token"), "has a token_uri that isn't Google's own"),
        (service_account_key(token_uri="https://169.254.169.254/token"), "has a token_uri that isn't Google's own"),
        (service_account_key(universe_domain="example.com"), "has a universe_domain that isn't Google's own"),
        (service_account_key(client_email="a@example.com"), "must have a service account's address"),
        (service_account_key(private_key_id="../x"), "must have a key's id"),
        (service_account_key(private_key=None), "lacks private_key;"),
        (service_account_key(project_id=7), "lacks project_id;"),
        (service_account_key(private_key=KEY.replace("\n", "\\n")), "line breaks were escaped once more"),
        (service_account_key(private_key=_PUBLIC.decode()), "must have a PRIVATE KEY in PEM"),
        (service_account_key(private_key=KEY.replace("MII", "MJJ", 1)), "can't be read"),
        (service_account_key(private_key=pem(_EC)), "must have an RSA private_key"),
        (service_account_key(project_id="acme-dev"), "is a key of project acme-dev, which isn't among the projects"),
    ],
    ids=lambda each: each if isinstance(each, str) and len(each) < 80 else "",
)
def test_a_fault_of_a_google_key_names_its_field_the_rule_and_the_way_out(text: Any, rule: str) -> None:
    ((field, said),) = gcp(text)
    assert (field, rule in said) == ("gcp_service_account_key", True), said
    assert "; " in said
    assert KEY[40:80] not in said


def test_a_key_of_another_service_account_than_is_named() -> None:
    ((field, rule),) = gcp(service_account_key(), named="x@acme-prod.iam.gserviceaccount.com")
    assert (field, rule.endswith(f"the key is one of {EMAIL}; correct one of the two")) == ("gcp.service_account", True)


def test_no_address_of_a_key_is_sealed() -> None:
    """The token service's address among them, even where it is Google's own."""
    identity = Identity({"service_account": ""}, {"key": json.dumps(service_account_key(evil="https://example.com"))})
    made = taken(NewConnection("acme", "", "", (Account("acme-prod", "", ""),), (), Provider.GCP, identity))
    sealed = plaintext("", made)
    assert b"http" not in sealed
    assert json.loads(sealed)["scopes"] == ["acme-prod"]
    assert made.access_key_id == service_account_key()["private_key_id"]
    assert KEY[40:80] not in repr(made) + repr(made.identity)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("gcp", {"azure": {"tenant_id": TENANT}, "gcp": {"service_account": EMAIL}}),
        ("aws_accounts", {"azure": {"tenant_id": TENANT}, "aws_accounts": [{"account_id": "1" * 12}]}),
        ("azure_client_secret", {"gcp": {"service_account": EMAIL}, "azure_client_secret": CLIENT_SECRET}),
        ("gcp_service_account_key", {"aws_accounts": [{"account_id": "1" * 12}], "gcp_service_account_key": "{}"}),
    ],
)
def test_a_connection_is_of_one_cloud(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        wire.new_connection(scanner_service_pb2.CreateConnectionRequest(**given))
    assert caught.value.field_violations[0].field == field
    assert "make a connection for each cloud" in caught.value.field_violations[0].description


def test_aws_still_needs_an_account_and_a_region() -> None:
    made = wire.new_connection(scanner_service_pb2.CreateConnectionRequest(regions=["westeurope"]))
    assert [field for field, _ in faults(made, NOW)] == ["aws_accounts", "regions[0]"]
    assert scanner_pb2.Connection().provider == ""


@pytest.mark.parametrize(
    ("actions", "not_actions", "allowed"),
    [
        (["*"], [], True),
        (["*/read"], [], True),
        (["microsoft.COMPUTE/disks/READ"], [], True),
        (["Microsoft.Compute/*"], [], True),
        (["Microsoft.Compute/disks"], [], False),
        (["Microsoft.Compute/disks/read/action"], [], False),
        (["Microsoft.Network/*/read"], [], False),
        (["*"], ["Microsoft.Compute/*"], False),
        (["*"], ["microsoft.compute/disks/read"], False),
        (["*"], ["Microsoft.Compute/disks/write"], True),
        (["Microsoft.Compute/disks.read"], [], False),
        ([], [], False),
    ],
)
def test_what_azure_allows_goes_by_wildcards_and_what_is_taken_off(
    actions: list[str], not_actions: list[str], allowed: bool
) -> None:
    assert is_allowed("Microsoft.Compute/disks/read", [PermissionSet(actions, not_actions)]) is allowed
    # What one assignment takes off, another one gives.
    assert is_allowed("Microsoft.Compute/disks/read", [PermissionSet(actions, not_actions), PermissionSet(["*"], [])])


def federated(provider: Provider, **public: str) -> list[tuple[str, str]]:
    made = NewConnection("acme", "", "", (), (), provider, Identity(public))
    return list(faults(made, NOW, can_federate=True))


def test_without_a_secret_the_cloud_is_to_trust_us_where_we_are_an_issuer() -> None:
    ids = {"tenant_id": TENANT, "client_id": CLIENT}
    assert federated(Provider.AZURE, **ids) == []
    assert [field for field, _ in federated(Provider.AZURE, tenant_id=CLIENT, client_id=CLIENT)] == ["azure.client_id"]
    named = {"service_account": EMAIL, "workload_identity_provider": POOL}
    assert federated(Provider.GCP, **named) == []
    assert [field for field, _ in federated(Provider.GCP, service_account=EMAIL)] == ["gcp_service_account_key"]
    wrong = federated(Provider.GCP, **{**named, "service_account": "a@example.com"})
    assert [field for field, _ in wrong] == ["gcp.service_account"]
    # Where we're none, a secret is needed.
    assert [field for field, _ in azure()] == ["azure_client_secret"]
    identity = Identity(named, {"key": json.dumps(service_account_key())})
    both = NewConnection("acme", "", "", (Account("acme-prod", "", ""),), (), Provider.GCP, identity)
    assert [field for field, _ in faults(both, NOW, can_federate=True)] == ["gcp_service_account_key"]


@pytest.mark.filterwarnings("ignore:Key size")  # The library only warns.
def test_the_issuers_documents_are_written_with_the_public_halves_of_its_keys(tmp_path: Path) -> None:
    for number, key in enumerate((private_key(), private_key(1))):
        (tmp_path / f"{number}.pem").write_text(pem(key))
    (tmp_path / "small.pem").write_text(pem(_SMALL))
    keys, out = [str(tmp_path / "0.pem"), str(tmp_path / "1.pem")], tmp_path / "out"
    assert federation.main(["--issuer", ISSUER, "--out", str(out), *keys]) == 0
    assert json.loads((out / ".well-known" / "openid-configuration").read_text())["issuer"] == ISSUER
    published = json.loads((out / "jwks.json").read_text())["keys"]
    assert [set(each) for each in published] == [{"kty", "n", "e", "kid", "alg", "use"}] * 2
    for wrong in ("small.pem", "nothing.pem", "out/jwks.json"):
        assert federation.main(["--issuer", ISSUER, "--out", str(out), str(tmp_path / wrong)]) == 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=20), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(service_account_key())), _JSON, max_size=3))
def test_a_mutated_google_key_is_read_or_refused_and_nothing_else(changes: dict[str, Any]) -> None:
    try:
        made = read_key(json.dumps(service_account_key(**changes)))
    except KeyRefused:
        return
    assert made.public["service_account"].endswith(".gserviceaccount.com")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200), st.integers(0, 1500), st.integers(0, 300), st.booleans())
def test_a_mutated_certificate_is_taken_or_refused_and_nothing_else(
    inserted: str, at: int, removed: int, raw: bool
) -> None:
    whole = CERTIFICATE + KEY
    said = certificate_fault(inserted if raw else whole[:at] + inserted + whole[at + removed :], NOW)
    assert isinstance(said, str)
    assert KEY[40:80] not in said
