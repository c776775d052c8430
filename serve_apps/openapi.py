"""The OpenAPI document of the gateway's HTTP routes, and the route that serves it.

Describes and changes nothing: every route's own schemas, and what all routes share -- who
may call (``authorisation.ROUTES``) and the one shape of errors. Invariant: the document
follows from the code alone, so ``docs/openapi.json`` can be compared with it.

    python -m serve_apps.openapi > docs/openapi.json
"""

import re
import sys
from typing import Annotated, Any, cast

import orjson
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response

from serve_apps.api.shapes import SHAPES
from serve_apps.auth import Identity, Role
from serve_apps.authorisation import ROUTES, Access, require

router = APIRouter()

ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Why a request was not carried out.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string", "description": "A word for the status."},
                "message": {"type": "string", "description": "A sentence for people."},
            },
        }
    },
}
ERRORS_OF_ALL = {"401": "No proof of who calls.", "403": "The role is missing.", "503": "A part does not answer."}
ERRORS_OF_BODIES = {"400": "The body is not JSON.", "413": "The body is too large."}
ERRORS_OF_FIELDS = {"422": "A field is unknown, missing, of the wrong type or out of range."}
ERRORS_OF_CHANGES = {
    "404": "No such thing, or another tenant's.",
    "409": "The thing is in another state, or the request_id was used for something else.",
    "415": "The body is not application/json.",
}
ERRORS_OF_PATHS = {"404": "No such thing, or another tenant's."}
SECURITY: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


@router.get("/api/openapi.json", response_model=dict[str, Any])
async def read_document(request: Request, _identity: Annotated[Identity, Depends(require(Role.VIEWER))]) -> Response:
    """Return this document."""
    app = cast(FastAPI, request.app)
    app.openapi_schema = app.openapi_schema or document(app)
    return Response(orjson.dumps(app.openapi_schema), media_type="application/json")


def document(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of an application's routes."""
    found = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = found.setdefault("components", {})
    components.setdefault("schemas", {})["Error"] = ERROR_SCHEMA
    components["securitySchemes"] = SECURITY
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            template = re.sub(r"{[^}]*}", "{}", path)
            key = (method.upper(), template)
            _complete(operation, template, ROUTES[key])
            if key in SHAPES:
                _success(operation)["content"]["application/json"]["schema"] = SHAPES[key]
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape, which no route of ours has
        components["schemas"].pop(unused, None)
    return found


def text() -> str:
    """Return the content of ``docs/openapi.json``."""
    from serve_apps.app import ROUTERS, TITLE, VERSION

    app = FastAPI(title=TITLE, version=VERSION)
    app.router.routes.clear()  # FastAPI's own pages
    for one in ROUTERS:
        app.include_router(one)
    return orjson.dumps(document(app), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode() + "\n"


def _complete(operation: dict[str, Any], path: str, access: Role | Access) -> None:
    """Add what all routes share."""
    operation["summary"] = operation["description"].partition("\n")[0]
    operation["responses"].pop("422", None)
    errors: dict[str, str] = {}
    if isinstance(access, Role):
        operation["security"] = [{name: []} for name in SECURITY]
        operation["x-least-role"] = access.value
        errors |= ERRORS_OF_ALL
    if "requestBody" in operation:
        errors |= ERRORS_OF_BODIES
        if path.startswith("/api/v1/"):
            errors |= ERRORS_OF_CHANGES
    if "requestBody" in operation or "parameters" in operation:
        errors |= ERRORS_OF_FIELDS
    if "{}" in path:
        errors |= ERRORS_OF_PATHS
    for status, description in errors.items():
        operation["responses"].setdefault(
            status,
            {
                "description": description,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        )


def _success(operation: dict[str, Any]) -> dict[str, Any]:
    (answer,) = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    return cast(dict[str, Any], answer)


def main() -> int:
    """Print the document."""
    sys.stdout.write(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
