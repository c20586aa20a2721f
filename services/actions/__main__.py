"""The API process of actions: `python -m services.actions --config FILE`."""

from __future__ import annotations

import sys
from functools import partial

from recoup.actions.v1 import actions_service_pb2
from services._mesh.config import usable
from services._mesh.credentials import CredentialKeeper
from services._mesh.job_tasks import own_jobs
from services._mesh.jobs import Planner
from services._mesh.pages import PageTokens
from services._mesh.process import Mesh, run
from services._mesh.producing import produce
from services.actions.clients.peers import Bills, Identity, Log, Scanner
from services.actions.config import ActionsSettings
from services.actions.rpc import ActionsRpc, Peers
from services.actions.usecases.policies import Policies
from services.actions.usecases.receipts import ReceiptKey, forget_finals
from services.actions.usecases.requests import CHECKPOINT, EXECUTE, EXPIRE
from services.actions.working.outcomes import give_up


async def compose(mesh: Mesh, settings: ActionsSettings) -> None:
    """Wire actions together and serve."""
    store = mesh.store("actions")
    mesh.follow_revocations()
    produce(mesh, "actions", store, on_erased=partial(forget_finals, store))
    channel, exchange = mesh.channels.to, mesh.exchange()
    identity = Identity(channel("identity"))
    peers = Peers(
        identity,
        Scanner(channel("scanner"), exchange),
        Bills(channel("pricing"), exchange),
        Log(channel("audit"), exchange),
    )
    planner, keeper = Planner(mesh.signing_key(), mesh.name, mesh.clock), CredentialKeeper(channel("scanner"))
    policies = Policies(store, planner, identity, keeper, mesh.clock)
    kinds = {EXECUTE: policies.execute, CHECKPOINT: policies.checkpoint, EXPIRE: policies.expire}
    office = await own_jobs(mesh, "actions", store, kinds, on_dead=give_up)
    keys = settings.actions
    pages = PageTokens.from_file(keys.page_key)
    with usable(keys.receipt_key, "actions.receipt_key", "Make one, and have the key manifest list it."):
        receipt_key = ReceiptKey(keys.receipt_key)
    rpc = ActionsRpc(store, office.planner, peers, receipt_key, pages, mesh.clock)
    await mesh.serve([(actions_service_pb2.DESCRIPTOR.services_by_name["ActionsService"], rpc), office.service])


if __name__ == "__main__":
    sys.exit(run(ActionsSettings, compose, "Recoup's service for actions"))
