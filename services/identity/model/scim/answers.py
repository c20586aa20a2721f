"""What SCIM is asked and what it answers, apart from how HTTP carries it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from scim2_models import Error, PreconditionFailedException, SCIMException

from services._mesh.errors import PASSING, AlreadyExists, NotFound, Problem, WrongState
from services.identity.model.scim.documents import matches


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `path` holds the decoded segments after the base; `body` is unread."""

    method: str
    path: tuple[str, ...]
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def require_current(self, tag: str) -> None:
        """Raise PreconditionFailedException unless `If-Match`, where it is given, names the resource's version."""
        given = self.headers.get("if-match", "")
        if given and not matches(tag, given):
            raise PreconditionFailedException(detail="Somebody changed it in between. Read it again, then repeat.")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: the status, the document where there is one, and headers beside those of every answer."""

    status: int
    document: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class MethodNotAllowed(SCIMException):
    """The path is there for other methods."""

    status = 405

    def __init__(self, allowed: str) -> None:
        super().__init__(detail=f"This path is for {allowed}.")
        self.allowed = allowed


def not_served() -> Answer:
    """The answer at a path that nothing is served at."""
    return Answer(404, _document(Error(status=404, detail="Nothing is served at this path.")))


def refusal(error: Exception) -> Answer | None:
    """The answer to what SCIM has words for; None for everything else."""
    if isinstance(error, MethodNotAllowed):
        return Answer(405, _document(error.to_error()), {"allow": error.allowed})
    if isinstance(error, SCIMException):
        return Answer(error.status, _document(error.to_error()))
    if isinstance(error, ValidationError):
        found = Error.from_validation_errors(error)[0]
        return Answer(found.status or 400, _document(found))
    if isinstance(error, Problem):
        return _refusal_of_rule(error)
    return None


def _refusal_of_rule(problem: Problem) -> Answer | None:
    """What the rules of membership refuse: the attempt doesn't go with the state that things are in."""
    if isinstance(problem, WrongState):
        return Answer(400, _document(Error(status=400, scim_type="mutability", detail=problem.message)))
    if isinstance(problem, AlreadyExists):
        return Answer(409, _document(Error(status=409, scim_type="uniqueness", detail=problem.message)))
    if isinstance(problem, NotFound):
        return Answer(404, _document(Error(status=404, detail=problem.message)))
    if isinstance(problem, PASSING):
        return Answer(503, _document(Error(status=503, detail=problem.message)))
    return None


def _document(error: Error) -> dict[str, Any]:
    text = (error.detail or "")[:500]
    return error.model_copy(update={"detail": text}).model_dump()
