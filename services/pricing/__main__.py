"""The pricing process: `python -m services.pricing --config FILE`."""

from __future__ import annotations

import sys

from recoup.pricing.v1 import pricing_service_pb2
from services._mesh.pages import PageTokens
from services._mesh.process import Mesh, run
from services.pricing.config import PricingSettings
from services.pricing.data import load_catalogue
from services.pricing.rpc import PricingRpc


async def compose(mesh: Mesh, settings: PricingSettings) -> None:
    """Wire pricing together and serve."""
    mesh.follow_revocations()
    rpc = PricingRpc(load_catalogue(), PageTokens.from_file(settings.pricing.page_key))
    await mesh.serve([(pricing_service_pb2.DESCRIPTOR.services_by_name["PricingService"], rpc)])


if __name__ == "__main__":
    sys.exit(run(PricingSettings, compose, "Recoup's pricing service"))
