"""XML from outside, read without giving it any power: no DTD, no entities, UTF-8 alone, bounded in every direction.

What is refused is refused before the parser sees it, as far as text can show it. Pure.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from lxml import etree

SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
MD = "urn:oasis:names:tc:SAML:2.0:metadata"
DS = "http://www.w3.org/2000/09/xmldsig#"
XENC = "http://www.w3.org/2001/04/xmlenc#"
POST_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
REDIRECT_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"

MAX_RESPONSE_BYTES = 128 * 1024
MAX_METADATA_BYTES = 256 * 1024
MAX_DEPTH = 40
MAX_ELEMENTS = 5000
MAX_TEXT = 2048

_ENCODING = re.compile(r"""^<\?xml[^>]*\bencoding\s*=\s*["']([^"']*)["']""")
_DECLARATION = re.compile(r"<\?xml\s")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


class SamlRefused(Exception):
    """The document can't be accepted. `cause` is a short name for logs and events; the text holds nothing secret."""

    def __init__(self, cause: str, message: str) -> None:
        super().__init__(message)
        self.cause, self.message = cause, message


def parse(raw: bytes, limit: int) -> etree._Element:
    """The root of a document. Raises SamlRefused for whatever isn't a small, plain, UTF-8 document without a DTD."""
    if len(raw) > limit:
        raise SamlRefused("TOO_LARGE", f"The document has more than {limit} bytes.")
    text = _text_of(raw)
    if "<!doctype" in text.casefold() or "<!entity" in text.casefold():
        raise SamlRefused("DTD", "The document has a DTD or declares entities.")
    if text.count("<?") > bool(_DECLARATION.match(text)):
        raise SamlRefused("PROCESSING_INSTRUCTION", "The document has processing instructions.")
    # What was checked as UTF-8 is read as UTF-8, whatever its declaration says.
    parser = etree.XMLParser(encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(text.encode(), parser=parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise SamlRefused("XML", "The document isn't well-formed XML.") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise SamlRefused("DTD", "The document has a DTD.")
    _bound(root)
    return root


def _text_of(raw: bytes) -> str:
    """The document as text; the parser is never left to guess an encoding."""
    try:
        text = raw.decode("utf-8-sig", errors="strict")
    except UnicodeDecodeError as error:
        raise SamlRefused("CHARSET", "The document isn't UTF-8.") from error
    declared = _ENCODING.match(text)
    if "\0" in text or (declared and declared.group(1).lower() not in ("utf-8", "utf8", "us-ascii")):
        raise SamlRefused("CHARSET", "The document isn't UTF-8, or says that it is something else.")
    return text


def _bound(root: etree._Element) -> None:
    depth, count = 0, 0
    for event, _ in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        count += event == "start"
        if depth > MAX_DEPTH or count > MAX_ELEMENTS:
            raise SamlRefused("TOO_DEEP", f"The document nests deeper than {MAX_DEPTH}, or has too many elements.")


def tag(namespace: str, name: str) -> str:
    """An element's name as lxml has it."""
    return f"{{{namespace}}}{name}"


def text_in(element: etree._Element) -> str:
    """The text of an element that holds nothing but text. Raises SamlRefused."""
    if len(element) or len(element.text or "") > MAX_TEXT:
        raise SamlRefused("TEXT", f"{local_name(element)} must hold a short text and nothing else.")
    return (element.text or "").strip()


def local_name(element: etree._Element) -> str:
    """An element's name without its namespace."""
    return etree.QName(element).localname


def only_child(element: etree._Element, namespace: str, name: str) -> etree._Element:
    """The one child of that name. Raises SamlRefused where there is none, or more than one."""
    found = element.findall(tag(namespace, name))
    if len(found) != 1:
        raise SamlRefused("STRUCTURE", f"{local_name(element)} must have exactly one {name}.")
    return found[0]


def instant(element: etree._Element, name: str) -> datetime | None:
    """A time in an attribute, or None where it isn't there. SAML times are UTC. Raises SamlRefused."""
    value = element.get(name)
    if value is None:
        return None
    if not _INSTANT.fullmatch(value):
        raise SamlRefused("TIME", f"{name} must be a time in UTC, such as 2026-01-31T09:00:00Z.")
    try:
        return datetime.strptime(value[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError as error:
        raise SamlRefused("TIME", f"{name} isn't a time that exists.") from error
