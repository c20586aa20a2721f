"""Identity's RPCs: decode, call, encode; one module a service."""
