"""Where the edge and Envoy's transcoder answer differently, and why: the whole list, as patterns of `Case.about`.

A pattern that nothing needs any more is a fault too. Envoy 1.40 ends at `{"byText": {"a": null}}`: null in a map isn't
in the corpus, the edge answers 400 (`test_gateway_transcoding.py`).
"""

from __future__ import annotations

import re

_LISTS = "(texts|int32s|int64s|doubles|bools|colours|bytess|times|children)"
_WRAPPED = "(string|bool|u?int32|u?int64|float|double|bytes)Value"

DIFFERENCES: dict[str, str] = {
    # What means nothing is refused, since it is most often a typing error that would change what a call does.
    r"body (nope|ownName) |body (child |children ).*nope|odd (body|part) .*ownName|odd part .*thisText": (
        "An unknown field is 400 and named; Envoy drops it. A field with a json_name of its own has that and the "
        "proto's name, not the usual one too."
    ),
    rf"body {_LISTS} (?!\[)": "One value isn't a list of one: proto3 JSON has lists as lists.",
    rf"body {_LISTS} \[(null|\[.*\])\]": (
        "A list has no null and no list in it: Envoy drops the one and flattens the other."
    ),
    r"(body|query) \w+ \[?\"\+1\"": "JSON has no +1.",
    r"(body|query) \w+ \[?\"0x1\"": "JSON has no hexadecimal numbers.",
    r"body (\w*[bB]ool(Value)?|bools) \[?\"(true|false|1)\"": "proto3 JSON has true and false as such, not as text.",
    r"query (\w*[bB]ool(Value)?|bools) (\"1\"|[01])": "A truth value is true or false in a parameter as well.",
    r"body byBool \{\"True": "A key of truth is true or false, in lower case.",
    r"body (maybeC|c)olours? \[?\"1\"": "A number of an enum is a number, not text.",
    r"query (maybeC|c)olours? (99|-1)": (
        "A number that the enum doesn't name is taken, in a parameter as in a body: enums of proto3 are open, and the "
        "called service says by its rules what it knows. Envoy takes it in a body only."
    ),
    r"(body|query) float(Value)? 3\.4028235e38": (
        "The largest float in its shortest digits is taken everywhere, and written so; Envoy writes 3.40282347e+38 and "
        "refuses it in a parameter."
    ),
    r"body times? \[?\{\}|body "
    + _WRAPPED
    + r" \{\}": "A time and a wrapper are text or number in JSON, never an object.",
    r"(body|query) mask \"foo_bar\"": "JSON has the paths of a field mask in camel case.",
    r"query mask \[": (
        "A path of a field mask is made of names; Envoy takes any text, and writes what is no JSON then."
    ),
    r"query value |odd query value": "What may be any JSON (google.protobuf.Value) has no form as a parameter.",
    r"odd query time\.seconds": "A time is one text in a parameter as in JSON, and has no parts.",
    r"odd query children\.text": "A list of messages has no form as a parameter: which of them would it be?",
    r"odd query =x": "A parameter without a name is unknown.",
    r"odd (body|part) (\{'a': 1\}|\{\"text\": \"x\",\})": "Neither ' nor a comma before } is JSON.",
    r"bindings (patch )?twice": (
        "What the path says can't be said in the body too: one of them would be silently dropped."
    ),
    r"(body|part) and query|get with body": "What belongs into the body is no parameter, and GET has no body.",
    r"odd part $": "No body is a field that wasn't given; Envoy makes an empty message of it.",
    r"path \w+ \S*(%zz|%)$|odd query text=%zz": (
        "% without two hexadecimal digits is read in one way by some, in another by others."
    ),
    r"path \w+ \S*/(\.|\.\.|%2e%2e)$": "A segment . or .. is read as another path by what lies before.",
    r"path \w+ \S*(/|//\S+)$": "One resource has one address: an empty segment fits nothing.",
}


def reason_for(about: str) -> str:
    """The pattern that allows the difference; empty where none does."""
    return next((pattern for pattern in DIFFERENCES if re.match(pattern, about)), "")
