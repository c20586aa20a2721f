"""identity.verify_passport and identity.permission_us: what a call pays to show who asks, and that they may.

In this process's own processor time: what else the machine does is no part of it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from joserfc import jws
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry

from bench.measuring import Result, compare
from recoup.actions.v1 import actions_service_pb2
from recoup_local.keys import signing_key
from services._mesh.access import Checks, Gate
from services._mesh.clock import Clock
from services._mesh.denials import DenialLedger
from services._mesh.descriptors import method_rules
from services._mesh.grants import GrantVerifier
from services._mesh.ids import uuid7
from services._mesh.metrics import Metrics
from services._mesh.passport_verifier import PassportVerifier
from services._mesh.passports import Kind, Passport, sign_passport
from services._mesh.peers import AllowedCallers, PeerReader
from services._mesh.revocations import Revocations
from services._mesh.settings import LimitsSettings
from services._mesh.tokens import ALGORITHM, SigningKey
from services._mesh.trust import TrustStore
from services._mesh.validation import RequestValidator
from services.identity.__main__ import permission_table

TOKENS, CHECKS, RUNS = 1000, 100_000, 9
PERSON, ACME, PRESENTER = UUID(int=1), UUID(int=2), "x" * 43
RPC = "recoup.actions.v1.ActionsService/RequestAction"


async def verification() -> Result:
    """Microseconds of a passport's first verification, claims, audience, presenter and revocation included."""
    with tempfile.TemporaryDirectory() as folder:
        key, trust, clock = _keys(Path(folder))
        tokens = [sign_passport(key, _passport(clock)) for _ in range(TOKENS)]
        public = OKPKey.import_key(key.public_jwks()["keys"][0])
        registry = JWSRegistry(algorithms=[ALGORITHM])

        async def subject() -> float:
            verifier = _verifier(trust, Revocations(clock), clock)  # It has seen none of these tokens.
            return _microseconds(lambda token: verifier.verify(token, PRESENTER), tokens)

        async def floor() -> float:
            return _microseconds(lambda token: jws.deserialize_compact(token, public, registry=registry), tokens)

        name = "joserfc's deserialize_compact, the signature alone"
        return await compare("identity.verify_passport", "µs", name, subject, floor, RUNS)


async def permission() -> Result:
    """Microseconds that the check of a permission, assurance, recency and the feed's age adds to an RPC."""
    with tempfile.TemporaryDirectory() as folder:
        _, trust, clock = _keys(Path(folder))
        revocations = Revocations(clock)
        revocations.apply([], 0)
        gate, passport = _gate(trust, revocations, clock), _passport(clock)

        async def subject() -> float:
            return _microseconds(gate.authorize, (passport for _ in range(CHECKS)))

        async def floor() -> float:
            return _microseconds(_nothing, (passport for _ in range(CHECKS)))

        return await compare("identity.permission_us", "µs", "a call that does nothing", subject, floor, RUNS)


def _nothing(_passport: Passport) -> None:
    """What is measured beside the check."""


def _microseconds(each: Callable[[Any], Any], things: Iterable[Any]) -> float:
    count, began = 0, time.process_time()
    for thing in things:
        each(thing)
        count += 1
    return (time.process_time() - began) / count * 1e6


def _keys(folder: Path) -> tuple[SigningKey, TrustStore, Clock]:
    path = signing_key(folder, "identity", folder)
    return SigningKey.load(path, "local"), TrustStore(folder), Clock()


def _passport(clock: Clock) -> Passport:
    """An Admin's, for the service that most permissions are for."""
    now = int(clock.wall_seconds())
    return Passport(
        audience="actions",
        actor=f"user:{PERSON}",
        responsible_person=PERSON,
        organization_id=ACME,
        role="ADMIN",
        permissions=permission_table().held(ACME, "ADMIN", "actions"),
        permissions_version=1,
        session_id=str(PERSON),
        aal=2,
        auth_time=now,
        act=(),
        presenter=PRESENTER,
        jti=str(uuid7()),
        issued_at=now,
        expires_at=now + 300,
        kind=Kind.HUMAN,
        rests_on=(f"user:{PERSON}",),
    )


def _verifier(trust: TrustStore, revocations: Revocations, clock: Clock) -> PassportVerifier:
    return PassportVerifier(trust, revocations, clock, audience="actions", profile="local")


def _gate(trust: TrustStore, revocations: Revocations, clock: Clock) -> Gate:
    rules = method_rules(actions_service_pb2.DESCRIPTOR.services_by_name["ActionsService"])
    limits = LimitsSettings()
    checks = Checks(
        clock=clock,
        peers=PeerReader(clock, "local"),
        passports=_verifier(trust, revocations, clock),
        grants=GrantVerifier(trust, revocations, clock, audience="actions", profile="local", issuers={}),
        revocations=revocations,
        validator=RequestValidator(),
        denials=DenialLedger(clock, max_keys=limits.denial_keys, window_seconds=limits.denial_window_seconds),
        limits=limits,
        metrics=Metrics(),
    )
    return Gate(next(rule for rule in rules if rule.name == RPC), AllowedCallers(("gateway",)), checks)
