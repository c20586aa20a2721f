"""Envoy's transcoder on Unix sockets, before a gRPC server that answers with what it was asked."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import envoy
import grpc
from google.api.httpbody_pb2 import HttpBody

from tests.support.transcoding import compiled

RAW = HttpBody(content_type="text/plain", data=b"as it is")
REPEATS = 3
_SECONDS = 20.0
_TYPES = "type.googleapis.com/envoy.extensions"


@contextmanager
def transcoder(proto: str, service: str) -> Iterator[Transcoder]:
    """Envoy with the routes of one service of a proto."""
    with tempfile.TemporaryDirectory(prefix="envoy-") as name:
        folder = Path(name)
        (folder / "set.binpb").write_bytes(compiled(proto))
        (folder / "envoy.json").write_text(json.dumps(_configuration(folder, service)))
        server = _echo(folder / "grpc", service)
        binary = Path(envoy.__file__).parent / "_bin" / "envoy"
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [binary, "-c", folder / "envoy.json", "--use-dynamic-base-id", "--concurrency", "1", "-l", "error"],
                stdout=output,
                stderr=output,
            )
        made = Transcoder(folder / "http")
        try:
            made.wait(process, log)
            yield made
        finally:
            made.close()
            process.terminate()
            process.wait(_SECONDS)
            server.stop(0).wait(_SECONDS)


class Transcoder:
    """Asks it, over one connection."""

    def __init__(self, path: Path) -> None:
        self._connection = _Connection(str(path))

    def wait(self, process: subprocess.Popen[bytes], log: Path) -> None:
        """Until it listens."""
        end = time.monotonic() + _SECONDS
        while True:
            try:
                return self._connection.connect()
            except (FileNotFoundError, ConnectionRefusedError):
                if process.poll() is not None or time.monotonic() > end:
                    raise AssertionError(f"Envoy didn't start: {log.read_text()}") from None
            time.sleep(0.02)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """The status and the body."""
        connection = self._connection
        connection.putrequest(method, target, skip_accept_encoding=True)
        given = {"content-type": "application/json", "content-length": str(len(body))} if body else {}
        for name, value in {**given, **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return answer.status, answer.read()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("local", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_SECONDS)
        try:
            connection.connect(self._path)
        except OSError:
            connection.close()
            raise
        self.sock = connection


def _echo(path: Path, service: str) -> grpc.Server:
    """Bytes come in and go out: whatever kinds the messages have, nothing but the transcoder reads them."""

    class Echo(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
            name = details.method.removeprefix(f"/{service}/")
            if name == "Repeat":
                return grpc.unary_stream_rpc_method_handler(lambda request, _: iter([request] * REPEATS))
            if name == "Raw":
                return grpc.unary_unary_rpc_method_handler(lambda _request, _context: RAW.SerializeToString())
            return grpc.unary_unary_rpc_method_handler(lambda request, _: request)

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Echo()])
    server.add_insecure_port(f"unix:{path}")
    server.start()
    return server


def _configuration(folder: Path, service: str) -> dict[str, Any]:
    transcoding = {
        "@type": f"{_TYPES}.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(folder / "set.binpb"),
        "services": [service],
        "print_options": {"always_print_primitive_fields": True, "stream_newline_delimited": True},
        "convert_grpc_status": True,
        "query_param_unescape_plus": True,
        "request_validation_options": {"reject_unknown_method": True, "reject_unknown_query_parameters": True},
    }
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "http_filters": [
            {"name": "transcoder", "typed_config": transcoding},
            {"name": "router", "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"}},
        ],
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "grpc"}}]}
            ]
        },
    }
    speaks = {
        "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    place = {"endpoint": {"address": {"pipe": {"path": str(folder / "grpc")}}}}
    cluster = {
        "name": "grpc",
        "type": "STATIC",
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": speaks},
        "load_assignment": {"cluster_name": "grpc", "endpoints": [{"lb_endpoints": [place]}]},
    }
    listener = {
        "name": "http",
        "address": {"pipe": {"path": str(folder / "http")}},
        "filter_chains": [{"filters": [{"name": "manager", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
