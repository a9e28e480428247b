"""A request for a page: who asks, what is asked, and the answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from api.console import language
from api.console.access import FIELD, HEADER, Access
from api.console.navigation import address, areas_of
from api.console.rendering import render
from api.context import Context
from api.http.problems import ProblemError
from api.http.threads import in_thread
from guardfleet.store.keys import Caller
from guardfleet.store.postgres.database import Database
from guardfleet.store.sessions import Session

P = ParamSpec("P")
T = TypeVar("T")
MOST_FIELDS = 1000
SMALL = 1 << 16  # bytes of a form that is parsed at once; a larger one beside the event loop
THEMES = ("auto", "light", "dark")


@dataclass
class Ask:
    """A request of somebody who is signed in.

    `form`: the fields of an action, the last of each name; `fields`: all of them, in order.
    """

    request: Request
    context: Context
    access: Access
    session: Session
    fields: list[tuple[str, str]] = field(default_factory=list)

    @property
    def caller(self) -> Caller:
        """Whose tenant, and what the person may do."""
        return self.session.caller

    @property
    def db(self) -> Database:
        """The database."""
        return self.context.db

    @property
    def form(self) -> Mapping[str, str]:
        """The fields of an action."""
        return dict(self.fields)

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the address, empty ones left out, as a form without choices sends them."""
        return {name: value for name, value in self.request.query_params.items() if value}

    @property
    def path(self) -> Mapping[str, str]:
        """The parts of the path that the route names."""
        return self.request.path_params

    @property
    def is_fragment(self) -> bool:
        """Whether htmx asks, which replaces a part of the page."""
        return "hx-request" in self.request.headers

    @property
    def language(self) -> str:
        """The person's language."""
        return language_of(self.request, self.session)

    def say(self, sentence: str, **values: object) -> str:
        """Say a sentence in the person's language."""
        return language.translator(self.language)(sentence, **values)

    def may(self, scope: str) -> bool:
        """Return whether the person may do something."""
        return self.caller.may(scope)

    def require(self, scope: str) -> None:
        """Raise ProblemError 403 unless the person may do this."""
        if not self.may(scope):
            raise ProblemError(403, "insufficient_scope", f"your role lacks the scope {scope}.")

    def number(self, name: str, *, otherwise: int, least: int = 0, most: int = 2**31 - 1) -> int:
        """Return a whole number of the query, or of the form. Raises ProblemError 400."""
        given = self.query.get(name) or self.form.get(name) or str(otherwise)
        if not (given.isascii() and given.isdecimal() and len(given) < 11 and least <= int(given) <= most):  # noqa: PLR2004
            raise ProblemError(400, "invalid_parameter", f"{name} must be a number from {least} to {most}.", param=name)
        return int(given)

    async def of(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a blocking function beside the event loop."""
        return await in_thread(function, *args, **kwargs)

    def render(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page, or a part of one, in the person's language."""
        return HTMLResponse(render(template, language=self.language, **self.around(), **values), status)

    def around(self) -> dict[str, Any]:
        """Return what every page needs."""
        token = self.access.token_of(self.request) or ""
        theme = self.session.preferences.get("theme")
        return {
            "ask": self,
            "areas": areas_of(self.caller),
            "here": self.request.url.path,
            "csrf": self.access.csrf(token),
            "theme": theme if theme in THEMES else "auto",
            "notice": NOTICES.get(self.query.get("done", "")),
        }

    def back(self, path: str, *, done: str = "", **query: object) -> Response:
        """Send the browser to a page, with one of NOTICES if something was done."""
        given = {name: value for name, value in {**query, "done": done}.items() if value not in ("", None)}
        to = address(f"{path}{'&' if '?' in path else '?'}{urlencode(given)}" if given else path)
        if self.is_fragment:
            return Response(status_code=204, headers={"HX-Redirect": to})
        return RedirectResponse(to, 303)


# What a page says after an action, by the word in its address: an address cannot make a page say anything else.
NOTICES: dict[str, str] = {
    "saved": "Saved.",
    "stored": "Stored as a new version.",
    "unchanged": "It equals the newest version: nothing was stored.",
    "activated": "It is applied from now on.",
    "deactivated": "It is no longer applied.",
    "signed_out": "You are signed out.",
    "deployed": "Stored: workers take it up within seconds.",
    "promoted": "It is rolled out: workers change to it, one after the other.",
    "stopped": "Stopped: workers leave it within seconds.",
    "rolled_back": "Rolled back: workers go back to the model from before.",
    "resent": "It is sent again: its state changes within seconds.",
    "nothing_resent": "No delivery since then was given up: nothing is sent again.",
    "tested": "The receiver took the test event.",
    "enabled": "Enabled: what happens from now on is sent to it.",
    "disabled": "Disabled: nothing is sent to it.",
    "deleted": "Deleted.",
    "revoked": "Revoked: it is refused within seconds.",
    "session_ended": "The session is ended, within seconds everywhere.",
    "job_made": "The job was submitted.",
    "job_cancelled": "The job was cancelled; verdicts that it has are kept.",
    "job_paused": "The job is paused: shards in work finish, and no other begins.",
    "job_resumed": "The job goes on.",
    "job_prioritised": "The priority was changed.",
    "job_retried": "This new job judges the failed texts again.",
}


def language_of(request: Request, session: Session | None) -> str:
    """Return the language of a page: what the person chose, else what the browser prefers."""
    chosen = session.preferences.get("language") if session else None
    return chosen if chosen in language.LANGUAGES else language.preferred(request.headers.get("accept-language", ""))


async def form_of(request: Request, most_bytes: int) -> list[tuple[str, str]]:
    """Read the fields of a form. Raises ProblemError 400, 413, 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await body_of(request, most_bytes)
    if body and kind != "application/x-www-form-urlencoded":
        raise ProblemError(415, "unsupported_content_type", "send a form.")
    return _parsed(body) if len(body) <= SMALL else await in_thread(_parsed, body)


def _parsed(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except (ValueError, UnicodeDecodeError):
        raise ProblemError(400, "invalid_form", "this is no form, or it has too many fields.") from None


async def body_of(request: Request, most_bytes: int) -> bytes:
    """Read a body. Raises ProblemError 413."""
    parts, n = [], 0
    async for part in request.stream():
        n += len(part)
        if n > most_bytes:
            raise ProblemError(413, "too_large", f"this is too large: at most {most_bytes} bytes are allowed here.")
        parts.append(part)
    return b"".join(parts)


def given_csrf(request: Request, fields: Mapping[str, str]) -> str:
    """Return the token that a script or a form sent."""
    return request.headers.get(HEADER) or fields.get(FIELD, "")
