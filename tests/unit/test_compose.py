"""No Docker engine runs here: the compose file's structure is checked, and every command in it is run with --help."""

import pathlib
import re
from typing import Any

import jsonschema
import pytest
import yaml

from guardfleet.settings import ENV_PREFIX
from guardfleet.settings.settings import is_known
from tests.services.commands import said

ROOT = pathlib.Path(__file__).parents[2]
CONDITIONS = ["service_started", "service_healthy", "service_completed_successfully"]
# The part of the Compose specification that the file uses; anything else in it is an error.
SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "image": {"type": "string"},
        "build": {
            "type": "object",
            "required": ["context", "dockerfile"],
            "additionalProperties": False,
            "properties": {
                "context": {"type": "string"},
                "dockerfile": {"type": "string"},
                "args": {"type": "object", "additionalProperties": {"type": "string"}},
            },
        },
        "command": {"type": "array", "items": {"type": "string"}},
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
        "volumes": {"type": "array", "items": {"type": "string", "pattern": r"^[a-z]+:/"}},
        "profiles": {"type": "array", "items": {"type": "string"}},
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "stop_grace_period": {"type": "string", "pattern": r"^\d+(s|m)$"},
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["condition"],
                "additionalProperties": False,
                "properties": {"condition": {"enum": CONDITIONS}},
            },
        },
        "healthcheck": {
            "type": "object",
            "required": ["test"],
            "additionalProperties": False,
            "properties": {
                "test": {"type": "array", "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}]},
                "interval": {"type": "string"},
                "timeout": {"type": "string"},
                "retries": {"type": "integer"},
                "start_period": {"type": "string"},
            },
        },
        "deploy": {
            "type": "object",
            "properties": {
                "resources": {
                    "type": "object",
                    "properties": {
                        "reservations": {
                            "type": "object",
                            "properties": {
                                "devices": {
                                    "type": "array",
                                    "items": {"type": "object", "required": ["driver", "count", "capabilities"]},
                                }
                            },
                        }
                    },
                }
            },
        },
    },
    "oneOf": [{"required": ["image"]}, {"required": ["build"]}],
}


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


def test_the_file_is_what_compose_reads(compose: dict[str, Any]) -> None:
    extensions = {key for key in compose if key.startswith("x-")}
    assert set(compose) - extensions == {"name", "services", "volumes"}
    for service in compose["services"].values():
        jsonschema.validate(service, SERVICE)


def test_it_names_only_things_that_exist(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"postgres", "rabbitmq", "redis", "migrate", "api", "dispatcher", "webhooks", "worker", "worker-gpu"}
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(compose["volumes"])
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
        for key in service.get("environment", {}):
            if key.startswith(ENV_PREFIX):
                assert is_known(key)
    for service in ("postgres", "rabbitmq", "redis", "api", "dispatcher", "webhooks", "worker", "worker-gpu"):
        assert "healthcheck" in services[service]
    assert services["redis"]["profiles"] == ["redis"]
    assert services["api"]["stop_grace_period"] == "30s"
    assert services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_every_guardfleet_command_in_it_exists(compose: dict[str, Any]) -> None:
    commands = {tuple(s["command"][1:]) for s in compose["services"].values() if s.get("command", [""])[0] == "guardfleet"}
    assert commands == {("db", "upgrade"), ("api",), ("dispatcher",), ("worker", "--webhooks"), ("worker",)}
    for command in commands:
        shown = said(pathlib.Path("unused"), *command, "--help")
        assert shown.returncode == 0, shown.stderr


def test_no_secret_stands_in_it(compose: dict[str, Any]) -> None:
    text = (ROOT / "compose.yaml").read_text()
    for name in ("POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "GUARDFLEET_SECRET_KEY"):
        assert set(re.findall(rf"{name}: (\S+)", text)) <= {"${" + name + ":?set", "${" + name + ":?run"}
    assert compose["services"]["api"]["ports"] == ["127.0.0.1:8080:8080"]


def test_the_images_install_what_is_pinned_before_they_take_the_source() -> None:
    for file in (ROOT / "deploy").glob("*.Dockerfile"):
        before, after = file.read_text().split("COPY . .")
        assert '-c constraints.txt ".[' in before, file
        assert "--no-deps" in after, file
        copied = re.findall(r"^COPY ([a-z.]+ .*) \./$", before, re.MULTILINE)
        assert [(ROOT / name).is_file() for line in copied for name in line.split()] == [True] * 4
        needed = {"guardfleet", "worker", "producer", "api", "migrations", "models/demo"}  # of what the wheel is built
        assert needed <= set(re.findall(r"[a-z/]+", before.split("RUN for package in ")[1])), file
        assert "grep" not in before, "a pin is dropped"


def test_the_images_install_extras_that_exist() -> None:
    import tomllib

    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    for file in (ROOT / "deploy").glob("*.Dockerfile"):
        (wanted,) = re.findall(r'"\.\[([a-z,]+)\]"', file.read_text())
        assert set(wanted.split(",")) <= extras
        assert "USER guardfleet" in file.read_text()
