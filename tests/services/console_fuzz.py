"""Every page and action of the console, asked with values that nobody means well with."""

import pathlib
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx2
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from api.console.loading import Console

CONSOLE = pathlib.Path(__file__).parents[2] / "api" / "console"
MARK = "gf4n4ry"
HOSTILE = (
    f"<script>{MARK}()</script>", f'"><img src=x onerror={MARK}()>', f"javascript:{MARK}()", "\u202egnp.exe", "{{7*7}}", "{%x%}",
    "é" * 300,
    "../../../etc/passwd", "%", "'; drop table job; --", "-1", "0", "9" * 40, "1e309", "nan", "true", "\u0000", "\r\nx: y",
    "[]", "{}", "@", "batch_" + "0" * 32, "job_" + "f" * 32, "x@1", "x@99999999999999999999", "Z̸͓̔" * 50, "\U000e0041", "",
)  # fmt: skip
IN_PATH = ("%ED%A0%80", "%FF%FE", "%25", "..%2F..", "x" * 3000, "9" * 5000, "%3Cscript%3E" + MARK, "%0D%0Ax", "%E2%80%AEx", "a%2Fb")
UNSENT = ("/sign-in", "/sign-out", "/csp", "/static")


class Asked(NamedTuple):
    """A request: its route, and what is sent."""

    method: str
    path: str
    given: Mapping[str, str]


def routes_of(app: Any) -> list[Route]:
    """The console's own routes."""
    inner = app._load() if isinstance(app, Console) else app
    while not isinstance(inner, Starlette):
        inner = inner._app
    return [route for route in inner.routes if isinstance(route, Route) and not route.path.startswith(UNSENT)]


def console_of(app: Any) -> Any:
    """The console that an application has mounted."""
    return next(route.app for route in app.routes if isinstance(route, Mount) and route.path == "/console")


def fields() -> list[str]:
    """The names of all fields that templates have, and of all parameters that pages read."""
    in_templates = {name for file in CONSOLE.rglob("*.html") for name in re.findall(r'\bname="([a-z_]+)"', file.read_text())}
    read = re.compile(r'(?:query|form)(?:\.get\(|\[)"([a-z_]+)"')
    in_pages = {name for file in (CONSOLE / "pages").rglob("*.py") for name in read.findall(file.read_text())}
    return sorted((in_templates | in_pages) - {"csrf", "viewport", "robots", "htmx-config", "color-scheme"})


def requests_of(app: Any, known: Mapping[str, str], *, seed: int, each: int) -> Iterator[Asked]:
    """Ask each route `each` times: parts of the path known or hostile, and a few fields, hostile."""
    rng, names = random.Random(seed), fields()
    for route in routes_of(app):
        parts = re.findall(r"{(\w+)(?::\w+)?}", route.path)
        for at in range(each):
            path = route.path
            for part in parts:
                value = quote(known[part], safe="") if part in known and at % 2 else rng.choice(IN_PATH)
                path = re.sub(rf"{{{part}(?::\w+)?}}", lambda _, value=value: value, path)
            given = {name: rng.choice(HOSTILE) for name in rng.sample(names, k=min(len(names), rng.randint(0, 8)))}
            method = "POST" if "POST" in (route.methods or ()) else "GET"
            yield Asked(method, f"/console{path}", given)


def wrong_with(client: httpx2.Client, asked: Asked, csrf: str) -> str | None:
    """What is wrong with the answer, or None: a failure of ours, a mark that is not text, an answer that may be kept."""
    if asked.method == "GET":
        answer = client.get(asked.path, params={name: value.replace("\0", "") for name, value in asked.given.items()})
    else:
        answer = client.post(asked.path, data={**asked.given, "csrf": csrf})
    told = f"{asked.method} {asked.path[:100]} {sorted(asked.given)}: {answer.status_code}"
    if answer.status_code >= 500 and answer.status_code != 503:  # nobody judges here: that is told with 503
        return told
    if answer.headers.get("cache-control") != "no-store" or "content-security-policy" not in answer.headers:
        return f"{told}, without its headers"
    if answer.headers.get("content-type", "").startswith("text/html") and marked(answer.text):
        return f"{told}, with markup that somebody else wrote"
    return None


def marked(page: str) -> Sequence[str]:
    """Markup of a page that has the mark in a tag or as a script."""
    return re.findall(rf"<(?:script|img)[^>]*>?{MARK}|<img[^>]*onerror|href=\"javascript:", page)
