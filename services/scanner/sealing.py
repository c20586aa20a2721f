"""What the scanner's worker does about sealed credentials, which it can't open. Each may run again after any line."""

from __future__ import annotations

from dataclasses import dataclass

from services._mesh.claimed import ClaimedJob
from services._mesh.failpoints import reach
from services.scanner.clients.feed import Feed
from services.scanner.clients.rewrapping import Keeper, Wrapper
from services.scanner.usecases import keys


async def revoke(feed: Feed, job: ClaimedJob) -> None:
    """Tell the revocation feed that a credential isn't used any more; a key whose successor is in use ends by that."""
    await feed.revoked(job.grant, job.subject_id)
    async with job.begin() as work:
        await keys.end_key(work, job.subject_id)
        await job.finish(work)


@dataclass(frozen=True)
class Rotating:
    """Whom a rotation of KEKs asks."""

    feed: Feed
    keeper: Keeper
    wrapper: Wrapper


async def move(tools: Rotating, job: ClaimedJob) -> None:
    """Move one batch of credentials to the newest KEK, and tell the feed of the batch before.

    It comes again until nothing is left. Each lease is one batch, since a grant is good for one call of the broker.
    Where it stands is in the rows.
    """
    batch = await tools.keeper.fetch(job.grant)
    reach("rewrap.fetched")
    if batch.untold:
        await tools.feed.resealed(job.grant, batch.untold)
    reach("rewrap.told")
    moved = await tools.wrapper.moved(job.grant, batch) if batch.credentials else []
    reach("rewrap.wrapped")
    if moved or batch.untold:
        await tools.keeper.store(job.grant, moved, batch.untold)
    reach("rewrap.stored")
    async with job.begin() as work:
        if moved or batch.untold:
            await job.postpone(work, work.now)
        else:
            work.emit("scanner.kek.settle", f"keks/{job.subject_id}", {"stuck": str(batch.stuck)})
            await job.finish(work)
