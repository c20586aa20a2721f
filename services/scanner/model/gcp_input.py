"""What people give to connect Google Cloud: a service account's key in JSON. Pure; never says what a secret is.

Only what it says of who it is and the key itself are taken from the JSON. No address in it is ever gone to: one that
isn't Google's own is refused, so that nobody believes it was followed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.scanner.model.cloud import Identity
from services.scanner.model.connection import NewConnection

FIELD = "gcp_service_account_key"
_EMAIL = re.compile(r"[a-z0-9-]{1,64}@(?P<project>[a-z0-9.:-]{4,100})\.gserviceaccount\.com")
_KEY_ID = re.compile(r"[0-9a-f]{8,64}")
_TOKEN_URIS = ("https://oauth2.googleapis.com/token", "https://accounts.google.com/o/oauth2/token")
_UNIVERSE, _MOST_BITS = "googleapis.com", 8192
_OTHERS: Mapping[str, str] = {
    "authorized_user": "is a person's own sign-in; make a key of a service account instead",
    "external_account": "is a federation's configuration, whose addresses aren't followed; give a key",
    "impersonated_service_account": "has another credential in it; give the key of the service account itself",
    "external_account_authorized_user": "is a person's own sign-in; make a key of a service account instead",
    "gdch_service_account": "is of another cloud than Google's public one; give a key of that",
}
_AGAIN = "make a new key of the service account, and give the file as it is"


class KeyRefused(Exception):
    """A key that can't be taken: the rule and the way out, and nothing of the key."""


def read_key(text: str) -> Identity:
    """Who a key is of, and the key. Raises KeyRefused."""
    found = _document(text)
    kind = found.get("type")
    if kind != "service_account":
        said = _OTHERS.get(kind, "") if isinstance(kind, str) else ""
        raise KeyRefused(said or f'must have "service_account" as its type; {_AGAIN}')
    for name, wanted in (("token_uri", _TOKEN_URIS), ("universe_domain", (_UNIVERSE,))):
        if found.get(name, wanted[0]) not in wanted:
            raise KeyRefused(f"has a {name} that isn't Google's own, and no other is gone to; {_AGAIN}")
    names = ("client_email", "project_id", "private_key_id", "private_key")
    if missing := [name for name in names if not isinstance(found.get(name), str) or not found[name]]:
        raise KeyRefused(f"lacks {missing[0]}; {_AGAIN}")
    email, project_id, key_id, key = (found[name] for name in names)
    if not _EMAIL.fullmatch(email):
        raise KeyRefused(f"must have a service account's address as its client_email; {_AGAIN}")
    if not _KEY_ID.fullmatch(key_id):
        raise KeyRefused(f"must have a key's id as its private_key_id; {_AGAIN}")
    if rule := _private_key_fault(key):
        raise KeyRefused(rule)
    return Identity(
        {"service_account": email, "project_id": project_id[:100]}, {"private_key_id": key_id, "private_key": key}
    )


def gcp_faults(given: NewConnection, named: str, key: str) -> Iterator[tuple[str, str]]:
    """Each field that is wrong, with its rule and the way out. `named` is the service account that was named."""
    if not key:
        yield FIELD, f"must be given; {_AGAIN}"
        return
    if given.identity.public.get("workload_identity_provider"):
        yield FIELD, "must be empty where gcp.workload_identity_provider is given; give one of the two"
        return
    try:
        public = read_key(key).public
    except KeyRefused as refused:
        yield FIELD, str(refused)
        return
    projects = [account.account_id for account in given.accounts]
    if named and named != public["service_account"]:
        yield (
            "gcp.service_account",
            f"is {named}, and the key is one of {public['service_account']}; correct one of the two",
        )
    elif not named and projects and public["project_id"] not in projects:
        rule = f"is a key of project {public['project_id']}, which isn't among the projects; give another key, add the "
        yield FIELD, f"{rule}project, or name gcp.service_account to say that it is meant"


def is_service_account(email: str) -> bool:
    """Whether it is the address of one."""
    return _EMAIL.fullmatch(email) is not None


def _document(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("-----BEGIN"):
        raise KeyRefused("is a PEM file; give the JSON that Google made with it")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise KeyRefused(f"must be JSON; {_AGAIN}") from None
    if not isinstance(found, dict):
        raise KeyRefused(f"must be a JSON object; {_AGAIN}")
    return found


def _private_key_fault(key: str) -> str:
    if "\\n" in key:
        return "has a private_key whose line breaks were escaped once more; give the file as Google made it"
    if not key.startswith("-----BEGIN PRIVATE KEY-----") or not key.rstrip().endswith("-----END PRIVATE KEY-----"):
        return f"must have a PRIVATE KEY in PEM as its private_key; {_AGAIN}"
    try:
        made = load_pem_private_key(key.encode(), None, unsafe_skip_rsa_key_validation=True)
    except Exception as error:  # cryptography's own are ValueError, TypeError, and some of its own module.
        if not isinstance(error, (ValueError, TypeError)) and not type(error).__module__.startswith("cryptography"):
            raise
        return f"has a private_key that can't be read; {_AGAIN}"
    is_good = isinstance(made, RSAPrivateKey) and made.key_size <= _MOST_BITS
    return "" if is_good else f"must have an RSA private_key of at most {_MOST_BITS} bits; {_AGAIN}"
