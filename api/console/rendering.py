"""Templates to HTML: everything is escaped, and every character of what others wrote is made visible."""

import datetime as dt
import hashlib
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from api.console.language import DEFAULT, LANGUAGES, translator
from api.console.visible import Exact, visible

STATIC = "/console/static/"
NONE = "\u2013"  # what stands where there is no value


def render(template: str, *, language: str = DEFAULT, **values: Any) -> str:
    """Return the page. StrictUndefined: a template that names what is not there is a defect, and an error."""
    return _templates(language).get_template(template).render(**values)


@cache
def _templates(language: str) -> Environment:
    made = Environment(
        loader=PackageLoader("api.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    made.globals.update(_=translator(language), language=language, languages=LANGUAGES, static=static_url)
    made.filters.update(exact=Exact, number=number, percent=percent, when=when, span=span, size=size)
    return made


@cache
def static_url(name: str) -> str:
    """Return the address of a file of `static`; it changes with the file, so that browsers may keep it for good."""
    content = (resources.files("api.console") / "static" / name).read_bytes()
    return f"{STATIC}{name}?v={hashlib.sha256(content).hexdigest()[:12]}"


def number(value: float) -> str:
    """Format a count or a figure: `1,234,567`, `0.25`."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3g}" if abs(value) < 100 else f"{value:,.0f}"  # noqa: PLR2004


def percent(share: float) -> str:
    """Format a share of one: `12.3 %`."""
    return f"{100 * share:.1f} %"


def when(at: dt.datetime | None) -> Markup | str:
    """Format a time, with the exact one for machines and for those who point at it; a script shows it in local time."""
    if at is None:
        return NONE
    utc = at.astimezone(dt.UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        utc.isoformat(timespec="seconds"), utc.strftime("%Y-%m-%d %H:%M:%S UTC"), utc.strftime("%Y-%m-%d %H:%M UTC")
    )


def span(seconds: float | None) -> str:
    """Format a duration: `3.2 s`, `4 min`, `2.5 h`, `3 d`."""
    if seconds is None:
        return NONE
    for least, unit, per in ((172_800, "d", 86_400), (5400, "h", 3600), (90, "min", 60)):
        if seconds >= least:
            return f"{seconds / per:.3g} {unit}"
    return f"{seconds:.3g} s"


def size(n: float) -> str:
    """Format bytes: `3.2 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:  # noqa: PLR2004
            return f"{n:.3g} {unit}"
        n /= 1024
    return f"{n:.3g} TiB"
