"""Our request for a sign-in, as a redirect (SAML bindings 3.4). Pure."""

from __future__ import annotations

import base64
import zlib
from datetime import datetime
from urllib.parse import urlencode

from lxml import etree

from services.identity.model.saml.documents import POST_BINDING, SAML, SAMLP, tag


def authn_request(
    request_id: str, sp_entity_id: str, acs_url: str, sso_url: str, now: datetime, *, anew: bool = False
) -> bytes:
    """The request's document; `anew`: the person must authenticate now, whatever session they have there.

    It isn't signed: its answer is believed by its own signature, and by this id.
    """
    root = etree.Element(
        tag(SAMLP, "AuthnRequest"),
        nsmap={"samlp": SAMLP, "saml": SAML},
        ID=request_id,
        Version="2.0",
        IssueInstant=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        Destination=sso_url,
        AssertionConsumerServiceURL=acs_url,
        ProtocolBinding=POST_BINDING,
    )
    if anew:
        root.set("ForceAuthn", "true")
    etree.SubElement(root, tag(SAML, "Issuer")).text = sp_entity_id
    return etree.tostring(root)


def redirect_url(sso_url: str, request: bytes, relay_state: str) -> str:
    """Where to send the browser with it."""
    compressor = zlib.compressobj(wbits=-15)
    deflated = compressor.compress(request) + compressor.flush()
    query = urlencode({"SAMLRequest": base64.b64encode(deflated).decode(), "RelayState": relay_state})
    return f"{sso_url}{'&' if '?' in sso_url else '?'}{query}"
