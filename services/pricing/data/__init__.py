"""The catalogue's figures as data files, and reading them. No other module of pricing reads files of the repository."""

from __future__ import annotations

import json
from pathlib import Path

from services.pricing.model.catalogue import Catalogue, prices_of

FILES = ("aws_ec2_linux.json", "aws_storage_network.json")
_FOLDER = Path(__file__).parent


def load_catalogue() -> Catalogue:
    """The catalogue of this release. Raises CatalogueBroken."""
    documents = [json.loads((_FOLDER / name).read_text("utf-8")) for name in FILES]
    return Catalogue(price for document in documents for price in prices_of(document))
