"""Moving sealed credentials to their organization's newest KEK: begun by a person, done in batches.

Nothing here opens or wraps: what comes back is held against what went out, and the grant says which KEK it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services._mesh.context import current
from services._mesh.envelope import parse
from services._mesh.errors import Denied, NotFound, Reason, WrongState
from services._mesh.jobs import Authority, Job, Planner
from services._mesh.kms.interface import EnvelopeBroken, Kek
from services._mesh.uow import Store, UnitOfWork
from services.scanner.model.kek import KekState, RegisteredKek
from services.scanner.model.rewrapping import REWRAP, Moved, SealedBatch, plan_of
from services.scanner.store import backups, keks
from services.scanner.store import rewrapping as store

_NAMED = 5  # How many an error names.


async def find_newest(reader: Store) -> RegisteredKek:
    """The KEK that a rotation would move everything to. Raises WrongState."""
    async with reader.read() as connection:
        return _required(await keks.find_active(connection))


async def rotate_kek(work: UnitOfWork, planner: Planner, proved: RegisteredKek) -> int:
    """Plan the job that moves everything to a KEK that was proved just now; returns how many credentials it has to.

    A rotation that is under way begins anew, and tries what was stuck again. Raises WrongState.
    """
    await keks.lock(work.connection, work.organization_id)
    newest = _required(await keks.find_active(work.connection))
    if newest.kek_id != proved.kek_id:
        raise _wrong("SUPERSEDED", "ACTIVE", "Somebody named a newer key meanwhile. Rotate again.")
    counts = await store.count_by_kek(work.connection)
    left = sum(counts.values()) - counts.get(newest.named.kek().reference, 0)
    await store.clear_stuck(work.connection)
    await work.cancel_jobs(REWRAP, newest.kek_id)
    await work.enqueue(
        planner.plan(work.organization_id, REWRAP, newest.kek_id, work.now, plan=plan_of(newest.named.kek()))
    )
    said = {"version": str(newest.version), "kek": newest.named.kek().reference, "credentials": str(left)}
    work.emit("scanner.kek.rotate", f"keks/{newest.kek_id}", said)
    return left


async def retire_kek(work: UnitOfWork, version: int) -> RegisteredKek:
    """Retire a KEK that nothing is under. Raises NotFound, and WrongState with what keeps it."""
    await keks.lock(work.connection, work.organization_id)
    found = await keks.find_version(work.connection, version)
    if found is None:
        raise NotFound("kek")
    if found.state is not KekState.SUPERSEDED:
        way = "Name a newer key and rotate first." if found.state is KekState.ACTIVE else "Nothing is left to do."
        raise _wrong(found.state.value, "SUPERSEDED", f"The key is {found.state.value}. {way}")
    kek = found.named.kek()
    uses = (await store.count_by_kek(work.connection)).get(kek.reference, 0)
    if uses:
        raise _wrong("IN_USE", "no credential under it", await _kept_by(work, kek, uses))
    if needed := (await backups.count_by_kek(work.connection)).get(kek.reference, 0):
        raise _wrong("IN_BACKUP", "no backup that needs it", await _kept_by_backups(work, kek, needed))
    retired = await keks.mark_kek(work.connection, found.kek_id, KekState.RETIRED)
    said = {"version": str(version), "kek": kek.reference, "before": found.state.value, "after": retired.state.value}
    work.emit("scanner.kek.retire", f"keks/{found.kek_id}", said)
    return retired


async def _kept_by(work: UnitOfWork, kek: Kek, uses: int) -> str:
    under = await store.list_under(work.connection, kek, _NAMED)
    named = "; ".join(each + (f" ({why})" if why else "") for each, why in under)
    more = f", and {uses - len(under)} more" if uses > len(under) else ""
    return f"{uses} credentials are sealed under it: {named}{more}. Rotate first, and retire it when that is done."


async def _kept_by_backups(work: UnitOfWork, kek: Kek, count: int) -> str:
    oldest = await backups.list_under(work.connection, kek, _NAMED)
    named = "; ".join(f"{backup_id} of {taken_at:%Y-%m-%d}" for backup_id, taken_at in oldest)
    more = f", and {count - len(oldest)} more" if count > len(oldest) else ""
    return (
        f"{count} backups hold secrets under it: {named}{more}. Retire it when they are gone: the operator deletes"
        " them (recoup backup prune), or lets their time run out and then says so (forget)."
    )


class Rewrapping:
    """What the worker gets for a rotation, decided anew at each call."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def policy(self, job: Job) -> Authority:
        """Wrapping, as long as the KEK is the newest; telling of what was wrapped, always."""
        async with self._store.read(job.organization_id) as connection:
            found = await keks.find_kek(connection, job.subject_id)
        if found is None:
            raise NotFound("kek")
        audience = ("scanner", "identity", *(("broker",) if found.state is KekState.ACTIVE else ()))
        return Authority(audience=audience, plan=plan_of(found.named.kek()))

    async def fetch_batch(self) -> SealedBatch:
        """The next batch; nothing to move where the KEK is the newest no more. Raises Denied (GRANT_INVALID)."""
        kek_id = _granted()
        async with self._store.read() as connection:
            found = await keks.find_kek(connection, kek_id)
            if found is None:
                raise NotFound("kek")
            kek, is_newest = found.named.kek(), found.state is KekState.ACTIVE
            batch = await store.list_to_move(connection, kek, kek_id) if is_newest else []
            return SealedBatch(
                kek, batch, await store.list_untold(connection), await store.count_stuck(connection, kek_id)
            )

    async def store_batch(self, work: UnitOfWork, given: Sequence[Moved], told: Sequence[UUID]) -> int:
        """Swap what was wrapped anew in, and note what the feed was told of; returns how many were swapped.

        Raises Denied (GRANT_INVALID), WrongState.
        """
        kek_id = _granted()
        await keks.lock(work.connection, work.organization_id)
        found = await keks.find_kek(work.connection, kek_id)
        if found is None or found.state is KekState.RETIRED:
            raise _wrong("RETIRED", "ACTIVE", "The key was retired meanwhile, so nothing is put under it.")
        await store.mark_told(work.connection, told)  # Before the swap: what is swapped now wasn't told yet.
        before = await store.find_envelopes(work.connection, [each.credential_id for each in given])
        kek = found.named.kek()
        moved = [each for each in given if each.envelope and _is_same(before.get(each.credential_id), each, kek)]
        swapped = await store.mark_rewrapped(work.connection, moved, work.now)
        stuck = [each for each in given if not each.envelope]
        await store.mark_stuck(work.connection, stuck, kek_id)
        said = {"version": str(found.version), "moved": str(swapped), "stuck": str(len(stuck))}
        work.emit(
            "scanner.kek.rewrap", f"keks/{kek_id}", {**said, "credentials": [str(m.credential_id) for m in moved]}
        )
        return swapped


def _granted() -> UUID:
    grant = current().grant
    if grant is None or grant.kind != REWRAP:
        raise Denied(Reason.ERROR_REASON_GRANT_INVALID, "The grant isn't for wrapping credentials anew.")
    return UUID(grant.subject)


def _is_same(before: bytes | None, moved: Moved, kek: Kek) -> bool:
    """Whether an envelope is under the KEK, and its payload is what it was. Version 1 is sealed anew as a whole."""
    if before is None:
        return False
    try:
        old, new = parse(before), parse(moved.envelope)
    except EnvelopeBroken:
        return False
    if new.kek != kek or new.version != 2:
        return False
    return old.version == 1 or (old.commitment, old.nonce, old.sealed) == (new.commitment, new.nonce, new.sealed)


def _required(found: RegisteredKek | None) -> RegisteredKek:
    if found is None:
        raise _wrong("NONE", "a key of the organization's own", "The organization named no key. Register one first.")
    return found


def _wrong(state: str, allowed: str, message: str) -> WrongState:
    return WrongState(Reason.ERROR_REASON_STATE_WRONG, message, {"state": state, "allowed": allowed})
