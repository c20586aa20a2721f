"""Bulk jobs (RFC 7644, 3.7): operations one after the other, each of which commits alone or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from pydantic import ValidationError
from scim2_models import InvalidPathException, InvalidSyntaxException, InvalidValueException, SCIMException
from scim2_models import PayloadTooLargeException as TooLarge

from services._mesh.errors import PASSING, AlreadyExists, NotFound, WrongState
from services.identity.model.scim.answers import Answer, MethodNotAllowed, Request, refusal
from services.identity.model.scim.bodies import read_object
from services.identity.model.scim.resources import BASE, MAX_OPERATIONS
from services.identity.usecases.scim.endpoint import MODELS, Caller, change

_REQUEST = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
_RESPONSE = "urn:ietf:params:scim:api:messages:2.0:BulkResponse"
_REFERENCE = "bulkId:"
_METHODS = ("POST", "PUT", "PATCH", "DELETE")
# What one operation may end with. Where a part of us is away, the job ends there, and says how far it came.
_REFUSALS = (SCIMException, ValidationError, WrongState, AlreadyExists, NotFound, *PASSING)


async def run_bulk(caller: Caller, request: Request) -> Answer:
    """Do a bulk job; the answer says of each operation how it ended. Raises SCIMException where the job can't begin."""
    if request.method != "POST":
        raise MethodNotAllowed("POST")
    operations, most_errors = _read(read_object(request.body))
    made: dict[str, str] = {}
    done, errors = [], 0
    for each in operations:
        if most_errors and errors >= most_errors:
            break
        answer = await _done(caller, each, made)
        errors += answer.status >= 400
        done.append(_result(each, answer))
        if answer.status >= 500:
            break
    return Answer(200, {"schemas": [_RESPONSE], "Operations": done})


def _read(body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
    given = {name.lower(): value for name, value in body.items()}
    operations, most_errors = given.get("operations"), given.get("failonerrors", 0)
    if given.get("schemas") != [_REQUEST]:
        raise InvalidSyntaxException(detail=f"A bulk job has the schema {_REQUEST}.")
    if not isinstance(operations, list) or not operations or not all(isinstance(each, dict) for each in operations):
        raise InvalidSyntaxException(detail="Operations must be a list of objects.")
    if len(operations) > MAX_OPERATIONS:
        raise TooLarge(detail=f"A bulk job may have at most {MAX_OPERATIONS} operations.")
    if not isinstance(most_errors, int) or isinstance(most_errors, bool) or most_errors < 0:
        raise InvalidValueException(detail="failOnErrors must be a whole number.")
    ids = [str(each["bulkId"]) for each in operations if each.get("bulkId")]
    if len(set(ids)) != len(ids):
        raise InvalidValueException(detail="A bulkId is given twice.")
    return operations, most_errors


async def _done(caller: Caller, operation: Mapping[str, Any], made: dict[str, str]) -> Answer:
    try:
        answer = await _one(caller, operation, made)
    except _REFUSALS as error:
        refused = refusal(error)
        assert refused is not None
        return refused
    name = operation.get("bulkId")
    if answer.status == 201 and answer.document and isinstance(name, str):
        made[name] = str(answer.document["id"])
    return answer


async def _one(caller: Caller, operation: Mapping[str, Any], made: Mapping[str, str]) -> Answer:
    method, path, data = operation.get("method"), operation.get("path"), operation.get("data")
    if not isinstance(method, str) or method.upper() not in _METHODS:
        raise InvalidSyntaxException(detail=f"An operation's method is one of {', '.join(_METHODS)}.")
    method = method.upper()
    if method == "POST" and not isinstance(operation.get("bulkId"), str):
        raise InvalidSyntaxException(detail="A POST needs a bulkId.")
    kind, identifier = _target(path, made)
    if method != "DELETE" and not isinstance(data, dict):
        raise InvalidSyntaxException(detail=f"A {method} needs its data.")
    version = operation.get("version")
    headers = {"if-match": version} if isinstance(version, str) else {}
    payload = _resolved(data, made) if isinstance(data, dict) else {}
    return await change(caller, kind, identifier, payload, Request(method, (kind,), headers=headers))


def _target(path: Any, made: Mapping[str, str]) -> tuple[str, str]:
    if not isinstance(path, str):
        raise InvalidSyntaxException(detail="An operation needs a path, such as /Users.")
    parts = [unquote(each) for each in path.removeprefix(BASE).strip("/").split("/")]
    if parts[0] not in MODELS or len(parts) > 2:
        raise InvalidPathException(detail=f"Nothing is served at {path[:200]!r}.")
    return parts[0], _reference(parts[1], made) if len(parts) == 2 else ""


def _resolved(value: Any, made: Mapping[str, str]) -> Any:
    """The data with the ids of what earlier operations made in place of references to them."""
    if isinstance(value, dict):
        return {name: _resolved(each, made) for name, each in value.items()}
    if isinstance(value, list):
        return [_resolved(each, made) for each in value]
    return _reference(value, made) if isinstance(value, str) else value


def _reference(text: str, made: Mapping[str, str]) -> str:
    if not text.startswith(_REFERENCE):
        return text
    found = made.get(text.removeprefix(_REFERENCE))
    if found is None:
        raise InvalidValueException(detail=f"No operation before this one made {text[:100]!r}.")
    return found


def _result(operation: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    result: dict[str, Any] = {"method": str(operation.get("method", ""))[:10], "status": str(answer.status)}
    if isinstance(operation.get("bulkId"), str):
        result["bulkId"] = operation["bulkId"]
    where = answer.headers.get("location") or answer.headers.get("content-location")
    if where is None and result["method"].upper() != "POST":
        where = f"{BASE}/{str(operation.get('path', '')).removeprefix(BASE).strip('/')}"
    if where:
        result["location"] = where
    if "etag" in answer.headers:
        result["version"] = answer.headers["etag"]
    if answer.status >= 400:
        result["response"] = answer.document
    return result
