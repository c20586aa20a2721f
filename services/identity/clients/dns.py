"""TXT records of the DNS, within a deadline. Asks the resolvers of the machine, or those that are configured."""

from __future__ import annotations

from collections.abc import Sequence

import dns.asyncresolver
import dns.exception
import dns.resolver

from services._mesh.errors import dependency_down

LOOKUP_SECONDS = 5.0
_MAX_RECORDS = 100


class TxtResolver:
    """Looks TXT records up. `nameservers` are "address" or "address:port"; without any, the machine's own."""

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        self._nameservers = tuple(nameservers)

    async def txt(self, name: str) -> list[str]:
        """The texts at a name; none where there is no such name. Raises Unavailable when the DNS doesn't answer."""
        try:
            found = await self._resolver().resolve(name, "TXT", search=False, lifetime=LOOKUP_SECONDS)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except (dns.exception.DNSException, OSError) as error:
            raise dependency_down("DNS") from error
        return [b"".join(record.strings).decode("utf-8", "replace") for record in list(found)[:_MAX_RECORDS]]

    def _resolver(self) -> dns.asyncresolver.Resolver:
        if not self._nameservers:
            return dns.asyncresolver.Resolver()
        made = dns.asyncresolver.Resolver(configure=False)
        addresses = [each.rpartition(":") if each.count(":") == 1 else (each, "", "53") for each in self._nameservers]
        made.nameservers = [dns.nameserver.Do53Nameserver(host, int(port)) for host, _, port in addresses]
        return made
