"""Parses and writes the XML of EC2, STS and IAM answers without caring for their namespaces.

It knows no service; callers name the elements that they want.
"""

from __future__ import annotations

import re
from xml.etree import ElementTree

from recoup_local.cloud.proxy.wire import Answer

Element = ElementTree.Element
_NAMESPACE = re.compile(rb'\sxmlns="([^"]*)"')


def parse_answer(answer: Answer) -> tuple[Element, str]:
    """The root element with plain names, and the default namespace that `write_answer` puts back."""
    found = _NAMESPACE.search(answer.body)
    plain = _NAMESPACE.sub(b"", answer.body, count=1)
    root = ElementTree.fromstring(plain)  # noqa: S314 - only moto, a child on loopback, answers here
    return root, found.group(1).decode("utf-8") if found else ""


def write_answer(answer: Answer, root: Element, namespace: str) -> Answer:
    """The answer with its body replaced by `root`; other headers stay."""
    if namespace:
        root.set("xmlns", namespace)
    body = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return Answer(answer.status, body, answer.headers)


def text_of(root: Element, path: str) -> str:
    """The text of the first element under `path`, or ''."""
    return (root.findtext(path) or "").strip()


def set_text(parent: Element, name: str, value: str) -> None:
    """Sets the text of a direct child, made when missing."""
    child = parent.find(name)
    if child is None:
        child = ElementTree.SubElement(parent, name)
    child.text = value


def remove(parent: Element, name: str) -> None:
    """Removes a direct child if there is one."""
    child = parent.find(name)
    if child is not None:
        parent.remove(child)
