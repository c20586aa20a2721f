"""Documents that anybody may read: security.txt, the description of the API, and a page to try it on.

The page's scripts come from a locked package and are served from here: it asks no other address for anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from services.gateway import coding

PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OPENAPI = Path(__file__).with_name("openapi.json")
_TEXT, _HTML, _SCRIPT, _STYLE = ("text/plain", "text/html", "text/javascript", "text/css")
_SECURITY_TXT = b"""Contact: mailto:security@recoup.invalid
Expires: 2027-12-31T23:59:59Z
Preferred-Languages: en
"""
_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Recoup API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="api"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
# Nothing is asked elsewhere (validatorUrl), and no credential is kept in the browser's storage.
_START = b"""SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#api", deepLinking: true, docExpansion: "none", filter: true, validatorUrl: null,
  persistAuthorization: false, defaultModelsExpandDepth: 0,
});
"""


@dataclass(frozen=True)
class Page:
    """One document, in every coding that is worth it, with its tag. `policy` is its Content-Security-Policy, if it has
    one of its own.
    """

    media_type: str
    body: bytes
    policy: bytes = b""
    tag: str = ""
    coded: Mapping[str, bytes] = field(default_factory=dict)


def page(media_type: str, body: bytes, policy: bytes = b"") -> Page:
    """A document, coded once."""
    coded = {name: coding.encode(body, name) for name in coding.CODINGS} if coding.is_worth(media_type, body) else {}
    if not media_type.startswith("application/"):
        media_type += "; charset=utf-8"
    return Page(media_type, body, policy, hashlib.sha256(body).hexdigest()[:32], coded)


def pages() -> dict[str, Page]:
    """All of them, by path."""
    scripts = _scripts()
    return {
        "/.well-known/security.txt": page(_TEXT, _SECURITY_TXT),
        "/openapi.json": page("application/json", _OPENAPI.read_bytes()),
        "/docs": page(_HTML, _PAGE, PAGE_POLICY),
        "/docs/start.js": page(_SCRIPT, _START),
        "/docs/swagger-ui-bundle.js": page(_SCRIPT, (scripts / "swagger-ui-bundle.js").read_bytes()),
        "/docs/swagger-ui.css": page(_STYLE, (scripts / "swagger-ui.css").read_bytes()),
    }


def _scripts() -> Path:
    """Where the package has them; none of its code is imported."""
    found = find_spec("swagger_ui")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("swagger-ui-py isn't installed: install the locked requirements")
    return Path(found.submodule_search_locations[0]) / "static"
