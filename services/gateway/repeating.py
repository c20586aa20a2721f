"""`Idempotency-Key`: the id of a request that is safe to repeat, put into the request of a change. Pure."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.message import Message

from services._mesh.descriptors import Effect
from services._mesh.errors import invalid_field
from services.gateway.bindings import Route
from services.gateway.exchange import Exchange

_FIELD = "request_id"
# The field's own text is a string of RFC 8941, in quotation marks; plain ones are taken too.
_KEY = re.compile(r'("?)([0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12})\1')


def put_key(exchange: Exchange, route: Route, request: Message) -> None:
    """Raises Invalid for what is no key: whoever believes that they sent one isn't left to. What only reads is the same
    again anyway, and may have a field of that name which means another thing: the events of one request, say.
    """
    given = exchange.headers.get("idempotency-key")
    if given is None or route.rule.effect is Effect.READ or _FIELD not in request.DESCRIPTOR.fields_by_name:
        return
    found = _KEY.fullmatch(given.strip())
    if found is None:
        raise invalid_field("Idempotency-Key", "must be a UUID.")
    written: Any = request
    # RFC 9562: the case of a UUID says nothing.
    if written.request_id and written.request_id.lower() != found.group(2).lower():
        raise invalid_field(_FIELD, "must be the same as Idempotency-Key: send one of them.")
    written.request_id = found.group(2)
