"""The page, or the part of one, that says why a request is refused or has failed."""

import http
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from api.console.asking import Ask, language_of
from api.console.navigation import HOME
from api.console.rendering import render

# What the framework says is for programs.
SAID: Mapping[int, str] = {
    404: "There is no such page.",
    405: "A page cannot be asked for like this.",
    500: "guardfleet failed on this request: its operator finds the number below in the log.",
}


def page(request: Request, status: int, detail: str, headers: Mapping[str, str]) -> Response:
    """Return the page: in the frame of whoever is signed in; alone for anybody else, or if htmx asks."""
    session = getattr(request.state, "session", None)
    fragment = "hx-request" in request.headers
    number = getattr(request.state, "request_id", "")  # none: it could not even be read
    values = {"status": status, "title": http.HTTPStatus(status).phrase, "detail": detail, "request_id": number}
    if session is None or fragment:
        template, around = ("error_part.html" if fragment else "error_alone.html"), {"theme": "auto", "home": HOME}
    else:
        template, around = "error.html", Ask(request, request.app.state.context, request.app.state.access, session).around()
    if fragment:  # a part of the page could not be had: its place keeps what it shows, and the page says why
        headers = {**headers, "HX-Retarget": "#notice", "HX-Reswap": "innerHTML"}
    return HTMLResponse(render(template, language=language_of(request, session), **around, **values), status, headers)


def page_of(request: Request, status: int, detail: str, headers: Mapping[str, str]) -> Response:
    """Return the page in place of an answer that was made for programs."""
    return page(request, status, SAID.get(status, detail), headers)
