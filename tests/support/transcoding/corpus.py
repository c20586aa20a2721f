"""Requests of every kind, well-formed and not, made from a seed: what two transcoders are compared on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

# Of each kind of field the JSON texts that say a value, or don't.
_WHOLE = [
    "0",
    "1",
    "-1",
    '"7"',
    '"-7"',
    "1.0",
    "1.5",
    "1e2",
    '"1e2"',
    '"1.0"',
    '""',
    '"x"',
    '" 1"',
    '"+1"',
    "01",
    "true",
]
_INT32 = [*_WHOLE, "2147483647", "-2147483648", "2147483648", "4294967295", "4294967296", '"2147483647"', "null", "[]"]
_INT64 = [
    *_WHOLE,
    *("9007199254740993", '"9223372036854775807"', '"-9223372036854775808"', '"9223372036854775808"'),
    *('"18446744073709551615"', '"18446744073709551616"', "9223372036854775807", "null", "{}"),
]
_FLOAT = [
    *("0", "-0.0", "1.5", "1e10", "1e-10", "1e39", "3.4028235e38", "1e308", "1e309", '"1.5"', '"NaN"', '"Infinity"'),
    *('"-Infinity"', '"nan"', '"inf"', "NaN", "Infinity", '"x"', '""', "true", "null", "0.1", "16777217", '"0x1"'),
]
_BOOL = ["true", "false", '"true"', '"false"', "1", "0", '"1"', '"x"', "null", "[true]"]
_TEXT = ['"x"', '""', '"é☺"', '"\\u0041"', '"a\\nb"', '"\\ud83d\\ude00"', '"\\ud800"', "5", "true", "null", "[]", "{}"]
_BYTES = ['""', '"AQI="', '"AQI"', '"-_8="', '"+/8="', '"A"', '"A==="', '"!"', "5", "null"]
_COLOUR = ['"COLOUR_RED"', '"colour_red"', '"RED"', "1", "99", "-1", '"1"', "1.0", "1.5", '""', "true", "null"]
_TIME = [
    *('"2026-01-31T09:00:00Z"', '"2026-01-31T09:00:00.5Z"', '"2026-01-31T09:00:00.123456789Z"'),
    *('"2026-01-31T09:00:00+01:00"', '"2026-01-31"', '"yesterday"', '"0001-01-01T00:00:00Z"', "5", "null", '""'),
    *('"2026-02-30T00:00:00Z"', '"2026-01-31t09:00:00z"', '"9999-12-31T23:59:59.999999999Z"', "{}"),
]
_DURATION = [
    '"1s"',
    '"1.5s"',
    '"-1.5s"',
    '"0s"',
    '"1"',
    '"1m"',
    '"315576000000s"',
    '"315576000001s"',
    "1",
    "null",
    '"s"',
]
_MASK = ['"a"', '"a,b"', '"fooBar"', '"foo_bar"', '""', '"a.b"', "5", "null", '["a"]']
_CHILD = ['{"text": "x"}', "{}", '{"child": {"child": {"number": 3}}}', '{"nope": 1}', '"x"', "[]", "null", "5"]
_STRUCT = ['{"a": [1, "b", null, {"c": true}]}', "{}", '"x"', "[]", "null"]
KINDS: dict[str, list[str]] = {
    **dict.fromkeys(("int32", "sint32", "sfixed32", "uint32", "fixed32", "maybeInt32"), _INT32),
    **dict.fromkeys(("int64", "sint64", "sfixed64", "uint64", "fixed64"), _INT64),
    **dict.fromkeys(("float", "double"), _FLOAT),
    **dict.fromkeys(("bool", "maybeBool"), _BOOL),
    **dict.fromkeys(("text", "maybeText"), _TEXT),
    **dict.fromkeys(("colour", "maybeColour"), _COLOUR),
    "bytes": _BYTES,
    "time": _TIME,
    "duration": _DURATION,
    "mask": _MASK,
    "child": _CHILD,
    "struct": _STRUCT,
    "value": ["1", '"x"', "true", "null", "[1]", '{"a": 1}'],
    "stringValue": _TEXT,
    "bytesValue": _BYTES,
    "boolValue": _BOOL,
    **dict.fromkeys(("int32Value", "uint32Value"), _INT32),
    **dict.fromkeys(("int64Value", "uint64Value"), _INT64),
    **dict.fromkeys(("floatValue", "doubleValue"), _FLOAT),
    "byText": ['{"a": "b"}', "{}", '{"": ""}', '{"a": 1}', "[]", "null"],
    "byInt64": ['{"1": {"text": "x"}}', '{"x": {}}', '{"1": 5}', '{"-9223372036854775808": {}}'],
    "byBool": ['{"true": 1}', '{"false": 0}', '{"x": 1}', '{"True": 1}'],
    "anotherName": ['"x"'],
    "own_name": ['"x"'],
    "ownName": ['"x"'],
    "nope": ["1"],
}
_LISTS = {
    "texts": _TEXT,
    "int32s": _INT32,
    "int64s": _INT64,
    "doubles": _FLOAT,
    "bools": _BOOL,
    "colours": _COLOUR,
    "bytess": _BYTES,
    "times": _TIME,
    "children": _CHILD,
}
_PATHS = [
    *("/v1/one/x", "/v1/one/literal", "/v1/one/x:go", "/v1/one/literal:go", "/v1/one/x:other", "/v1/one/x%3Ago"),
    *("/v1/one/a%2Fb", "/v1/one/a%2fb", "/v1/one/a%252Fb", "/v1/one/a%20b", "/v1/one/a+b", "/v1/one/%C3%A9"),
    *("/v1/one/", "/v1/one", "/v1/one//x", "/v1//one/x", "//v1/one/x", "/v1/one/x/", "/v1/one/x/y", "/v1/one/:go"),
    *("/v1/one/%ff", "/v1/one/%zz", "/v1/one/%", "/v1/one/%00", "/v1/one/*", "/v1/one/a:b:go", "/v1/one/a:b"),
    *("/v1/one/%2e%2e", "/v1/one/..", "/v1/one/.", "/v1/%6Fne/x", "/V1/one/x", "/v1/one/x;a=b", "/v1/one/{text}"),
    *(
        "/v1/many",
        "/v1/many/",
        "/v1/many/a",
        "/v1/many/a/b/c",
        "/v1/many/a%2Fb/c",
        "/v1/many/a%2fb",
        "/v1/many/a%20b/c",
    ),
    *("/v1/many/files:read", "/v1/many/files/a:read", "/v1/many/files/a/b:read", "/v1/many/x/a:read", "/v1/many/a//b"),
    *("/v1/many/a%25b/c", "/v1/many/%E2%98%BA/x", "/v1/many/a+b/c", "/v1/many/a/", "/v1/many/files/a%2Fb:read"),
    *("/v1/wild/a/x/b/c", "/v1/wild/a/x", "/v1/wild/a/y/b", "/v1/wild//x/b", "/v1/wild/a/x/"),
    *(
        "/v1/typed/1/2/1.5/true/COLOUR_RED/AQI=",
        "/v1/typed/-1/0/NaN/false/2/-_8",
        "/v1/typed/x/2/1.5/true/COLOUR_RED/AQ",
    ),
    *(
        "/v1/typed/1/-2/1.5/true/COLOUR_RED/AQI=",
        "/v1/typed/1/2/1.5/maybe/COLOUR_RED/AQI=",
        "/v1/typed/1/2/x/true/1/AQI=",
    ),
    *("/v1/typed/1/2/1.5/true/GREEN/AQI=", "/v1/typed/1/2/1.5/true/COLOUR_RED/!", "/v1/typed/1/2/-Infinity/true/0/AA"),
    *("/v1/repeat/5", "/v1/raw", "/v1/nothing", "/", "/v1/query", "/v1/one/x?text=y", "/v1/one/x?nope=1"),
]


@dataclass(frozen=True)
class Case:
    """One request. `about` says which part of the rule it is for: a list of differences may name it."""

    about: str
    method: str
    path: str
    query: str = ""
    body: bytes = b""

    @property
    def target(self) -> str:
        """As the request line has it."""
        return self.path + (f"?{self.query}" if self.query else "")


def cases(seed: int, mixed: int) -> Iterator[Case]:
    """Every kind and path by itself, and `mixed` requests of several of them."""
    for kind, texts in KINDS.items():
        for text in texts:
            yield _whole(f"body {kind} {text}", {kind: text})
            yield Case(f"query {kind} {text}", "GET", "/v1/query", f"{kind}={quote(_plain(text))}")
    for kind, texts in _LISTS.items():
        for text in texts:
            yield _whole(f"body {kind} [{text}]", {kind: f"[{text}]"})
            yield _whole(f"body {kind} {text}", {kind: text})
            query = f"{kind}={quote(_plain(text))}&{kind}={quote(_plain(texts[0]))}"
            yield Case(f"query {kind} {text}", "GET", "/v1/query", query)
    for path in _PATHS:
        for method in ("GET", "DELETE", "POST"):
            plain, _, query = path.partition("?")
            yield Case(f"path {method} {path}", method, plain, query)
    yield from _odd()
    yield from _mixed(random.Random(seed), mixed)


def _odd() -> Iterator[Case]:
    bodies = [
        b"{",
        b"[]",
        b'"x"',
        b"5",
        b"null",
        b"{}",
        b"",
        b"\xff",
        b'{"text": "a", "text": "b"}',
        b"{} {}",
        b"{'a': 1}",
    ]
    bodies += [b'{"ownName": "a", "own_name": "b"}', b'{"thisText": "a", "thatNumber": 1}', b'{"text": "x",}', b" {} "]
    bodies += [b'{"child": ' * 20 + b"{}" + b"}" * 20, b'{"child": ' * 150 + b"{}" + b"}" * 150]
    for body in bodies:
        yield Case(f"odd body {body[:40].decode('latin-1')}", "POST", "/v1/whole", body=body)
        yield Case(f"odd part {body[:40].decode('latin-1')}", "POST", "/v1/part/x", body=body)
    yield Case("bindings put", "PUT", "/v1/whole/x", body=b'{"int32": 5}')
    yield Case("bindings twice", "PUT", "/v1/whole/x", body=b'{"text": "y"}')
    yield Case("bindings patch", "PATCH", "/v1/parents/a/children/b", body=b'{"child": {"number": 1}}')
    yield Case("bindings patch twice", "PATCH", "/v1/parents/a/children/b", body=b'{"child": {"text": "x"}}')
    yield Case("body and query", "POST", "/v1/whole", "int32=5", b'{"text": "x"}')
    yield Case("part and query", "POST", "/v1/part/x", "int32=5&child.number=3", b'{"text": "y"}')
    yield Case("part and other query", "POST", "/v1/part/x", "int32=5&texts=a&texts=b", b'{"text": "y"}')
    yield Case("part and path", "POST", "/v1/part/x", "text=z", b'{"text": "y"}')
    yield Case("get with body", "GET", "/v1/query", body=b'{"text": "x"}')
    queries = [
        "text=a&text=b",
        "child.text=a&child.number=2&child.child.text=c",
        "child=x",
        "child.nope=1",
        "children.text=a",
    ]
    queries += [
        "text",
        "text=",
        "=x",
        "&&",
        "text=a%20b",
        "text=a+b",
        "text=%ff",
        "text=%zz",
        "text=a=b",
        "te%78t=a",
        "Text=a",
    ]
    queries += [
        "thisText=a&thatNumber=1",
        "this_text=a",
        "thatNumber=1",
        "struct.a=1",
        "value=1",
        "byText.a=b",
        "time.seconds=1",
    ]
    queries += [
        "ownName=a",
        "own_name=a",
        "anotherName=a",
        "texts=a,b",
        "texts=",
        "child.texts=a&child.texts=b",
        "text=a;int32=1",
    ]
    for query in queries:
        yield Case(f"odd query {query}", "GET", "/v1/query", query)


def _mixed(choice: random.Random, count: int) -> Iterator[Case]:
    """Several good values at once; what is odd by itself is compared by itself."""
    good = {kind: [text for text in texts[:2] if text not in ("-0.0",)] for kind, texts in {**KINDS, **_LISTS}.items()}
    for name in ("nope", "ownName", "own_name", "struct", "value"):
        del good[name]
    for number in range(count):
        picked = {kind: choice.choice(good[kind]) for kind in choice.sample(sorted(good), choice.randrange(1, 9))}
        picked = {kind: f"[{text}, {text}]" if kind in _LISTS else text for kind, text in picked.items()}
        if number % 2:
            yield _whole("mixed", picked)
            continue
        plain = {kind: text for kind, text in picked.items() if not kind.startswith("by") or kind.startswith("bytes")}
        pairs = [
            f"{kind}={quote(_plain(json.dumps(value)))}"
            for kind, text in plain.items()
            if kind not in ("child", "children")
            for value in (json.loads(text) if kind in _LISTS else [json.loads(text)])
        ]
        yield Case("mixed", "GET", "/v1/query", "&".join(pairs))


def _whole(about: str, fields: dict[str, str]) -> Case:
    body = ", ".join(f'"{name}": {text}' for name, text in fields.items())
    return Case(about, "POST", "/v1/whole", body=f"{{{body}}}".encode())


def _plain(text: str) -> str:
    """A JSON text as a parameter says it."""
    try:
        value: Any = json.loads(text)
    except ValueError:
        return text
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else text
