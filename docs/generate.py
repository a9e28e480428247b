#!/usr/bin/env python3
"""Write the pages that are generated from code and from other pages. A test checks that those in git are current."""

import json
import pathlib
import re
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import guardfleet
from api.server import create_app
from guardfleet.cli.app import app
from guardfleet.domain.events import KINDS
from guardfleet.domain.options import JobOptions
from guardfleet.security.encryption import new_secret_key
from guardfleet.settings import ENV_PREFIX, Settings, Tuning, load_settings, variable_of
from guardfleet.settings.names import GUARDED, PLACES
from guardfleet.store.schema.view import COLUMNS
from guardfleet.telemetry import metrics
from guardfleet.telemetry.collectors import Durations, Known, RollingShare

HERE = pathlib.Path(__file__).parent
SETTINGS = """# Settings

Generated from `guardfleet/settings/` by `make docs`. Every process reads the same settings, from environment
variables. An unknown or invalid one stops the process with a message that names it and what is allowed.
Secrets are not shown.

"""
HEAD = """| variable | default | what it is |
|---|---|---|
"""
OPTIONS = """# Options of a job

Generated from `guardfleet/domain/options.py` by `make docs`. Every face accepts all of them: `JobOptions` in Python, a field or
a URL parameter over HTTP, and the same name with dashes on the command line.

| option | flag | default | what it does |
|---|---|---|---|
"""
OURS = (Durations, Known, RollingShare)
METRICS = """# Metrics

Generated from `guardfleet/telemetry/metrics.py` by `make docs`. With `GUARDFLEET_METRICS_PORT` each process serves `/metrics`, with
its own metrics and no others. A gauge that a process does not know is left out, and is not zero. Labels hold no tenant, job or
text; `queue`, `model` and `route` are names of lanes and models. The `qwen_guard_*` names are those of articles on this model.
`qwen_guard_risk_type_distribution` is a gauge there and here; `guardfleet_texts_by_category_total` counts the same.
"""
DECISIONS = """# Decisions

Generated from the pages by `make docs`. Each says what was asked, what was decided, and the measurement that decided it.

| decision | status | date |
|---|---|---|
"""
RULES = HERE.parent / "deploy" / "prometheus" / "rules.yml"
OPERATOR_RULES = """# Generated from deploy/prometheus/rules.yml by `make docs`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: guardfleet
  labels:
    app.kubernetes.io/part-of: guardfleet
spec:
"""
DECISION = re.compile(r"# (.+)\n\nStatus: (.+)\. Date: (\d{4}-\d\d-\d\d)\.\n")


def row(*cells: str) -> str:
    """Return one line of a table."""
    return "| " + " | ".join(cell.replace("|", "&#124;") for cell in cells) + " |\n"


RENAMED = """
## Names before 0.2

Read for one more version, with a warning in the log. What only tests and load runs change is no longer a setting: it comes as
JSON in `GUARDFLEET_TUNING`, which is refused unless `GUARDFLEET_ALLOW_TUNING=1` is set too.

| before | now |
|---|---|
"""


def settings_page() -> str:
    """Return the page of settings: those of all processes first, then each group."""
    rows = [_row(ENV_PREFIX + name.upper(), field) for name, field in Settings.model_fields.items() if not _group(field)]
    parts = [SETTINGS + HEAD + "".join(rows)]
    for name, field in Settings.model_fields.items():
        if (group := _group(field)) and group is not Tuning:
            prefix = f"{ENV_PREFIX}{name.upper()}__"
            rows = [_row(prefix + leaf.upper(), inside) for leaf, inside in group.model_fields.items()]
            parts.append(f"\n## {name}: {(group.__doc__ or '').rstrip('.')}\n\n" + HEAD + "".join(rows))
    old = "".join(row(f"`{ENV_PREFIX}{name.upper()}`", f"`{variable_of(name)}`") for name in PLACES if name not in GUARDED)
    return "".join(parts) + RENAMED + old


def _group(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _row(variable: str, field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True, validated_data={})
    default = ",".join(map(str, default)) if isinstance(default, tuple) else default
    shown = "" if default in (None, "") or variable.endswith("DATA_DIR") else f"`{default}`"
    return row(f"`{variable}`", shown, field.description or "")


def options_page() -> str:
    """Return the page of a job's options."""
    rows = []
    for name, field in JobOptions.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        shown = "" if field.default is None else f"`{json.dumps(field.default)}`"
        rows.append(row(f"`{name}`", f"`{'--no-' + flag[2:] if field.default is True else flag}`", shown, field.description or ""))
    return OPTIONS + "".join(rows)


def decisions_page() -> str:
    """Return the page of decisions. Raises ValueError for one that does not begin with its title, status and date."""
    rows = []
    for page in sorted((HERE / "decisions").glob("[0-9]*.md")):
        head = DECISION.match(page.read_text())
        if head is None:
            raise ValueError(f"{page.name}: begin with a title, an empty line, and `Status: accepted. Date: 2026-01-31.`")
        title, status, date = head.groups()
        rows.append(row(f"[{title}]({page.name})", status, date))
    return DECISIONS + "".join(rows)


def metrics_page() -> str:
    """Return the page of metrics: those of all processes first, then each process's own."""
    groups = {"every process": metrics.EVERY, **metrics.OWNERS}
    parts = [METRICS]
    for owner, group in groups.items():
        rows = [
            row(f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), said)
            for name, kind, labels, said in map(_metric, group)
        ]
        parts.append(
            f"\n## {owner[0].upper() + owner[1:]}\n\n| metric | type | labels | what it is |\n|---|---|---|---|\n" + "".join(rows)
        )
    return "".join(parts)


def _metric(metric: Any) -> tuple[str, str, tuple[str, ...], str]:
    """Return a metric's name as it is scraped, its type, its labels and its description."""
    (family,) = metric.describe()
    suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
    labels = metric.labels if isinstance(metric, OURS) else metric._labelnames  # noqa: SLF001 - it tells them nowhere else
    return family.name + suffix, family.type, labels, family.documentation


def operator_rules() -> str:
    """Return the alert rules as the Prometheus operator reads them; none if there are none yet."""
    rules = RULES.read_text() if RULES.exists() else "groups: []\n"
    return OPERATOR_RULES + textwrap.indent(rules[rules.index("groups:") :], "  ")


def openapi() -> str:
    """Return the content of `/openapi.json`, without a server."""
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(database_url="postgresql://nobody@127.0.0.1:1/none", secret_key=new_secret_key(), data_dir=folder)
        return json.dumps(create_app(settings).openapi(), indent=1)


def public_names() -> str:
    """Return the public names, one a line, sorted: `git diff` of the file is what a release changes."""
    names = {
        *_of_http(json.loads(openapi())),
        *_of_commands(typer.main.get_command(app), "guardfleet"),
        *(f"python guardfleet.{name}" for name in guardfleet.__all__),
        *(f"setting {variable_of(name)}" for name in Settings.model_fields if not _group(Settings.model_fields[name])),
        *(
            f"setting {ENV_PREFIX}{name.upper()}__{leaf.upper()}"
            for name, field in Settings.model_fields.items()
            if (group := _group(field)) and group is not Tuning
            for leaf in group.model_fields
        ),
        *(f"event {kind}" for kind in KINDS),
        *(f"metric {_metric(metric)[0]}" for group in (metrics.EVERY, *metrics.OWNERS.values()) for metric in group),
        *(f"view verdicts.{column}" for column in COLUMNS),
    }
    return "".join(f"{name}\n" for name in sorted(names))


def _of_http(api: Mapping[str, Any]) -> Iterator[str]:
    for path, routes in api["paths"].items():
        for method, route in routes.items():
            yield f"http {method.upper()} {path}"
            yield f"http operation {route['operationId']}"
            yield from (f"http {method.upper()} {path} {one['in']} {one['name']}" for one in route.get("parameters", ()))
    for name, schema in api["components"]["schemas"].items():
        yield from (f"http schema {name}.{key}" for key in schema.get("properties", ()))


def _of_commands(command: Any, path: str) -> Iterator[str]:
    yield f"command {path}"
    for one in command.params:
        if not getattr(one, "hidden", False):
            yield from (f"command {path} {name}" for name in (*one.opts, *one.secondary_opts))
    for name, below in getattr(command, "commands", {}).items():
        if not below.hidden:
            yield from _of_commands(below, f"{path} {name}")


PAGES: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "settings.md": settings_page,
        "options.md": options_page,
        "decisions/README.md": decisions_page,
        "metrics.md": metrics_page,
        "public-names.txt": public_names,
        "../deploy/kubernetes/components/monitoring/rules.yaml": operator_rules,
    }
)

if __name__ == "__main__":
    for name, page in PAGES.items():
        (HERE / name).write_text(page())
    (HERE / "openapi.json").write_text(openapi())
