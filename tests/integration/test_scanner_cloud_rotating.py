"""Secrets of Azure and Google Cloud give way to others as AWS's do, on the fakes that the official SDKs talk to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services._mesh.claimed import ClaimedJob
from services._mesh.context import entered
from services._mesh.errors import Invalid
from services._mesh.job_rpc import leased
from services.scanner import rotating as working
from services.scanner.model.connection import Connection, ConnectionState
from services.scanner.model.given import NewSecret
from services.scanner.model.rotation import ROTATE, Rotation, RotationState
from services.scanner.store import rotations
from services.scanner.usecases import rotating
from tests.integration.test_scanner_clouds import azure, google, office, on_azure, on_gcp, servers, verified
from tests.support.clouds import (
    CLIENT,
    PROD,
    FakeAzure,
    FakeGoogle,
    certificate,
    certificate_pem,
    pem,
    private_key,
    service_account_key,
)
from tests.support.connecting import Office
from tests.support.rotating import Feed
from tests.support.things import ACME, context

__all__ = ["azure", "google", "office", "servers"]
pytestmark = pytest.mark.services("scanner")


async def rotated(office: Office, made: Connection, **secret: str) -> Rotation:
    """A rotation as far as it comes without waiting for the last grant."""
    with entered(context(ACME, "scanner.credential.rotate", rpc="scanner/RotateCredential")):
        given = await rotating.seal_candidate(office.api, office.sealer, made.connection_id, NewSecret(**secret))
        async with office.api.begin() as work:
            begun = await rotating.rotate_credential(work, office.planner, office.rules, given)
    for _ in range(2):
        query = "SELECT job_id FROM scanner.jobs WHERE kind = $1 AND subject_id = $2 AND status = 'READY'"
        (job_id,) = await office.fetch(query, ROTATE, begun.rotation_id)
        with entered(context(None, peer="scanner-worker", peer_thumbprint="x5t")):
            job = ClaimedJob(leased(await office.desk.claim(job_id)), office.worker, "scanner-worker")
        feed: Any = Feed()
        with entered(job.context()):
            await working.rotate(working.TryingClouds(office.tools), feed, job)
        async with office.api.read(ACME) as connection:
            found = await rotations.get_rotation(connection, begun.rotation_id)
        if found.state is RotationState.FAILED:
            break
    return found


async def test_an_applications_secret_gives_way_to_a_certificate_that_signs_in(
    office: Office, azure: FakeAzure
) -> None:
    made = await verified(office, on_azure(PROD))
    mine = certificate(private_key(1))
    both = certificate_pem(mine) + pem(private_key(1))
    failed = await rotated(office, made, azure_certificate=both)
    assert failed.state is RotationState.FAILED
    assert f"applications/{CLIENT} refuses us (AADSTS700027)" in failed.problem
    assert "azure_certificate isn't registered with the application" in failed.problem
    assert (await office.get(made)).credential_id == made.credential_id
    azure.registered.append(mine)
    done = await rotated(office, made, azure_certificate=both)
    assert (done.state, done.problem) == (RotationState.DRAINING, "")
    assert f"remove the old client secret or certificate of application {CLIENT}" in done.advice
    found = await office.get(made)
    assert (found.credential_id, found.state, found.access_key_id) == (
        done.candidate_id,
        ConnectionState.ACTIVE,
        CLIENT,
    )
    assert found.discovered == made.discovered
    purpose = "SELECT purpose FROM scanner.credentials WHERE credential_id = $1"
    assert await office.fetch(purpose, done.candidate_id) == ["azure.credential"]
    # What is in use from now on opens, and is checked by itself.
    assert (await office.verify(made)).state is ConnectionState.ACTIVE


async def test_a_service_accounts_key_gives_way_to_another_of_the_same_one(office: Office, google: FakeGoogle) -> None:
    made = await verified(office, on_gcp("acme-prod"))
    new = {"private_key_id": "f" * 40, "private_key": pem(private_key(2))}
    for changes, field in (
        ({}, "gcp_service_account_key: must be another key"),
        ({**new, "client_email": "other@acme-prod.iam.gserviceaccount.com"}, "gcp.service_account: is recoup@"),
    ):
        with pytest.raises(Invalid) as refused:
            await rotated(office, made, gcp_service_account_key=json.dumps(service_account_key(**changes)))
        assert field in refused.value.message
    with pytest.raises(Invalid, match="aws_access_key_id: is AWS's"):
        await rotated(office, made, aws_access_key_id="AKIA" + "A" * 16)
    google.accepts = private_key(2).public_key()
    done = await rotated(office, made, gcp_service_account_key=json.dumps(service_account_key(**new)))
    assert (done.state, done.problem, done.access_key_id) == (RotationState.DRAINING, "", "f" * 40)
    assert f"gcloud iam service-accounts keys delete {made.access_key_id}" in done.advice
    assert (await office.get(made)).credential_id == done.candidate_id
