"""The command line's names of tiles, and what isn't a gateway at the other end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as some

from recoup_client import cli
from recoup_client.log import _index_name
from services.audit.model.tiles import index_name


@given(some.integers(0, 2**64))
def test_an_index_is_named_as_the_log_names_it(index: int) -> None:
    assert _index_name(index) == index_name(index)


class _Other(BaseHTTPRequestHandler):
    answers: dict[str, tuple[str, bytes]]

    def do_GET(self) -> None:
        media_type, body = self.answers[self.path]
        self.send_response(200)
        self.send_header("content-type", media_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def other() -> Iterator[tuple[str, dict[str, tuple[str, bytes]]]]:
    answers: dict[str, tuple[str, bytes]] = {}
    with HTTPServer(("127.0.0.1", 0), type("_Answering", (_Other,), {"answers": answers})) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", answers
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        ("text/html", b"<html>"),
        ("text/plain", b"\xff\n5\nx\n\n"),
        ("text/plain", b"log\nfive\nx\n\n"),
        ("text/plain", b"log"),
        ("text/plain; charset=utf-8", b"l\x1b[2Jog\n5\nroot\n\nsigned\n"),
    ],
)
def test_what_is_no_checkpoint_is_no_gateways(
    other: tuple[str, dict[str, tuple[str, bytes]]], media_type: str, body: bytes
) -> None:
    url, answers = other
    answers["/log/checkpoint"] = (media_type, body)
    environment = {"RECOUP_GATEWAY": url, "RECOUP_TOKEN": "t", "RECOUP_ORG": ""}
    done = CliRunner().invoke(cli.main, ["log", "checkpoint"], env=environment)
    assert (done.exit_code, done.stdout) == (3, "")
    assert "isn't a Recoup gateway" in done.stderr


def test_a_tile_has_as_many_hashes_as_were_asked_for(other: tuple[str, dict[str, tuple[str, bytes]]]) -> None:
    url, answers = other
    answers["/log/tile/0/000.p/2"] = ("application/octet-stream", bytes(64))
    answers["/log/tile/0/000.p/3"] = ("application/octet-stream", bytes(64))
    environment = {"RECOUP_GATEWAY": url, "RECOUP_TOKEN": "t", "RECOUP_ORG": ""}
    done = CliRunner().invoke(cli.main, ["log", "tile", "0", "0", "--width", "2"], env=environment)
    assert (done.exit_code, done.stdout) == (0, f"{'00' * 32}\n" * 2)
    done = CliRunner().invoke(cli.main, ["log", "tile", "0", "0", "--width", "3"], env=environment)
    assert (done.exit_code, "64 bytes for 3 hashes" in done.stderr) == (3, True)
