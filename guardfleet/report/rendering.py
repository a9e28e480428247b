"""A report as one HTML file that asks for nothing: its stylesheet and drawings are in it, and it has no script."""

import base64
import hashlib
from functools import cache
from importlib import metadata, resources

from jinja2 import Environment
from markupsafe import Markup

from guardfleet.domain import ids
from guardfleet.domain.verdict import ERROR_CODES, ServedBy, Severity
from guardfleet.report.contents import Report
from guardfleet.report.templating import environment
from guardfleet.report.wording import LANGUAGES, translator
from guardfleet.store.jobs.figures import BINS

STACKED = (Severity.SAFE, Severity.CONTROVERSIAL, Severity.UNSAFE, Severity.ERROR, Severity.UNRATED)


def render(report: Report, *, language: str = LANGUAGES[0]) -> str:
    """Return the page."""
    return _environment(language).get_template("report.html").render(report=report, job=report.job).lstrip()


@cache
def _environment(language: str) -> Environment:
    style = (resources.files("guardfleet.report") / "report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    made = environment("guardfleet.report")
    made.globals.update(
        _=translator(language), language=language, style=Markup(style), style_digest=digest, version=metadata.version("guardfleet"),  # noqa: S704
        stacked=STACKED, error_codes=ERROR_CODES, bins=BINS, label_of=ids.JOB.of, file_of=ids.FILE.of, by_model=ServedBy.MODEL,
        severities=Severity,
    )  # fmt: skip
    return made
