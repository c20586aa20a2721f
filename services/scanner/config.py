"""The settings of the scanner and of its worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from services._mesh.aws_settings import AwsSettings
from services._mesh.clouds import AzureSettings, GoogleSettings, IssuerUrl
from services._mesh.config import Between, Matches, SecretFile
from services._mesh.kms.opening import KmsSettings
from services._mesh.settings import MeshSettings


@dataclass(frozen=True, kw_only=True)
class ScannerKeys:
    """The key that page tokens are sealed with; the AWS principal and the federation's issuer that the broker has by
    itself, if any; and whether organizations that say nothing may connect with long-lived keys.
    """

    page_key: SecretFile
    aws_principal: Annotated[str, Matches(r"(arn:aws[a-z-]*:iam::[0-9]{12}:(user|role)/\S+)?", "an ARN")] = ""
    static_keys: Literal["forbidden", "allowed"] = "forbidden"
    federation_issuer: IssuerUrl | None = None


@dataclass(frozen=True, kw_only=True)
class ScannerSettings(MeshSettings):
    """The scanner's API process. In its key service it may wrap, and not unwrap."""

    scanner: ScannerKeys
    kms: KmsSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kms.check_profile(self.process.profile)


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """How many calls to the cloud run at once."""

    threads: Annotated[int, Between(1, 200)] = 12


@dataclass(frozen=True, kw_only=True)
class CheckingSettings:
    """How often connections are checked."""

    every_hours: Annotated[float, Between(1.0, 744.0)] = 24.0


@dataclass(frozen=True, kw_only=True)
class ScannerWorkerSettings(MeshSettings):
    """The scanner-worker process."""

    aws: AwsSettings = field(default_factory=AwsSettings)
    azure: AzureSettings = field(default_factory=AzureSettings)
    google: GoogleSettings = field(default_factory=GoogleSettings)
    reading: ReadingSettings = field(default_factory=ReadingSettings)
    checking: CheckingSettings = field(default_factory=CheckingSettings)
