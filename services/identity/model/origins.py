"""Origins of web pages that an organization lets call for it, in the one spelling that browsers send. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from services._mesh.errors import invalid_field
from services.identity.model.membership import etag

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last label of a name isn't a number, as that of an IPv4 address is.
_PUBLIC = re.compile(rf"https://(?P<host>(?:{_LABEL}\.)+(?![0-9]+(?::|$)){_LABEL})(?::(?P<port>[1-9][0-9]{{0,4}}))?")
_OWN_MACHINE = re.compile(r"(?P<scheme>https?)://(?:localhost|127\.0\.0\.1)(?::(?P<port>[1-9][0-9]{0,4}))?")
_MOST_HOST, _MOST_PORT = 253, 65535
# What browsers leave out.
_DEFAULT_PORTS = {"https": "443", "http": "80"}


@dataclass(frozen=True, slots=True)
class AllowedOrigins:
    """An organization's allowed origins; version 0 where nobody has named any yet."""

    organization_id: UUID
    origins: tuple[str, ...]
    version: int

    @property
    def etag(self) -> str:
        """Changes with every edit."""
        return etag(self.organization_id, self.version)


def require_origins(origins: Sequence[str], *, is_local: bool) -> None:
    """Raise Invalid unless each is one exact origin; one's own machine's only in the local profile."""
    for place, origin in enumerate(origins):
        if not _is_public(origin) and not (is_local and _is_own_machine(origin)):
            raise invalid_field(
                f"origins[{place}]",
                "must be one exact origin as browsers send it: https:// and a host name in lower case, with a port only"
                " where it isn't 443; no path, no last slash, no wildcard, no address of a machine.",
            )


def _is_public(origin: str) -> bool:
    found = _PUBLIC.fullmatch(origin)
    return found is not None and len(found["host"]) <= _MOST_HOST and _is_port("https", found["port"])


def _is_own_machine(origin: str) -> bool:
    found = _OWN_MACHINE.fullmatch(origin)
    return found is not None and _is_port(found["scheme"], found["port"])


def _is_port(scheme: str, port: str | None) -> bool:
    return port is None or (int(port) <= _MOST_PORT and port != _DEFAULT_PORTS[scheme])
