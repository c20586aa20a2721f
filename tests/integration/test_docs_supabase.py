"""The recipe for Supabase: its hook runs on a real PostgreSQL, and identity reads what it writes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from uuid import UUID

from recoup_local.issuer import AUDIENCE, ISSUER
from services.identity.model.session import read_claims
from tests.support.postgres import TestDatabase
from tests.support.sessions import ACME, PERSON, claims

RECIPE = Path(__file__).resolve().parents[2] / "docs" / "SUPABASE.md"
# What a project's database has, as far as the hook is concerned.
PROJECT = """
CREATE ROLE supabase_auth_admin; CREATE ROLE authenticated; CREATE ROLE anon;
CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO supabase_auth_admin;
CREATE TABLE auth.users (id uuid PRIMARY KEY, raw_app_meta_data jsonb, raw_user_meta_data jsonb,
                         email_confirmed_at timestamptz);
GRANT SELECT ON auth.users TO supabase_auth_admin;
"""
OTHER = UUID(int=7)


async def test_the_hook_of_the_recipe_says_which_organization_and_nothing_that_people_write(
    database: TestDatabase,
) -> None:
    (hook,) = re.findall(r"```sql\n(.*?)```", RECIPE.read_text("utf-8"), re.DOTALL)
    written = json.dumps({"organization_id": str(OTHER)})
    project = await database.superuser()
    undone = project.transaction()  # Roles are the whole cluster's.
    await undone.start()
    try:
        await project.execute(PROJECT)
        await project.execute(hook)
        confirmed = await project.fetchval("SELECT now()")
        said = json.dumps({"organization_id": str(ACME)})
        for user, ours, at in ((PERSON.user_id, said, confirmed), (OTHER, "{}", None)):
            await project.execute("INSERT INTO auth.users VALUES ($1, $2, $3, $4)", user, ours, written, at)
        await project.execute("SET LOCAL ROLE supabase_auth_admin")

        async def hooked(user: UUID) -> dict[str, object]:
            before = claims(sub=str(user), app_metadata={}, user_metadata=json.loads(written))
            event = json.dumps({"user_id": str(user), "claims": before, "authentication_method": "password"})
            after = json.loads(await project.fetchval("SELECT public.recoup_access_token($1::jsonb)::text", event))
            return dict(after["claims"])

        first, second = await hooked(PERSON.user_id), await hooked(OTHER)
    finally:
        await undone.rollback()
        await project.close()
    assert read_claims(first, ISSUER, AUDIENCE, time.time()).organization_hint == ACME
    assert read_claims(second, ISSUER, AUDIENCE, time.time()).organization_hint is None
    assert (first["email_verified"], second["email_verified"]) == (True, False)
