"""The settings of the pricing service."""

from __future__ import annotations

from dataclasses import dataclass

from services._mesh.config import SecretFile
from services._mesh.settings import MeshSettings


@dataclass(frozen=True, kw_only=True)
class CatalogueSettings:
    """The key that page tokens are sealed with."""

    page_key: SecretFile


@dataclass(frozen=True, kw_only=True)
class PricingSettings(MeshSettings):
    """The pricing process."""

    pricing: CatalogueSettings
