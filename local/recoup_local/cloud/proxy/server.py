"""Serves the emulated AWS: authenticates, applies faults, authorizes, forwards to moto, corrects, records.

The order is the provider's: throttling and outages come before permission. One task per connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlencode

from recoup_local.cloud.proxy import answers
from recoup_local.cloud.proxy.access import Access
from recoup_local.cloud.proxy.calls import Call, recognize
from recoup_local.cloud.proxy.control import PREFIX, Control
from recoup_local.cloud.proxy.ec2_rules import Delays, Ec2Rules
from recoup_local.cloud.proxy.faults import ActiveRule, Faults, Held
from recoup_local.cloud.proxy.identities import Identities, Principal, policy_document_error
from recoup_local.cloud.proxy.recorder import Entry, Recorder, sanitized
from recoup_local.cloud.proxy.resources import named_ids
from recoup_local.cloud.proxy.wire import (
    MAX_HEAD_BYTES,
    Answer,
    BadRequestError,
    Request,
    encode_answer,
    forward,
    read_request,
)
from recoup_local.cloud.proxy.xmltree import Element, parse_answer, text_of


@dataclass(frozen=True)
class Upstream:
    """Where moto listens."""

    host: str
    port: int


class Proxy:
    """The recording proxy in front of one moto."""

    def __init__(
        self,
        *,
        upstream: Upstream,
        identities: Identities,
        recorder: Recorder,
        simulated_now: Callable[[], datetime],
        delays: Delays,
        denied_regions: set[tuple[str, str]],
        control_token: str,
    ) -> None:
        self._upstream = upstream
        self._access = Access(identities, denied_regions)
        self._recorder = recorder
        self._faults = Faults()
        self._ec2 = Ec2Rules(delays, simulated_now, self._ask)
        self._control = Control(control_token, self._faults, recorder, self._access, delays)

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves the requests of one connection until it ends or an answer is to be dropped."""
        try:
            while (request := await read_request(reader, writer)) is not None:
                answer = await self._answer(request)
                if answer is None:
                    # Dropped on purpose: reset, so that the client sees the connection die at once.
                    writer.transport.abort()
                    return
                close = request.header("connection").lower() == "close"
                writer.write(encode_answer(answer, head=request.method == "HEAD", close=close))
                await writer.drain()
                if close:
                    return
        except BadRequestError as error:
            writer.write(encode_answer(Answer(400, str(error).encode()), head=False, close=True))
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass  # The client went away; what it asked for has been recorded.
        finally:
            writer.close()

    async def _answer(self, request: Request) -> Answer | None:
        if request.path.startswith(PREFIX):
            return await self._control.answer(request)
        call = recognize(request)
        entry = Entry(call, datetime.now(UTC))
        found = self._access.authenticate(request, call)
        entry.principal = None if isinstance(found, Answer) else found
        kind = entry.principal.kind if entry.principal else "unknown"
        account = entry.principal.account if entry.principal else ""
        active = self._faults.match(call, account, kind)
        try:
            if active is not None:
                entry.fault = active.id
                injected = await self._before_forward(active, call)
                if injected is not None or active.rule.drop_before_forward:
                    entry.answer = injected
                    return injected
            if isinstance(found, Answer):
                entry.answer = found
            else:
                entry.answer = await self._serve(request, call, found, entry)
        except (OSError, TimeoutError):
            entry.answer = answers.internal_error(call, 502)
        finally:
            answer = entry.answer
            if active is not None and active.rule.drop_after_forward:
                entry.answer = None
            # Recorded before a hold: a test that kills the caller meanwhile counts what was applied.
            self._recorder.record(entry)
        if active is not None and active.rule.hold == "after":
            await self._faults.hold(active, _held(active, call))
        return None if active is not None and active.rule.drop_after_forward else answer

    async def _before_forward(self, active: ActiveRule, call: Call) -> Answer | None:
        """Carries out what a rule does ahead of forwarding; the answer it injects, if it does."""
        rule = active.rule
        if rule.delay_ms:
            await asyncio.sleep(rule.delay_ms / 1000)
        if rule.hold == "before":
            await self._faults.hold(active, _held(active, call))
        if rule.error_code is not None:
            return answers.error_answer(call, rule.status or 400, rule.error_code, rule.error_message)
        if rule.throttle or rule.status == 429:
            return answers.throttled(call, rule.status)
        return answers.internal_error(call, rule.status) if rule.status is not None else None

    async def _serve(self, request: Request, call: Call, principal: Principal, entry: Entry) -> Answer:
        tags = await self._tags(principal, call)
        refused = self._access.authorize(principal, call, tags)
        if refused is None and call.name == "sts:AssumeRole":
            refused = self._access.check_assume_role(principal, call)
        elif refused is None and (problem := policy_document_error(call)):
            refused = answers.error_answer(call, 400, "MalformedPolicyDocument", problem)
        admin = principal.kind == "admin"
        if refused is None and call.service == "ec2":
            refused = await self._ec2.before(call, principal.account, admin=admin)
        if refused is not None:
            return refused
        answer = await self._forward(request, call, principal.account)
        entry.upstream_status = answer.status
        if answer.status >= 400:
            return answer
        if call.name == "sts:AssumeRole":
            self._access.remember_session(call, answer)
        elif call.service == "ec2":
            return self._ec2.after(call, principal.account, answer, admin=admin)
        else:
            self._access.identities.observe(call, principal.account, answer)
        return answer

    async def _forward(self, request: Request, call: Call, account: str) -> Answer:
        if call.service == "ec2":
            changed = self._ec2.forwarded(call)
            if changed is not call:
                request = replace(request, body=_form(call.action, changed.params))
        return await forward(self._upstream.host, self._upstream.port, request, {"x-moto-account-id": account})

    async def _tags(self, principal: Principal, call: Call) -> dict[str, str]:
        """The tags of the one existing resource acted on, read only when a policy asks for them."""
        ids = named_ids(call) if call.service == "ec2" else ()
        if not ids or principal.kind == "admin" or not self._access.needs_tags(principal):
            return {}
        params = {"Filter.1.Name": "resource-id", "Filter.1.Value.1": ids[0]}
        root = await self._ask("DescribeTags", params, principal.account, call.region)
        return {text_of(item, "key"): text_of(item, "value") for item in root.findall("./tagSet/item")}

    async def _ask(self, action: str, params: dict[str, str], account: str, region: str) -> Element:
        """Asks moto's EC2 directly; such questions are the proxy's own and are not recorded."""
        credential = f"AWS4-HMAC-SHA256 Credential=AKIAPROXY/20000101/{region}/ec2/aws4_request, "
        headers = (
            ("Host", f"{self._upstream.host}:{self._upstream.port}"),
            ("Content-Type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("Authorization", credential + "SignedHeaders=host, Signature=0"),
        )
        request = Request("POST", "/", headers, _form(action, params))
        answer = await forward(self._upstream.host, self._upstream.port, request, {"x-moto-account-id": account})
        return parse_answer(answer)[0]


def _form(action: str, params: dict[str, str]) -> bytes:
    return urlencode({"Action": action, "Version": "2016-11-15", **params}).encode("ascii")


def _held(active: ActiveRule, call: Call) -> Held:
    phase = active.rule.hold or "after"
    return Held(active.id, call.name, call.region, call.access_key_id, sanitized(call.params), phase)


async def listen(proxy: Proxy, port: int) -> asyncio.Server:
    """Listens on 127.0.0.1; port 0 takes a free one."""
    return await asyncio.start_server(proxy.serve_connection, "127.0.0.1", port, limit=MAX_HEAD_BYTES)
