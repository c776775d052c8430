"""What every route of ``/api/v1`` shares: JSON bodies, bounded pages, tenants, errors.

Knows no resource; how large a body may be is ``http_guard``'s. Invariant: a failure that
the project names reaches the caller as a status with a sentence, never as 500.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import orjson
from fastapi import HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, field_validator
from sqlalchemy.exc import DataError, DBAPIError

from cluster.errors import (
    CallTimeoutError,
    CircuitOpenError,
    RunNotFoundError,
    RunStateError,
    ServiceUnavailableError,
    UnknownLaneError,
    UnknownTaskError,
)
from ingest.errors import (
    AlertConflictError,
    AlertNotFoundError,
    BrokerUnavailableError,
    CommandConflictError,
    CommandNotFoundError,
    DeadLetterNotFoundError,
    DeviceBusyError,
    DirectoryConflictError,
    DirectoryNotFoundError,
    DirectoryReferenceError,
    HeartbeatNotFoundError,
    SilenceNotFoundError,
    StaleRevisionError,
    StoreUnavailableError,
    VersionConflictError,
)
from serve_apps.auth import Identity
from training.errors import (
    ModelFileError,
    ModelVersionNotFoundError,
    ReportNotFoundError,
    StaleLeaseError,
    UnknownDatasetError,
)

MAX_PAGE = 500
MAX_DEPTH = 32
RETRY_AFTER_S = 2

NOT_FOUND = (
    AlertNotFoundError,
    CommandNotFoundError,
    DeadLetterNotFoundError,
    DirectoryNotFoundError,
    HeartbeatNotFoundError,
    RunNotFoundError,
    SilenceNotFoundError,
    ModelVersionNotFoundError,
    ReportNotFoundError,
)
INVALID = (UnknownTaskError, UnknownLaneError, DirectoryReferenceError)
CONFLICT = (
    RunStateError,
    AlertConflictError,
    CommandConflictError,
    DeviceBusyError,
    DirectoryConflictError,
    VersionConflictError,
    StaleRevisionError,
    StaleLeaseError,
    ModelFileError,
    UnknownDatasetError,
)
UNAVAILABLE = (
    ServiceUnavailableError,
    StoreUnavailableError,
    BrokerUnavailableError,
    CircuitOpenError,
    CallTimeoutError,
    DBAPIError,
)


class Body(BaseModel):
    """A request's body: no field that we do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _can_be_stored(cls, value: Any) -> Any:
        # SQLite would keep it and PostgreSQL would not: here both floors answer the same.
        if isinstance(value, str) and "\0" in value:
            raise ValueError("must not hold a NUL character")
        return value


def _checked_json(value: dict[str, Any]) -> dict[str, Any]:
    # What Python's parser lets pass and others refuse: NaN, lone surrogates, a nest without end.
    _check_depth(value, MAX_DEPTH)
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")
    return value


def _check_depth(value: object, left: int) -> None:
    if left == 0:
        raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


JsonObject = Annotated[dict[str, Any], AfterValidator(_checked_json)]
"""A JSON object that every JSON parser reads."""
Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]
Level = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""Tenant or device, as a topic names it."""
RequestId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{8,64}$")]
"""The caller's own name for a change: sent twice, it happens once."""
PRINTABLE = r"^[^\x00-\x08\x0b-\x1f\x7f]*$"
"""Text that every store takes and every terminal shows; lines may break."""
Version = Annotated[int, Field(ge=0, lt=2**31)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Cursor = Annotated[str | None, Query(max_length=256, pattern=r"^[A-Za-z0-9_=:.-]+$")]


class ApiRoute(APIRoute):
    """A route with the border's rules around its handler."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            if request.method in {"POST", "PUT", "PATCH"}:
                _check_type(request)
                # Read here: where FastAPI reads it, the guard's "too large" would become its own 400.
                await request.body()
            try:
                return await handle(request)
            except RequestValidationError as error:
                if any(one["type"] == "json_invalid" for one in error.errors()):
                    raise HTTPException(400, "the body is not JSON") from error
                raise
            except NOT_FOUND as error:
                raise HTTPException(404, str(error)) from error
            except INVALID as error:
                raise HTTPException(422, str(error)) from error
            except DataError as error:
                raise HTTPException(422, "the SQL store cannot keep a value: too long, or out of range") from error
            except CONFLICT as error:
                raise HTTPException(409, str(error)) from error
            except UNAVAILABLE as error:
                # A driver's text may hold the statement and its values: the class says enough.
                text = "the SQL store does not answer" if isinstance(error, DBAPIError) else str(error)
                raise HTTPException(503, text, headers={"Retry-After": str(RETRY_AFTER_S)}) from error

        return guarded


def tenant_of(identity: Identity) -> str | None:
    """Return the one tenant whose objects ``identity`` may see; None: those of all tenants.

    Raises:
        HTTPException: 403, the identity belongs to no tenant and is not floor-wide.
    """
    if identity.is_floor_wide:
        return None
    if identity.tenant is None:
        raise HTTPException(403, "without a tenant this needs the role operator or above")
    return identity.tenant


def json_answer(content: Any, status: int = 200) -> Response:
    """Return an answer without FastAPI's walk through it, which takes longer than all the rest of a long list."""
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "the body must be application/json")
