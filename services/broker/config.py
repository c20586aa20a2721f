"""The settings of the broker."""

from __future__ import annotations

from dataclasses import dataclass, field

from services._mesh.aws_settings import AwsSettings
from services._mesh.clouds import AzureSettings, FederationSettings, GoogleSettings
from services._mesh.kms.opening import KmsSettings
from services._mesh.settings import MeshSettings


@dataclass(frozen=True, kw_only=True)
class BrokerSettings(MeshSettings):
    """The broker process."""

    kms: KmsSettings
    aws: AwsSettings = field(default_factory=AwsSettings)
    azure: AzureSettings = field(default_factory=AzureSettings)
    google: GoogleSettings = field(default_factory=GoogleSettings)
    federation: FederationSettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kms.check_profile(self.process.profile)
