"""Envoy as an edge: TLS, the session's signature, a limit, the five headers, and its own transcoder; mTLS behind."""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import envoy
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from bench.fixed_server import SERVICE
from recoup.scanner.v1 import scanner_service_pb2
from recoup_local.embedded.nats import free_port
from recoup_local.issuer import AUDIENCE, ISSUER
from recoup_local.supervisor import LocalMesh
from services.gateway.exchange import SECURITY_HEADERS

_TYPES = "type.googleapis.com/envoy.extensions"
_FILTERS = f"{_TYPES}.filters.http"
_SECONDS = 20.0


@contextmanager
def envoy_edge(mesh: LocalMesh) -> Iterator[tuple[int, int]]:
    """Envoy's process id and its port, before the process that stands in the scanner's place."""
    with tempfile.TemporaryDirectory(prefix="envoy-") as name:
        folder, port = Path(name), free_port()
        found = FileDescriptorSet()
        _collect(scanner_service_pb2.DESCRIPTOR, found, set())
        (folder / "set.binpb").write_bytes(found.SerializeToString())
        (folder / "envoy.json").write_text(json.dumps(_configuration(mesh, folder, port)))
        command = [str(Path(envoy.__file__).parent / "_bin" / "envoy"), "-c", str(folder / "envoy.json")]
        process = subprocess.Popen([*command, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"])
        try:
            await_port(process, port)
            yield process.pid, port
        finally:
            process.terminate()
            process.wait(_SECONDS)


def await_port(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until a process that was started listens. Raises OSError where it ended, or takes too long."""
    end = time.monotonic() + _SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1.0).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise
        time.sleep(0.05)


def _collect(file: FileDescriptor, found: FileDescriptorSet, known: set[str]) -> None:
    """A file after all that it imports."""
    if file.name in known:
        return
    known.add(file.name)
    for each in file.dependencies:
        _collect(each, found, known)
    file.CopyToProto(found.file.add())


def _configuration(mesh: LocalMesh, folder: Path, port: int) -> dict[str, Any]:
    own = mesh.installation.folder("gateway")
    pair = {"certificate_chain": _file(own / "tls.pem"), "private_key": _file(own / "tls.key")}
    served = {
        "@type": f"{_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [pair], "alpn_protocols": ["h2", "http/1.1"]},
    }
    listener = {
        "name": "https",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "transport_socket": {"name": "tls", "typed_config": served},
                "filters": [{"name": "manager", "typed_config": _manager(mesh, folder)}],
            }
        ],
    }
    return {"static_resources": {"listeners": [listener], "clusters": [_cluster(mesh, pair)]}}


def _manager(mesh: LocalMesh, folder: Path) -> dict[str, Any]:
    added = [
        {"header": {"key": name.decode(), "value": value.decode()}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for name, value in SECURITY_HEADERS
    ]
    route = {"match": {"prefix": "/"}, "route": {"cluster": "scanner", "timeout": "0s"}}
    return {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "http_filters": [
            {"name": "limit", "typed_config": _limit()},
            {"name": "session", "typed_config": _session(mesh)},
            {"name": "transcoder", "typed_config": _transcoder(folder)},
            {"name": "router", "typed_config": {"@type": f"{_FILTERS}.router.v3.Router"}},
        ],
        "route_config": {
            "response_headers_to_add": added,
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
        },
    }


def _transcoder(folder: Path) -> dict[str, Any]:
    return {
        "@type": f"{_FILTERS}.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": str(folder / "set.binpb"),
        "services": [SERVICE],
        "print_options": {"always_print_primitive_fields": True, "stream_newline_delimited": True},
        "convert_grpc_status": True,
        "request_validation_options": {"reject_unknown_method": True, "reject_unknown_query_parameters": True},
    }


def _session(mesh: LocalMesh) -> dict[str, Any]:
    """The signature is checked once for each token, as identity's answer is asked for once by our edge."""
    provider = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": mesh.installation.issuer.jwks().decode()},
        "forward": True,
        "jwt_cache_config": {"jwt_cache_size": 100},
    }
    return {
        "@type": f"{_FILTERS}.jwt_authn.v3.JwtAuthentication",
        "providers": {"people": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "people"}}],
    }


def _limit() -> dict[str, Any]:
    whole = {"numerator": 100, "denominator": "HUNDRED"}
    return {
        "@type": f"{_FILTERS}.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": 1_000_000, "tokens_per_fill": 1_000_000, "fill_interval": "1s"},
        "filter_enabled": {"default_value": whole},
        "filter_enforced": {"default_value": whole},
    }


def _cluster(mesh: LocalMesh, pair: dict[str, Any]) -> dict[str, Any]:
    calls = {
        "@type": f"{_TYPES}.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "scanner",
        "common_tls_context": {
            "tls_certificates": [pair],
            "validation_context": {
                "trusted_ca": _file(mesh.installation.ca.cert_file),
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "scanner"}}],
            },
        },
    }
    speaks = {
        "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    place = {"address": "127.0.0.1", "port_value": mesh.installation.ports["scanner"]}
    return {
        "name": "scanner",
        "type": "STATIC",
        "transport_socket": {"name": "tls", "typed_config": calls},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": speaks},
        "load_assignment": {
            "cluster_name": "scanner",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": place}}}]}],
        },
    }


def _file(path: Path) -> dict[str, str]:
    return {"filename": str(path)}
