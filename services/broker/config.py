"""The settings of the broker."""

from __future__ import annotations

from dataclasses import dataclass, field

from services._mesh.aws import AwsSettings
from services._mesh.config import SecretFile
from services._mesh.settings import MeshSettings


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """The file KMS: the opening half of the KEK. Only the local profile may use it."""

    kek: SecretFile


@dataclass(frozen=True, kw_only=True)
class BrokerSettings(MeshSettings):
    """The broker process."""

    broker: KeySettings
    aws: AwsSettings = field(default_factory=AwsSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.process.profile != "local":
            raise ValueError("[broker] kek is a file KMS, which production refuses; configure a key service")
