"""A head of HTTP/2 says what a head of HTTP/1.1 says, or is none."""

from __future__ import annotations

import pytest
from hpack import Decoder, NeverIndexedHeaderTuple
from hypothesis import given, settings
from hypothesis import strategies as st

from services.gateway.http2 import heads
from services.gateway.http2.terms import PlainEncoder

METHOD, SCHEME, PATH, HOST = (
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/a%2Fb?c=1"),
    (b":authority", b"x"),
)
GOOD = [METHOD, SCHEME, PATH, HOST]
LIMITS = {"most_bytes": 4096, "most_headers": 20}


def read(*fields: tuple[bytes, bytes], has_body: bool = False) -> heads.Head:
    return heads.read(fields, has_body=has_body, **LIMITS)


def test_a_head_says_what_http_1_would_have_said() -> None:
    head = read(
        *GOOD, (b"cookie", b"a=1"), (b"te", b"trailers"), (b"cookie", b"b=2"), (b"x", b"\xe9 t\ty"), (b"y", b"")
    )
    assert (head.method, head.path, head.query) == (b"GET", b"/a%2Fb", b"c=1")
    assert head.headers == [
        *((b"host", b"x"), (b"te", b"trailers"), (b"x", b"\xe9 t\ty"), (b"y", b"")),
        (b"cookie", b"a=1; b=2"),
    ]
    assert read(*GOOD[:3], (b"host", b"x")).headers == [(b"host", b"x")] == read(*GOOD, (b"host", b"x")).headers
    assert read(*GOOD, (b"content-length", b"0")).length == 0
    assert read(*GOOD, (b"content-length", b"7"), (b"content-length", b"7"), has_body=True).length == 7


@pytest.mark.parametrize(
    "fields",
    [
        # Which request it is.
        *(GOOD[:place] + GOOD[place + 1 :] for place in range(4)),
        *([*GOOD, each] for each in (METHOD, SCHEME, PATH, HOST)),
        *([*GOOD, (name, b"200")] for name in (b":status", b":protocol", b":x", b":", b"")),
        [METHOD, SCHEME, (b"x", b"y"), PATH, HOST],
        [METHOD, SCHEME, (b"cookie", b"y"), PATH, HOST],
        *([(b":method", each), *GOOD[1:]] for each in (b"get", b"G T", b"", b"GET /x HTTP/1.1\r\n", b"CONNECT")),
        *([METHOD, (b":scheme", each), *GOOD[2:]] for each in (b"http", b"HTTPS", b"", b"https://x/")),
        *([METHOD, SCHEME, (b":path", each), HOST] for each in (b"", b"*", b"a", b"https://x/", b"/a b", b"/a#b")),
        *([METHOD, SCHEME, (b":path", each), HOST] for each in (b"/\xe9", b"/a\x0b", b"/ HTTP/1.1\r\nx: y", b"/\x00")),
        *(
            [*GOOD[:3], (b":authority", each)]
            for each in (b"", b"a@x", b"x/y", b"x y", b"x,y", b"x?", b"\xe9", b"x\r\n")
        ),
        [*GOOD, (b"host", b"y")],
        [*GOOD[:3], (b"host", b"x"), (b"host", b"y")],
        # What it says of a connection that isn't this one.
        *([*GOOD, (name, b"x")] for name in (b"connection", b"proxy-connection", b"keep-alive", b"upgrade")),
        *([*GOOD, (b"transfer-encoding", each)] for each in (b"chunked", b"identity", b"")),
        *([*GOOD, (b"te", each)] for each in (b"gzip", b"trailers, gzip", b"")),
        [*GOOD, (b"http2-settings", b"AA")],
        # How long it is.
        *([*GOOD, (b"content-length", each)] for each in (b"1", b"+1", b"-1", b"0x1", b"1 ", b"", b"\xb2", b"1" * 19)),
        [*GOOD, (b"content-length", b"0"), (b"content-length", b"1")],
        # What would be more than one header, or another, for who reads HTTP/1.1.
        *([*GOOD, (name, b"y")] for name in (b"X", b"xY", b"x y", b"x:", b":x", b"x:y", b"x\r\ny", b"x\x00", b"\xe9")),
        *([*GOOD, (b"x", each)] for each in (b"a\r\nb: c", b"a\nb", b"a\rb", b"a\x00", b" a", b"a ", b"\ta", b"a\x7f")),
        *([*GOOD, (b"cookie", each)] for each in (b"a=1\r\nb: c", b"a\x00")),
    ],
    ids=lambda fields: repr(fields[-1])[:60],
)
def test_what_another_reader_could_take_for_something_else_is_none(fields: list[tuple[bytes, bytes]]) -> None:
    for has_body in (False,) if (b"content-length", b"1") in fields else (False, True):
        with pytest.raises(heads.Malformed):
            heads.read(fields, has_body=has_body, **LIMITS)


def test_a_head_has_no_more_and_no_larger_headers_than_it_may() -> None:
    for more in ([(b"x", b"y" * 4096)], [(b"x", b"y")] * 21, [(b"cookie", b"y" * 100)] * 50):
        with pytest.raises(heads.TooLarge):
            read(*GOOD, *more)
    assert read(*GOOD, *[(b"cookie", b"y")] * 200)  # They are one.


def test_no_answer_says_more_than_it_means() -> None:
    for value in (b"a\r\nb: c", b"a\x00", b"a\x7f"):
        with pytest.raises(ValueError, match="control"):
            heads.written(200, [(b"x", value)])
    assert heads.written(200, [(b"Content-Type", b"x")]) == [(b":status", b"200"), (b"content-type", b"x")]


@given(st.lists(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300)), min_size=1), min_size=1))
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read_by_others_as_it_was_meant(blocks: list[list[tuple[bytes, bytes]]]) -> None:
    encoder, decoder = PlainEncoder(), Decoder(max_header_list_size=2**24)
    for block in [*blocks, [(b"x", b"y" * 127), (b"x" * 128, b"y" * 100_000), (b"x" * 255, b"")]]:
        found = list(decoder.decode(encoder.encode(block), raw=True))
        assert found == block
        assert all(isinstance(each, NeverIndexedHeaderTuple) for each in found)
        decoder.max_allowed_table_size = 0  # From the second on, whatever the caller allows.
