"""Findings as lines or as one JSON object, without secrets: whatever a library says, no password of a URL is shown."""

import json
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from pydantic import SecretStr

from guardfleet import __version__
from guardfleet.cli import DONE, UNUSABLE, terminal
from guardfleet.cli.doctor.findings import Finding, Status
from guardfleet.settings import Settings

MARKS = {Status.OK: ("ok ", "green"), Status.WARNING: ("but", "yellow"), Status.FAILED: ("no ", "red")}
SHORTEST = 4  # characters of a secret to look for: a shorter one would be found in other words
HIDDEN = "***"


def show(finding: Finding) -> None:
    """Print a finding and, below it, what to do."""
    terminal.say(MARKS[finding.status], f" {finding.name}: {finding.said}", to=terminal.answers)
    if finding.fix:
        terminal.say(f"      {finding.fix}", to=terminal.answers)


def as_json(found: Sequence[Finding]) -> str:
    """Return all findings as one JSON object."""
    worst = next((status for status in (Status.FAILED, Status.WARNING) if any(one.status is status for one in found)), Status.OK)
    return json.dumps({"version": __version__, "status": worst, "checks": [asdict(one) for one in found]}, ensure_ascii=False)


def status_of(found: Sequence[Finding]) -> int:
    """Return the exit status: 2 if a check failed, otherwise 0."""
    return UNUSABLE if any(one.status is Status.FAILED for one in found) else DONE


def without(secrets: Sequence[str], finding: Finding) -> Finding:
    """Return the finding with stars in place of secrets."""
    said, fix = finding.said, finding.fix
    for secret in secrets:
        said, fix = said.replace(secret, HIDDEN), fix and fix.replace(secret, HIDDEN)
    return replace(finding, said=said, fix=fix)


def secrets_of(settings: Settings) -> list[str]:
    """Return what must not be shown, longest first: secret settings, and passwords in URLs, as written and as decoded."""
    values = [*_secret_values(settings), settings.api.files_url or "", settings.api_url or ""]
    found = {part for value in values for url in value.split(";") for part in _passwords(url)}
    found |= {settings_value for settings_value in _secret_values(settings) if "://" not in settings_value}
    return sorted((one for one in found if len(one) >= SHORTEST), key=len, reverse=True)


def _secret_values(settings: Settings) -> Iterator[str]:
    for value in [getattr(settings, name) for name in type(settings).model_fields] + [settings.api.rate_limit_url]:
        if isinstance(value, SecretStr):
            yield value.get_secret_value()


def _passwords(url: str) -> Iterator[str]:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return
    asked = [value for name, value in urllib.parse.parse_qsl(parts.query) if name in ("password", "sslpassword", "ssl_password")]
    for secret in (parts.password or "", *asked):
        yield secret
        yield urllib.parse.unquote(secret)
