"""What the asynchronous and the blocking client have in common: addresses, certificates, retries, passports' ends."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import grpc
import grpc.aio

from recoup.actions.v1 import actions_pb2
from recoup.audit.v1 import evidence_service_pb2
from recoup.identity.v1 import identity_service_pb2
from recoup.mesh.v1 import access_pb2
from recoup.scanner.v1 import scanner_pb2
from recoup.services import SERVICES
from recoup_client.attempts import REQUEST_ID_KEY

CALL_SECONDS = 30.0
# A stream is ended by its service after about as long, and may be opened again.
STREAM_SECONDS = 300.0
# A session, or the API token of a service account; or what gives the one that is good now, such as a file's text.
Token = str | Callable[[], str]
# Whose passport opens what is about the whole installation, such as the log's checkpoints and tiles.
PLATFORM_ORGANIZATION_ID = "00000000-0000-0000-0000-000000000000"
_MARGIN_SECONDS = 30.0
_SCAN_OVER = frozenset({scanner_pb2.SCAN_STATE_COMPLETE, scanner_pb2.SCAN_STATE_PARTIAL, scanner_pb2.SCAN_STATE_FAILED})
# Nothing more happens to an action in these but its checkpoints.
_ACTION_OVER = frozenset(
    getattr(actions_pb2, f"ACTION_STATE_{state}")
    for state in ("REJECTED", "CANCELLED", "EXPIRED", "EXECUTED", "STALE", "FAILED", "CLOSED")
)
_EXPORT_RUNS = frozenset({evidence_service_pb2.EVIDENCE_STATE_QUEUED, evidence_service_pb2.EVIDENCE_STATE_RUNNING})


@dataclass(frozen=True)
class Certificate:
    """The team's certificate and key, and the installation's CA, as PEM files."""

    ca: Path
    cert: Path
    key: Path

    def credentials(self) -> grpc.ChannelCredentials:
        """Credentials of today's files."""
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), self.key.read_bytes(), self.cert.read_bytes())


def read_installation(path: Path) -> tuple[dict[str, str], Certificate]:
    """Addresses and certificate from a TOML file: [addresses] identity = "host:port", …; [certificate] ca, cert, key.

    Paths are relative to the file. Raises ValueError, which says what is missing, and OSError.
    """
    try:
        given = tomllib.loads(path.read_text("utf-8"))
        addresses = {str(name): str(value) for name, value in given["addresses"].items()}
        files = {name: path.parent / given["certificate"][name] for name in ("ca", "cert", "key")}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} isn't TOML: {error}") from None
    except KeyError as error:
        raise ValueError(
            f"{path} lacks {error.args[0]}: it needs [addresses], and ca, cert, key below [certificate]"
        ) from None
    except (AttributeError, TypeError):
        raise ValueError(f"{path}: [addresses] and [certificate] must be tables of texts") from None
    require_addresses(addresses)
    return addresses, Certificate(**files)


@dataclass(frozen=True)
class Passports:
    """The passports of one session in one organization, each kept until shortly before it ends."""

    session: Token
    organization_id: str
    kept: dict[str, tuple[str, float]]

    def find(self, service: str, now: float) -> str | None:
        """A passport for `service` that is good for a while yet."""
        known = self.kept.get(service)
        return known[0] if known is not None and known[1] > now else None

    def request(self, service: str) -> identity_service_pb2.IssuePassportRequest:
        """What asks for one."""
        token = self.session if isinstance(self.session, str) else self.session()
        return identity_service_pb2.IssuePassportRequest(
            session_token=token, audience=service, organization_id=self.organization_id
        )

    def keep(self, service: str, answer: identity_service_pb2.IssuePassportResponse) -> str:
        """Keep what identity gave, and return it."""
        self.kept[service] = (answer.passport, answer.expires_at.seconds - _MARGIN_SECONDS)
        return str(answer.passport)


def process_of(stub: Callable[..., object], addresses: Mapping[str, str]) -> str:
    """The process that serves what a generated stub calls. Raises ValueError, also where its address isn't said."""
    process = _processes().get(f"{stub.__module__.rpartition('.')[0]}.{stub.__name__}")
    if process is None:
        raise ValueError(f"{stub.__name__} is no stub of a service of Recoup's")
    if process not in addresses:
        raise ValueError(f"addresses must say where {process} is, which serves what {stub.__name__} calls")
    return process


@cache
def _processes() -> Mapping[str, str]:
    """By a stub's full name."""
    return {f"{each.full_name}Stub": process for process, services in SERVICES.items() for each in services}


def channel_options(service: str) -> list[tuple[str, str]]:
    """The name to expect in the peer's certificate, and retries where nobody is there for RPCs that change nothing."""
    reads = [
        {"service": each.full_name, "method": method.name}
        for each in SERVICES[service]
        for method in each.methods
        if method.GetOptions().Extensions[access_pb2.access].effect == access_pb2.EFFECT_READ
        and not method.server_streaming
    ]
    policy = {
        "maxAttempts": 3,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2,
        # A server that ends cancels what comes before everybody knows.
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
    }
    config = json.dumps({"methodConfig": [{"name": reads, "retryPolicy": policy}]})
    return [("grpc.ssl_target_name_override", service), ("grpc.service_config", config)]


def named(request_id: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call by which logs and traces know it; none without a name."""
    return ((REQUEST_ID_KEY, request_id),) if request_id else ()


def require_addresses(addresses: Mapping[str, str]) -> None:
    """Raises ValueError where it isn't said where identity is, which issues all passports."""
    if "identity" not in addresses:
        raise ValueError("addresses must say where identity is: it issues the passports")


def scan_is_over(scan: scanner_pb2.Scan) -> bool:
    """Whether a scan has ended."""
    return scan.state in _SCAN_OVER


def action_is_over(action: actions_pb2.Action) -> bool:
    """Whether an action is executed, or won't be."""
    return action.state in _ACTION_OVER


def export_is_over(export: evidence_service_pb2.EvidenceExport) -> bool:
    """Whether a bundle is there, or won't be."""
    return export.state not in _EXPORT_RUNS
