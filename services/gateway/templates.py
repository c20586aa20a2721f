"""Path templates by the grammar of `google.api.http`: read once, when the process starts. Pure, and knows no message.

A path is decoded once: a variable of one segment wholly, one of several keeps its encoded slashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

ONE, MANY = "*", "**"
_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()+,;@-]+")
_FIELD_PATH = re.compile(r"[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*")
_PART = re.compile(r"\{[^{}]*\}|[^{}/]+")
_ENCODED_SLASH = re.compile("%(2f)", re.IGNORECASE)
_NOT_ENCODED = re.compile("%(?![0-9A-Fa-f]{2})")
_STEPS = frozenset({".", ".."})
_MAYBE_STEP = re.compile("/(\\.|%2e)", re.IGNORECASE)


class RouteError(Exception):
    """A route that can't be served: its template is wrong, or another one shadows it."""


@dataclass(frozen=True)
class Variable:
    """What a path says of one field: the segments from `start` to before `end`, or to the last where that is None."""

    path: str
    start: int
    end: int | None
    is_single: bool

    def value(self, segments: Sequence[str]) -> str:
        """The decoded text. Raises UnicodeDecodeError where it isn't UTF-8."""
        raw = segments[self.start] if self.is_single else "/".join(segments[self.start : self.end])
        if "%" not in raw:
            return raw
        return unquote(raw if self.is_single else _ENCODED_SLASH.sub(r"%25\1", raw), errors="strict")


@dataclass(frozen=True)
class Template:
    """A template: each segment is a literal, "*" or "**", which only the last one may be."""

    text: str
    segments: tuple[str, ...]
    verb: str
    variables: tuple[Variable, ...]


def parse(text: str) -> Template:
    """Raises RouteError for what the grammar doesn't allow."""
    head, verb = _without_verb(text)
    segments: list[str] = []
    variables: list[Variable] = []
    for part in _parts(head, text):
        if not part.startswith("{"):
            segments.append(_segment(part, text))
            continue
        path, equals, inner = part[1:-1].partition("=")
        inside = [_segment(each, text) for each in inner.split("/")] if equals else [ONE]
        if not _FIELD_PATH.fullmatch(path) or any(path == other.path for other in variables):
            raise RouteError(f"{text}: {part} isn't a field's path, or is there twice")
        end = None if inside[-1] == MANY else len(segments) + len(inside)
        variables.append(Variable(path, len(segments), end, inside == [ONE]))
        segments += inside
    if MANY in segments[:-1]:
        raise RouteError(f"{text}: ** may only be the last segment")
    return Template(text, tuple(segments), verb, tuple(variables))


def _without_verb(text: str) -> tuple[str, str]:
    """The template and its verb, which follows the last colon outside of braces."""
    outside = re.sub(r"\{[^{}]*\}", lambda found: "_" * len(found.group()), text)
    place = outside.rfind(":")
    if place < 0:
        return text, ""
    verb = text[place + 1 :]
    if not _LITERAL.fullmatch(verb):
        raise RouteError(f"{text}: {verb!r} isn't a verb")
    return text[:place], verb


def _parts(head: str, text: str) -> Iterator[str]:
    """The segments, a variable with all of its own being one."""
    place = 0
    while place < len(head):
        found = _PART.match(head, place + 1) if head[place] == "/" else None
        if found is None:
            break
        yield found.group()
        place = found.end()
    if not head or place != len(head):
        raise RouteError(f"{text}: a template is / and a segment, again and again")


def _segment(part: str, text: str) -> str:
    if part not in (ONE, MANY) and (not _LITERAL.fullmatch(part) or part in _STEPS):
        raise RouteError(f"{text}: {part!r} isn't a segment")
    return part


def split(path: str) -> list[str]:
    """The segments of a path as it came. Raises ValueError, whose text says what a path must be, where others could
    read it as another one.
    """
    if not path.startswith("/"):
        raise ValueError("must start with /.")
    if _NOT_ENCODED.search(path):
        raise ValueError("must be percent-encoded: % is followed by two hexadecimal digits.")
    segments = path[1:].split("/")
    if _MAYBE_STEP.search(path) and any(unquote(each, errors="replace") in _STEPS for each in segments):
        raise ValueError("must not have . or .. as a segment.")
    return segments
