"""A failed call to a peer as a problem of ours: whose word it is, and what a caller may do about it."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from services._mesh.errors import DETAILS_KEY, NotFound, from_rpc_error, to_status


def failed(code: grpc.StatusCode, details: bytes = b"") -> grpc.aio.AioRpcError:
    trailers = grpc.aio.Metadata(*([(DETAILS_KEY, details)] if details else []))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, code.name)


@pytest.mark.parametrize(
    ("code", "reason", "becomes"),
    [
        ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE", "UNAVAILABLE"),
        # A server that ends cancels what comes just then: to be asked again, and no caller that went away (499).
        ("CANCELLED", "DEPENDENCY_UNAVAILABLE", "UNAVAILABLE"),
        ("DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT", "DEADLINE_EXCEEDED"),
        ("DATA_LOSS", "UNSPECIFIED", "DATA_LOSS"),
    ],
)
def test_what_grpc_itself_says_of_a_call_says_what_to_do(code: str, reason: str, becomes: str) -> None:
    found = from_rpc_error(failed(grpc.StatusCode[code]), "scanner")
    assert (found.reason_name, found.code) == (reason, grpc.StatusCode[becomes])


def test_a_peers_own_word_is_handed_on() -> None:
    said = to_status(NotFound("scan")).SerializeToString()
    found = from_rpc_error(failed(grpc.StatusCode.CANCELLED, said), "scanner")
    assert (found.reason, found.code) == (NotFound("scan").reason, grpc.StatusCode.NOT_FOUND)
