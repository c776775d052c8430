"""The way in: a link that works once becomes a cookie.

The page itself is ``pages.py``'s. Invariant: the cookie is HttpOnly and SameSite=Strict,
and only a signed key that nobody used before makes one.
"""

import asyncio
import html
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from serve_apps.api.border import ApiRoute
from serve_apps.auth import SESSION_TTL_S
from serve_apps.deps import deps_of
from serve_apps.errors import AuthenticationError
from serve_apps.pages import PAGE

router = APIRouter(route_class=ApiRoute)

REASON = "<!-- reason -->"


@router.get("/signin", include_in_schema=False)
async def sign_in(request: Request, key: Annotated[str, Query(max_length=8192)] = "") -> Response:
    """Exchange the key of a link for a session."""
    auth = deps_of(request).auth
    if not key:
        return await _refusal("The link is incomplete: it has no key.")
    try:
        _, session = await auth.redeem(key)
    except AuthenticationError as error:
        return await _refusal(f"The link was not accepted: {error}.")
    response: Response = RedirectResponse("/", status_code=303)
    if request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        # A browser that comes from another site (a web mail) keeps a Strict cookie back on the
        # redirect as well; a page of our own that moves on by itself is a fresh start.
        response = HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0; url=/">')
    response.headers["Cache-Control"] = "no-store"
    response.set_cookie(
        auth.cookie_name,
        session,
        max_age=int(SESSION_TTL_S),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


async def _refusal(reason: str) -> Response:
    text = await asyncio.to_thread((PAGE / "signin.html").read_text, encoding="utf-8")
    return HTMLResponse(
        text.replace(REASON, html.escape(reason)), status_code=401, headers={"Cache-Control": "no-store"}
    )
