"""Ports of the local mesh: none is handed out twice before whoever has it listens."""

from __future__ import annotations

from recoup_local.embedded.nats import PORTS, free_port


def test_no_port_is_given_twice() -> None:
    given = [free_port() for _ in range(500)]
    assert len(set(given)) == len(given)
    assert all(port in PORTS for port in given)
