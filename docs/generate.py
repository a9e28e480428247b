#!/usr/bin/env python3
"""Write the pages that are generated from the code and from other pages. A test holds those that are in git against it."""

import json
import pathlib
import re
import tempfile
from collections.abc import Callable, Mapping
from types import MappingProxyType

from api.server import create_app
from guardfleet.domain.options import JobOptions
from guardfleet.security.encryption import new_secret_key
from guardfleet.settings import ENV_PREFIX, Settings, load_settings

HERE = pathlib.Path(__file__).parent
SETTINGS = """# Settings

Generated from `guardfleet/settings/__init__.py` by `make docs`. Every process reads the same settings, from environment
variables. An unknown or wrong one stops the process with a sentence that names the key and what is allowed.
Secrets are not shown.

| variable | default | what it is |
|---|---|---|
"""
OPTIONS = """# Options of a job

Generated from `guardfleet/domain/options.py` by `make docs`. Every face takes all of them: `JobOptions` in Python, a field or
a parameter of the URL over HTTP, and the same name with dashes on the command line.

| option | flag | default | what it does |
|---|---|---|---|
"""
DECISIONS = """# Decisions

Generated from the pages by `make docs`. Each says what was asked, what was decided, and the measurement that decided it.

| decision | status | date |
|---|---|---|
"""
DECISION = re.compile(r"# (.+)\n\nStatus: (.+)\. Date: (\d{4}-\d\d-\d\d)\.\n")


def row(*cells: str) -> str:
    """One line of a table."""
    return "| " + " | ".join(cell.replace("|", "&#124;") for cell in cells) + " |\n"


def settings_page() -> str:
    """Every setting."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        default = ",".join(map(str, default)) if isinstance(default, tuple) else default
        shown = "" if default in (None, "") or name == "data_dir" else f"`{default}`"
        rows.append(row(f"`{ENV_PREFIX}{name.upper()}`", shown, field.description or ""))
    return SETTINGS + "".join(rows)


def options_page() -> str:
    """Every option of a job."""
    rows = []
    for name, field in JobOptions.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        shown = "" if field.default is None else f"`{json.dumps(field.default)}`"
        rows.append(row(f"`{name}`", f"`{'--no-' + flag[2:] if field.default is True else flag}`", shown, field.description or ""))
    return OPTIONS + "".join(rows)


def decisions_page() -> str:
    """Every decision; raises ValueError for one that does not begin with its title, status and date."""
    rows = []
    for page in sorted((HERE / "decisions").glob("[0-9]*.md")):
        head = DECISION.match(page.read_text())
        if head is None:
            raise ValueError(f"{page.name}: begin with a title, an empty line, and `Status: accepted. Date: 2026-01-31.`")
        title, status, date = head.groups()
        rows.append(row(f"[{title}]({page.name})", status, date))
    return DECISIONS + "".join(rows)


def openapi() -> str:
    """What `/openapi.json` says, without a server."""
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(database_url="postgresql://nobody@127.0.0.1:1/none", secret_key=new_secret_key(), data_dir=folder)
        return json.dumps(create_app(settings).openapi(), indent=1)


PAGES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {"settings.md": settings_page, "options.md": options_page, "decisions/README.md": decisions_page}
)

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page())
    (HERE / "openapi.json").write_text(openapi())
