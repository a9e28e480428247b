"""Rules, boards and the runbook agree with each other and with what the code exports and logs."""

import ast
import functools
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from guardfleet.telemetry.logs import SLUGS
from guardfleet.telemetry.metrics import EVERY, OWNERS
from tests.conftest import missing

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOK = (ROOT / "docs" / "operations.md").read_text()
HEADINGS = re.findall(r"^#{2,4} (.+)$", RUNBOOK, re.MULTILINE)
TWIN = re.compile(r"absent\(|up\{[^}]*\} == 0|\bunless\b")  # what notices that a series is missing
OTHERS = ("up", "process_start_time_seconds", "node_filesystem_avail_bytes", "node_filesystem_size_bytes", "ALERTS")


@functools.cache
def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def anchor(heading: str) -> str:
    """As GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def run(name: str, *args: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(name) is None:
        missing(f"no {name} on the PATH: apt-get install prometheus prometheus-alertmanager")
    return subprocess.run([name, *args], cwd=FOLDER, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["rules_test.yml", "alerts_test.yml", "naive_test.yml"])
def test_rules_behave_as_their_own_tests_say(name: str) -> None:
    ended = run("promtool", "test", "rules", name)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_shipped_configurations_are_valid() -> None:
    for args in (("promtool", "check", "config", "prometheus.yml"), ("amtool", "check-config", "alertmanager.yml")):
        ended = run(*args)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_each_alert_has_a_test_in_which_it_is_quiet_and_then_fires() -> None:
    asked = {name: [] for name in alerts()}
    for test in yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]:
        for look in test.get("promql_expr_test", ()):
            if found := re.search(r'alertname="(\w+)"', look["expr"]):
                asked[found[1]].append(bool(look["exp_samples"]))
    assert [name for name, looks in asked.items() if set(looks) != {True, False}] == []


def test_each_alert_says_what_is_wrong_and_where_its_runbook_is() -> None:
    there = {anchor(heading) for heading in HEADINGS}
    for name, alert in alerts().items():
        told = alert["annotations"]
        assert alert["labels"]["severity"] in {"page", "ticket"}, name
        assert set(told) == {"summary", "description", "silence", "runbook_url"}, name
        path, _, place = told["runbook_url"].removeprefix("{{ $externalLabels.guardfleet_docs }}").partition("#")
        assert (ROOT / path).samefile(ROOT / "docs" / "operations.md"), name
        assert place in there, name
        assert place == anchor(name), name


def test_silence_of_each_alert_is_noticed_by_itself_or_by_another() -> None:
    known = alerts()
    for name, alert in known.items():
        twin = alert["annotations"]["silence"]
        seen, at = {name}, name if twin == "itself" else twin
        while known[at]["annotations"]["silence"] != "itself" and not TWIN.search(known[at]["expr"]):
            assert at not in seen, f"{name}: its twins go round in a circle"
            seen.add(at)
            at = known[at]["annotations"]["silence"]
        assert TWIN.search(known[at]["expr"]), f"{name}: {at} does not look for what is missing"


def test_the_runbook_has_each_alert_and_no_other() -> None:
    assert sorted(heading for heading in HEADINGS if heading.startswith("Guardfleet")) == sorted(alerts())
    for name, alert in alerts().items():
        section = RUNBOOK.split(f"### {name}\n", 1)[1].split("\n#", 1)[0]
        assert all(word in section for word in ("Symptom: ", "Check: ", "Action: ")), name
        assert section.strip().startswith(f"{alert['labels']['severity'].capitalize()}."), name


def test_the_runbook_has_each_slug_that_warns_and_no_other() -> None:
    table = RUNBOOK.split("## Log lines that warn", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|(.*)\|(.*)\|$", table, re.MULTILINE)
    assert sorted(slug for slug, *_ in rows) == sorted(warning_slugs())
    assert [slug for slug, symptom, _, action in rows if not (symptom.strip() and action.strip())] == []


def test_links_inside_the_runbook_lead_to_its_sections() -> None:
    there = {anchor(heading) for heading in HEADINGS}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK)) <= there


def test_rules_ask_for_metrics_that_exist() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        assert unknown(rule["expr"], recorded) == [], rule


def unknown(expr: str, recorded: set[str]) -> list[str]:
    """The names in an expression that nothing exports and no rule records."""
    plain = re.sub(r'"[^"]*"|\{[^}]*\}|(?:by|on|without|ignoring|group_left) \([^)]*\)', " ", expr)
    named = set(re.findall(r"\b(?:guardfleet|qwen_guard|process|node)[\w:]*|\bup\b", plain))
    return sorted(named - recorded - set(exported()) - set(OTHERS))


def exported() -> Iterator[str]:
    """The names of all series that processes export."""
    for metric in (*EVERY, *(one for owned in OWNERS.values() for one in owned)):
        for family in metric.describe():
            suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
            yield from (f"{family.name}{suffix}" for suffix in suffixes.get(family.type, ("",)))


def warning_slugs() -> set[str]:
    """The slugs of all lines that the code logs as a warning or an error."""
    found = set[str]()
    for path in (path for part in ("guardfleet", "worker", "api") for path in (ROOT / part).rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if name == "Watchdog":  # it logs the name of the look that went wrong
                found |= {str(key.value) for key in call.args[0].keys if isinstance(key, ast.Constant)}  # type: ignore[attr-defined]
            elif isinstance(call.args[0], ast.Constant):
                slug = str(call.args[0].value).partition(":")[0]
                if name in {"warning", "error"} or (name == "say" and slug in SLUGS):
                    found.add(slug)
    engine = {slug for slug in found if slug not in SLUGS}
    assert all(slug.startswith(("engine_", "prompt_")) for slug in engine), engine  # a library: it does not know SLUGS
    return found
