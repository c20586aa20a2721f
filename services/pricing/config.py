"""The settings of pricing and of its worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from services._mesh.aws_settings import AwsSettings
from services._mesh.config import Between, SecretFile
from services._mesh.settings import MeshSettings


@dataclass(frozen=True, kw_only=True)
class PricingKeys:
    """The key that page tokens are sealed with, and how many measurements are computed at once."""

    page_key: SecretFile
    measuring_threads: Annotated[int, Between(1, 32)] = 2


@dataclass(frozen=True, kw_only=True)
class PricingSettings(MeshSettings):
    """The pricing process."""

    pricing: PricingKeys


@dataclass(frozen=True, kw_only=True)
class FetchingSettings:
    """How bills are fetched. A day counts as complete `settle_hours` after its end: providers add to it for a while.

    `most_gib` is what the files of one billing period may have together, as they lie in the bucket.
    """

    threads: Annotated[int, Between(1, 64)] = 4
    settle_hours: Annotated[int, Between(0, 240)] = 24
    most_gib: Annotated[int, Between(1, 1024)] = 16


@dataclass(frozen=True, kw_only=True)
class PricingWorkerSettings(MeshSettings):
    """The pricing-worker process."""

    aws: AwsSettings = field(default_factory=AwsSettings)
    fetching: FetchingSettings = field(default_factory=FetchingSettings)
