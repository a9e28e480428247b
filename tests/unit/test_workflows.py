"""Workflow files name only what exists here: targets, services, versions, tools. Tests cannot run any of them."""

import json
import pathlib
import re
import tomllib
from typing import Any

import yaml

ROOT = pathlib.Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def loaded(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def steps() -> list[dict[str, Any]]:
    return [step for job in loaded(".github/workflows/ci.yml")["jobs"].values() for step in job["steps"]]


def test_the_workflow_calls_the_targets_that_people_call() -> None:
    called = {name for step in steps() for name in re.findall(r"\bmake ([a-z]+)", step.get("run", ""))}
    assert called == {"check", "test", "coverage", "docs"}
    assert called <= TARGETS


def test_the_workflow_begins_with_the_oldest_python_that_is_promised() -> None:
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    jobs = loaded(".github/workflows/ci.yml")["jobs"]
    pythons = jobs["check"]["strategy"]["matrix"]["python"]
    assert pythons[0] == oldest
    assert {run["python"] for run in jobs["test"]["strategy"]["matrix"]["include"]} == set(pythons)


def test_hooks_call_what_is_there() -> None:
    (hooks,) = (repo["hooks"] for repo in loaded(".pre-commit-config.yaml")["repos"])
    for hook in hooks:
        tool, *rest = hook["entry"].split()
        assert (ROOT / tool).exists() or tool.startswith(".venv/bin/")
        assert all((ROOT / argument).exists() for argument in rest if argument.startswith(".ci/"))


def test_the_dev_container_extends_services_that_exist() -> None:
    services, theirs = loaded("compose.yaml")["services"], loaded(".devcontainer/compose.yaml")
    folder = json.loads(re.sub(r"^\s*//.*$", "", (ROOT / ".devcontainer" / "devcontainer.json").read_text(), flags=re.MULTILINE))
    assert folder["service"] in theirs["services"]
    extended = {service["extends"]["service"] for service in theirs["services"].values() if "extends" in service}
    assert extended
    assert extended <= set(services)
    volumes = {volume.split(":")[0] for name in extended for volume in services[name]["volumes"]}
    assert volumes <= set(theirs["volumes"])


def test_the_dev_container_sets_what_the_compose_file_asks_for() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (ROOT / "compose.yaml").read_text()))
    assert asked <= set(re.findall(r"^(\w+)=.", (ROOT / ".devcontainer" / ".env").read_text(), re.MULTILINE))
