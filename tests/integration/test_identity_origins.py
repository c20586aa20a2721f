"""Allowed origins: an Admin's exact https origins, told to the edge, each organization's by itself."""

from __future__ import annotations

from functools import partial

import asyncpg
import pytest

from services._mesh.context import entered
from services._mesh.errors import Conflict, Invalid
from services.identity.model.origins import AllowedOrigins, require_origins
from services.identity.usecases.origins import check_allowed_origins, get_allowed_origins, set_allowed_origins
from tests.support.identity import GLOBAL_ADMIN, Registry, registry
from tests.support.postgres import TestDatabase
from tests.support.things import ACME, GLOBEX, context

pytestmark = pytest.mark.services("identity")
SET = "identity.allowed_origins.set"
PAGE, OTHER = "https://finance.acme.example", "https://acme.example:8443"


async def current_of(made: Registry) -> AllowedOrigins:
    with entered(context(ACME)):
        return await get_allowed_origins(made.store)


async def test_an_organization_names_the_whole_list_and_no_other_ones(database: TestDatabase) -> None:
    async with registry(database) as made:
        none = await current_of(made)
        assert (none.origins, await check_allowed_origins(made.store, ACME)) == ((), ())
        change = partial(set_allowed_origins, origins=[PAGE, OTHER], etag=none.etag)
        first = await made.decide(change, action=SET)
        assert first.origins == (OTHER, PAGE) == (await current_of(made)).origins
        with pytest.raises(Conflict):
            await made.decide(change, action=SET)
        await made.decide(partial(set_allowed_origins, origins=[PAGE], etag=first.etag), action=SET)
        assert list(await check_allowed_origins(made.store, ACME)) == [PAGE]
        assert list(await check_allowed_origins(made.store, GLOBEX)) == []
        events = [event["metadata"] for event in await made.events(SET)]
        assert events == [
            {"before": {"origins": []}, "after": {"origins": [OTHER, PAGE]}},
            {"before": {"origins": [OTHER, PAGE]}, "after": {"origins": [PAGE]}},
        ]
        local = partial(set_allowed_origins, origins=["http://localhost:3000"], etag=AllowedOrigins(GLOBEX, (), 0).etag)
        with pytest.raises(Invalid):
            await made.decide(local, GLOBAL_ADMIN, GLOBEX, SET)
        await made.decide(partial(local, is_local=True), GLOBAL_ADMIN, GLOBEX, SET)
        # What can't be an origin isn't in a row either, whoever writes it.
        for bad in ("*", "null", "https://a.example/ https://b.example", "https://*.acme.example"):
            with pytest.raises(asyncpg.CheckViolationError):
                await made.rows("UPDATE identity.allowed_origins SET origins = ARRAY[$1]", bad)


@pytest.mark.parametrize(
    "origin",
    [
        *("*", "null", "https://*.acme.example", "acme.example", "//acme.example", "http://acme.example", "file://"),
        *("https://acme.example/", "https://acme.example/x", "https://acme.example?x", "https://acme.example#x"),
        *("https://Acme.example", "HTTPS://acme.example", "https://acme.example:443", "https://acme.example:0"),
        *("https://acme.example:65536", "https://acme.example:", "https://u@acme.example", "https://acme.example."),
        *("https://127.0.0.1", "https://10.0.0.1:8443", "https://[::1]", "https://localhost", "https://-a.example"),
        *(
            " https://acme.example",
            "https://acme.example\n",
            "https://a.example https://b.example",
            "https://ácme.example",
        ),
        *("https://a..example", f"https://{'a' * 64}.example", f"https://{'a.' * 130}example"),
    ],
)
def test_what_is_no_exact_origin_is_refused(origin: str) -> None:
    with pytest.raises(Invalid) as caught:
        require_origins([PAGE, origin], is_local=False)
    assert caught.value.field_violations[0].field == "origins[1]"


def test_ones_own_machine_is_for_the_local_profile() -> None:
    require_origins([PAGE, OTHER, "https://xn--bcher-kva.example"], is_local=False)
    own = ["http://localhost:3000", "https://localhost", "http://127.0.0.1:8080"]
    require_origins(own, is_local=True)
    for origin in own:
        with pytest.raises(Invalid):
            require_origins([origin], is_local=False)
    for origin in ("http://localhost:80", "http://localhost.acme.example", "http://127.0.0.2", "null", "*"):
        with pytest.raises(Invalid):
            require_origins([origin], is_local=True)
