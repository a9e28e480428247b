"""The console's templates to HTML, in each language; addresses of static files."""

import datetime as dt
import hashlib
import json
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from api.console.language import DEFAULT, LANGUAGES, teller, translator
from guardfleet.report.formats import NONE
from guardfleet.report.templating import environment
from guardfleet.report.visible import Exact

STATIC = "/console/static/"


def render(template: str, *, language: str = DEFAULT, **values: Any) -> str:
    """Return the page."""
    return _templates(language).get_template(template).render(**values)


@cache
def _templates(language: str) -> Environment:
    made = environment("api.console")
    made.globals.update(_=translator(language), told=teller(language), language=language, languages=LANGUAGES, static=static_url)
    made.filters.update(exact=Exact, when=when, json=as_json)
    return made


def as_json(value: object) -> str:
    """Format a value as JSON, in its own letters."""
    return json.dumps(value, ensure_ascii=False, default=str)


@cache
def static_url(name: str) -> str:
    """Return the address of a file of `static`; it changes with the file, so that browsers may keep it for good."""
    content = (resources.files("api.console") / "static" / name).read_bytes()
    return f"{STATIC}{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


def when(at: dt.datetime | None) -> Markup | str:
    """Format a time, with the exact one for machines and for those who point at it; a script shows it in local time."""
    if at is None:
        return NONE
    utc = at.astimezone(dt.UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        utc.isoformat(timespec="seconds"), utc.strftime("%Y-%m-%d %H:%M:%S UTC"), utc.strftime("%Y-%m-%d %H:%M UTC")
    )
