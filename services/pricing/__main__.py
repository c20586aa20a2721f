"""The pricing process: `python -m services.pricing --config FILE`."""

from __future__ import annotations

import sys

from recoup.pricing.v1 import bill_service_pb2, pricing_service_pb2
from services._mesh.credentials import CredentialKeeper
from services._mesh.job_tasks import own_jobs
from services._mesh.pages import PageTokens
from services._mesh.process import Mesh, run
from services._mesh.producing import produce
from services._mesh.threads import BoundedThreads
from services.pricing.clients.peers import Identity, Scanner
from services.pricing.config import PricingSettings
from services.pricing.data import load_catalogue
from services.pricing.rpc import BillRpc, PricingRpc
from services.pricing.usecases.bills import IMPORT_BILL, Policies
from services.pricing.working import give_up

_PRICING = pricing_service_pb2.DESCRIPTOR.services_by_name["PricingService"]
_BILL = bill_service_pb2.DESCRIPTOR.services_by_name["BillService"]


async def compose(mesh: Mesh, settings: PricingSettings) -> None:
    """Wire pricing together and serve."""
    store, pages = mesh.store("pricing"), PageTokens.from_file(settings.pricing.page_key)
    mesh.follow_revocations()
    produce(mesh, "pricing", store)
    policies = Policies(store, Identity(mesh.channels.to("identity")), CredentialKeeper(mesh.channels.to("scanner")))
    office = await own_jobs(mesh, "pricing", store, {IMPORT_BILL: policies.import_bill}, on_dead=give_up)
    threads = BoundedThreads(settings.pricing.measuring_threads, "measuring")
    scanner = Scanner(mesh.channels.to("scanner"), mesh.exchange())
    bills = BillRpc(store, office.planner, scanner, pages, threads, mesh.clock)
    try:
        await mesh.serve([(_PRICING, PricingRpc(load_catalogue(), pages)), (_BILL, bills), office.service])
    finally:
        threads.close()


if __name__ == "__main__":
    sys.exit(run(PricingSettings, compose, "Recoup's pricing service"))
