"""The settings of actions and of its worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from services._mesh.aws_settings import AwsSettings
from services._mesh.config import Between, Seconds, SecretFile
from services._mesh.settings import MeshSettings


@dataclass(frozen=True, kw_only=True)
class ActionsKeys:
    """The key that page tokens are sealed with, and the Ed25519 key (PEM, PKCS #8) that receipts are signed with."""

    page_key: SecretFile
    receipt_key: SecretFile


@dataclass(frozen=True, kw_only=True)
class ActionsSettings(MeshSettings):
    """The API process of actions."""

    actions: ActionsKeys


@dataclass(frozen=True, kw_only=True)
class ExecutionSettings:
    """How the worker deals with the cloud.

    `settle_seconds`: how long the cloud may take to show what it has applied; before that, "not there" is no answer.
    `poll_seconds`: how often a change that takes its time is looked at.
    """

    threads: Annotated[int, Between(1, 200)] = 8
    settle_seconds: Seconds = 60.0
    poll_seconds: Seconds = 5.0


@dataclass(frozen=True, kw_only=True)
class ActionsWorkerSettings(MeshSettings):
    """The actions-worker process."""

    aws: AwsSettings = field(default_factory=AwsSettings)
    execution: ExecutionSettings = field(default_factory=ExecutionSettings)
