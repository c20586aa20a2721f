"""The audit process, with the sequencer and the checkpointer: `python -m services.audit --config FILE`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from recoup.audit.v1 import audit_service_pb2, erasure_service_pb2, evidence_service_pb2
from services._mesh.config import ConfigError, usable
from services._mesh.database import Database
from services._mesh.job_tasks import own_jobs
from services._mesh.pages import PageTokens
from services._mesh.process import Mesh, run
from services._mesh.producing import produce
from services._mesh.storage import Storage
from services._mesh.storage.opening import open_storage
from services._mesh.threads import BoundedThreads
from services._mesh.uow import Store
from services.audit import usecases
from services.audit.alarms import Alarms
from services.audit.archiver import Archiver, Cadence
from services.audit.check_task import CheckTask
from services.audit.checkpointer import Checkpointer
from services.audit.clients import SignerClient
from services.audit.clients_evidence import Identity
from services.audit.config import ArchiveSettings, AuditSettings
from services.audit.control_watch import ControlWatch
from services.audit.cosigners import Cosigners
from services.audit.erased import ErasedEvents
from services.audit.evidence_files import EvidenceFolder
from services.audit.evidence_key import EvidenceKey
from services.audit.heads import HeadPublisher
from services.audit.keyring import ErasureRoles, Keyring, erase, open_keyring
from services.audit.model.actors import ActorHash, load_actor_hash
from services.audit.model.cosigning import WitnessKey
from services.audit.model.digests import keyed_digest
from services.audit.model.evidence.export import EXPIRE_EVIDENCE, EXPORT_EVIDENCE
from services.audit.model.notes import NoteInvalid
from services.audit.outside import Outside
from services.audit.own_log import OwnLog
from services.audit.policies import Policies
from services.audit.refusals import Refusals
from services.audit.rotations import Rotations
from services.audit.rpc import AuditRpc
from services.audit.rpc_erasures import ErasureRpc
from services.audit.rpc_evidence import EvidenceRpc
from services.audit.sealer import Sealer
from services.audit.selfcheck import make_checker
from services.audit.sequencer import Sequencer
from services.audit.standing import Standing
from services.audit.turning import Turning, shown
from services.audit.witness_client import WitnessClient
from services.audit.working.exporting import give_up

_LOG = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"]
_ERASURES = erasure_service_pb2.DESCRIPTOR.services_by_name["ErasureService"]
_EVIDENCE = evidence_service_pb2.DESCRIPTOR.services_by_name["EvidenceService"]


async def compose(mesh: Mesh, settings: AuditSettings) -> None:
    """Wire the log together and serve."""
    reader = mesh.store("audit")
    database = mesh.database(settings.log.sequencer, pool_size=4)
    alarms = Alarms(reader, mesh.metrics)
    actors, keyring = _actors(settings.log.actor_key), open_keyring(mesh, settings.subjects, alarms.note)
    keys = mesh.database(settings.subjects.sealer, 2, settings.subjects.database)
    digest = keyed_digest(settings.log.actor_key.read_bytes())
    sealer = Sealer(keys, keyring.kek, actors, digest, keyring.serving, mesh.clock)
    sequencer = Sequencer(database, mesh.clock, settings.log.name, actors, sealer, alarms.note)
    sequencer.write_alarms = alarms.write_within
    sequencer.used_counters = partial(usecases.used_counters, reader)
    eraser = erase(mesh, keyring, reader, _erasure_roles(mesh, settings, database))
    signer = SignerClient(mesh.channels.to("audit-signer"))
    checkpointer = Checkpointer(
        database,
        sequencer,
        mesh.clock,
        signer.sign,
        signer.last_signed,
        settings.log.checkpoint_seconds,
        partial(shown, reader, keyring.opener),
    )
    sequencer.turning = Turning(reader, settings.log.name, checkpointer.sign_last)
    standing = sequencer.standing = checkpointer.standing = Standing(database, signer.last_signed, mesh.metrics)
    mesh.health.needs("a signer that goes on with the log", lambda: standing.ready)
    mesh.task(sequencer.run(), "sequencer")
    mesh.health.needs("the sequencer's take-over", lambda: sequencer.ready)
    witnesses = _witnesses(settings)
    cosigners = Cosigners(database, checkpointer, witnesses, mesh.metrics, signer.key_manifest, alarms.note)
    mesh.task(cosigners.run(), "cosigners")
    mesh.task(Rotations(reader, signer.key_manifest).run(), "rotations")
    mesh.task(alarms.run(), "alarms")
    checks, watch = _checks(mesh, settings, signer, keyring, alarms, sequencer)
    refusals = Refusals(database, alarms.note, checks.whole)
    checkpointer.refused, checkpointer.behind = refusals.tell, refusals.behind
    mesh.task(checks.run(), "self-check")
    mesh.task(watch.run(), "watch on controls")
    erased = ErasedEvents(mesh.database(mesh.role("dispatcher"), 2), reader)
    produce(mesh, "audit", reader, OwnLog(reader, sequencer, erased))
    if settings.archive is not None:
        _keep_outside(mesh, settings, settings.archive, database, reader, checkpointer, signer, alarms)
    mesh.task(checkpointer.run(), "checkpointer")
    heads = HeadPublisher(database, reader, checkpointer, mesh.clock, settings.log.heads_seconds)
    mesh.task(heads.run(), "organization heads")
    mesh.follow_revocations()
    pages = PageTokens.from_file(settings.log.page_key)
    rpc = AuditRpc(
        reader,
        keyring.opener,
        sequencer,
        checkpointer,
        pages,
        signer.key_manifest,
        actors,
        alarms.note,
        cosigners,
        erased,
    )
    erasures = ErasureRpc(reader, keyring.database, actors, pages, eraser.wake)
    policies = Policies(reader, Identity(mesh.channels.to("identity")))
    jobs = {EXPORT_EVIDENCE: policies.export_evidence, EXPIRE_EVIDENCE: policies.expire_evidence}
    office = await own_jobs(mesh, "audit", reader, jobs, on_dead=give_up)
    threads = BoundedThreads(settings.evidence.threads, "evidence")
    evidence = EvidenceRpc(
        reader,
        keyring.opener,
        office.planner,
        pages,
        checkpointer,
        signer.key_manifest,
        _evidence_key(settings.evidence.key),
        EvidenceFolder(settings.evidence.folder, threads),
        settings.log.name,
        cosigners,
    )
    try:
        await mesh.serve([(_LOG, rpc), (_ERASURES, erasures), (_EVIDENCE, evidence), office.service])
    finally:
        threads.close()
        await cosigners.close()


def _keep_outside(
    mesh: Mesh, settings: AuditSettings, archive: ArchiveSettings, database: Database, reader: Store,
    checkpointer: Checkpointer, signer: SignerClient, alarms: Alarms,
) -> None:  # fmt: skip
    """Copy the log into its archive, and checkpoints beside it, one of which the log is held against at first."""
    storage = open_storage(archive.folder, archive.bucket, mesh.clock)
    mesh.task(_archiver(mesh, archive, storage, reader, alarms).run(), "archiver")
    outside = Outside(
        database,
        storage,
        settings.log.name,
        checkpointer,
        signer.held,
        mesh.metrics,
        alarms.note,
        archive.checkpoint_seconds,
    )
    checkpointer.require = outside.require
    mesh.task(outside.run(), "checkpoints outside")


def _evidence_key(path: Path) -> EvidenceKey:
    with usable(path, "evidence.key", "Make one, and have the key manifest list it."):
        return EvidenceKey(path)


def _erasure_roles(mesh: Mesh, settings: AuditSettings, head: Database) -> ErasureRoles:
    keys = mesh.database(settings.subjects.eraser, 3, settings.subjects.database)
    return ErasureRoles(mesh.database(mesh.role("dispatcher"), 2), head, keys)


def _archiver(mesh: Mesh, settings: ArchiveSettings, storage: Storage, writer: Store, alarms: Alarms) -> Archiver:
    cadence = Cadence(settings.seconds, settings.verify_days)
    database = mesh.database(settings.reader, pool_size=1)
    return Archiver(database, writer, storage, mesh.clock, mesh.metrics, alarms.note, cadence)


def _checks(
    mesh: Mesh, settings: AuditSettings, signer: SignerClient, keyring: Keyring, alarms: Alarms, sequencer: Sequencer
) -> tuple[CheckTask, ControlWatch]:
    database, bounds = mesh.database(settings.log.checker, pool_size=1), settings.log.self_check
    checker = make_checker(settings, database, signer.held, keyring.opener)
    watch = ControlWatch(
        database,
        mesh.clock,
        alarms.note,
        mesh.metrics,
        event_triggers=settings.log.event_triggers,
        keys=keyring.database,
    )
    checks = CheckTask(
        checker,
        mesh.clock,
        alarms.note,
        mesh.metrics,
        lambda: sequencer.ready,
        bounds.every_seconds,
        bounds.nightly_hour,
    )
    return checks, watch


def _witnesses(settings: AuditSettings) -> list[WitnessClient]:
    found = []
    for each in settings.log.witnesses:
        try:
            found.append(WitnessClient(WitnessKey.parse(each.vkey), each.url, each.ca))
        except NoteInvalid as error:
            way_out = "Write it as the witness's operator publishes it: <name>+<id>+<base64>."
            raise ConfigError(Path("[log]"), "log.witnesses.vkey", str(error), way_out) from None
    return found


def _actors(path: Path) -> ActorHash:
    try:
        return load_actor_hash(path)
    except ValueError as error:
        raise ConfigError(
            path, "log.actor_key", str(error), "Make one of random bytes; it must stay the same."
        ) from None


if __name__ == "__main__":
    sys.exit(run(AuditSettings, compose, "Recoup's audit service"))
