"""The settings of the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from services._mesh.config import Address, Between, Matches, Seconds
from services._mesh.settings import MeshSettings
from services.gateway.bucket import KEEP_SECONDS

_Origin = Annotated[str, Matches(r"https://[a-z0-9.-]+(:[0-9]+)?", "an exact https origin in lower case")]
_Rate = Annotated[float, Between(0.1, 100_000)]


@dataclass(frozen=True, kw_only=True)
class EdgeSettings:
    """Where REST is served, and what bounds it. Rates are calls a second; bursts are calls.

    A request's path and headers come within `head_seconds`, its body within `call_seconds`. A process that is to end
    goes on for `leaving_seconds`, unready, and ends each connection with its next answer.
    Until TLS is agreed on, within `handshake_seconds`, a connection is one of `handshakes`, and of `address_handshakes`
    of its address (IPv6: its /64). Then it is one of `connections`: who asks beyond them is told to come again. It is
    one of `address_connections` from its beginning to its end.
    HTTP/2 is offered with `http2`; a connection of it has `connection_streams` requests at a time.
    A stream ends after its seconds, and whoever still wants it asks again: a passport isn't good for longer.
    `dashboard_origins` are those of the installation's own frontend, where it isn't served by this host: its pages call
    with cookies.
    Reads and writes are those of one credential, of one actor in an organization, or of one address that needs none.
    With `shared = "nats"`, all `gateways` of the installation spend the budgets of actors and organizations together.
    """

    listen: Address
    dashboard_origins: tuple[_Origin, ...] = ()
    body_bytes: Annotated[int, Between(1024, 16 * 1024 * 1024)] = 256 * 1024
    header_bytes: Annotated[int, Between(1024, 64 * 1024)] = 32 * 1024
    header_count: Annotated[int, Between(10, 1000)] = 100
    head_seconds: Annotated[float, Between(0.1, 120)] = 10.0
    leaving_seconds: Annotated[float, Between(0, 60)] = 2.0
    json_depth: Annotated[int, Between(4, 100)] = 32
    concurrent_requests: Annotated[int, Between(1, 10_000)] = 256
    connections: Annotated[int, Between(1, 100_000)] = 5000
    address_connections: Annotated[int, Between(1, 100_000)] = 1000
    handshakes: Annotated[int, Between(1, 10_000)] = 1000
    address_handshakes: Annotated[int, Between(1, 10_000)] = 100
    handshake_seconds: Annotated[float, Between(0.1, 60)] = 10.0
    http2: bool = True
    connection_streams: Annotated[int, Between(1, 1000)] = 100
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
    shared: Literal["none", "nats"] = "none"
    gateways: Annotated[int, Between(1, 1000)] = 1

    def __post_init__(self) -> None:
        for burst, rate in (
            ("read_burst", "reads_a_second"),
            ("write_burst", "writes_a_second"),
            ("organization_read_burst", "organization_reads_a_second"),
            ("organization_write_burst", "organization_writes_a_second"),
        ):
            if self.shared != "none" and getattr(self, burst) / getattr(self, rate) > KEEP_SECONDS:
                raise ValueError(f"a shared {burst} must be whole again within {KEEP_SECONDS:.0f} s at {rate}")


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(MeshSettings):
    """The gateway process."""

    gateway: EdgeSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gateway.shared == "nats" and self.nats is None:
            raise ValueError(
                '[gateway] shared = "nats" needs [nats] with url, user and password_file; or set it to "none"'
            )
