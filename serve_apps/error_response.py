"""The one shape of an error of the HTTP API: ``{"error": {"code": str, "message": str}}``."""

from starlette.responses import JSONResponse

CODES = {
    400: "bad_request",
    401: "unauthorised",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    415: "not_json",
    422: "invalid",
    429: "too_many_requests",
    503: "unavailable",
}
"""HTTP status -> word in ``error.code``."""


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error in the API's one shape."""
    return JSONResponse(
        {"error": {"code": CODES.get(status, "error"), "message": message}}, status_code=status, headers=headers
    )
