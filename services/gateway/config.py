"""The settings of the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from services._mesh.config import Address, Between, Matches, Seconds
from services._mesh.settings import MeshSettings

_Origin = Annotated[str, Matches(r"https://[a-z0-9.-]+(:[0-9]+)?", "an exact https origin in lower case")]
_Rate = Annotated[float, Between(0.1, 100_000)]


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """Where REST is served, and what bounds it. Rates are calls a second; bursts are calls.

    A stream ends after its seconds, and whoever still wants it asks again: a passport isn't good for longer.
    `dashboard_origins` are those of the installation's own frontend, where it isn't served by this host: its pages call
    with cookies. Reads and writes are those of one credential, of one actor in an organization, or of one address that
    needs none.
    """

    listen: Address
    dashboard_origins: tuple[_Origin, ...] = ()
    body_bytes: Annotated[int, Between(1024, 16 * 1024 * 1024)] = 256 * 1024
    header_bytes: Annotated[int, Between(1024, 64 * 1024)] = 32 * 1024
    json_depth: Annotated[int, Between(4, 100)] = 32
    concurrent_requests: Annotated[int, Between(1, 10_000)] = 256
    connections: Annotated[int, Between(1, 100_000)] = 5000
    call_seconds: Seconds = 30.0
    stream_seconds: Annotated[float, Between(1, 300)] = 120.0
    concurrent_streams: Annotated[int, Between(1, 10_000)] = 500
    organization_streams: Annotated[int, Between(1, 10_000)] = 100
    reads_a_second: _Rate = 50.0
    read_burst: Annotated[int, Between(1, 100_000)] = 200
    writes_a_second: _Rate = 10.0
    write_burst: Annotated[int, Between(1, 100_000)] = 50
    organization_reads_a_second: _Rate = 500.0
    organization_read_burst: Annotated[int, Between(1, 100_000)] = 2000
    organization_writes_a_second: _Rate = 100.0
    organization_write_burst: Annotated[int, Between(1, 100_000)] = 500
    strangers_a_second: _Rate = 2.0
    stranger_burst: Annotated[int, Between(1, 100_000)] = 30


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(MeshSettings):
    """The gateway process."""

    gateway: EdgeSettings
