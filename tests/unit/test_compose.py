"""No Docker engine runs here: the compose file's structure is checked, and every command in it is run with --help."""

import pathlib
import re
from typing import Any

import jsonschema
import pytest
import yaml
from fastapi import FastAPI

from api.http.connections import make_server
from guardfleet import __version__
from guardfleet.settings import ENV_PREFIX, Settings
from guardfleet.settings.settings import is_known
from tests.services.commands import said

ROOT = pathlib.Path(__file__).parents[2]
CONDITIONS = ["service_started", "service_healthy", "service_completed_successfully"]
STRINGS = {"type": "array", "items": {"type": "string"}}
# Of images of others, an exact version; of ours, the version of this package.
IMAGE = rf"^(guardfleet-[a-z-]+:{re.escape(__version__)}|[a-z]+(/[a-z-]+)?:v?\d+\.\d+(\.\d+)?(-[a-z0-9.]+)?)$"
MOUNT = r"^([a-z]+:/[a-z/]+|\./deploy/[a-z]+:/[a-z/]+:ro|/:/host:ro,rslave)$"
# The part of the Compose specification that the file uses; anything else in it is an error.
SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["image", "user", "read_only", "cap_drop", "security_opt", "restart"],
    "properties": {
        "image": {"type": "string", "pattern": IMAGE},
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
        "user": {"type": "string", "pattern": "^(?!root$|0)[a-z0-9]+$"},
        "read_only": {"const": True},
        "cap_drop": {"const": ["ALL"]},
        "security_opt": {"const": ["no-new-privileges:true"]},
        "tmpfs": STRINGS,
        "command": STRINGS,
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
        "volumes": {"type": "array", "items": {"type": "string", "pattern": MOUNT}},
        "networks": STRINGS,
        "profiles": STRINGS,
        "shm_size": {"type": "string"},
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "stop_signal": {"type": "string"},
        "stop_grace_period": {"type": "string", "pattern": r"^\d+(s|m)$"},
        "depends_on": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["condition"],
                "additionalProperties": False,
                "properties": {"condition": {"enum": CONDITIONS}, "required": {"type": "boolean"}},
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
            "additionalProperties": False,
            "properties": {"replicas": {"type": "string", "pattern": r"^\$\{[A-Z_]+:-\d\}$"}, "resources": {"type": "object"}},
        },
    },
}
SERVERS = {"postgres", "rabbitmq", "redis", "nginx"}
OURS = {"migrate", "api", "dispatcher", "webhooks", "worker", "worker-gpu"}
WATCHING = {"prometheus", "alertmanager", "grafana", "node-exporter"}


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return loaded


def test_the_file_is_what_compose_reads_and_every_container_is_hardened(compose: dict[str, Any]) -> None:
    extensions = {key for key in compose if key.startswith("x-")}
    assert set(compose) - extensions == {"name", "services", "networks", "volumes"}
    for name, service in compose["services"].items():
        jsonschema.validate(service, SERVICE)
        assert "healthcheck" in service or name == "migrate"


def test_it_names_only_things_that_exist(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == SERVERS | OURS | WATCHING
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        mounted = {volume.split(":")[0] for volume in service.get("volumes", [])}
        assert {name for name in mounted if not name.startswith(("./", "/"))} <= set(compose["volumes"])
        assert all((ROOT / name).is_dir() for name in mounted if name.startswith("./"))
        assert set(service.get("networks", ["default"])) <= set(compose["networks"])
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
        for key in service.get("environment", {}):
            if key.startswith(ENV_PREFIX):
                assert is_known(key)
    assert services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]


def test_profiles_choose_the_device_the_broker_and_what_watches(compose: dict[str, Any]) -> None:
    services = compose["services"]
    chosen = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    watching = {name: ["observability"] for name in WATCHING}
    assert chosen == {"redis": ["redis"], "worker": ["cpu"], "worker-gpu": ["gpu"]} | watching
    for name in OURS - {"migrate"}:  # whichever broker is not there is not waited for
        assert services[name]["depends_on"]["redis"]["required"] is False
        assert services[name]["depends_on"]["rabbitmq"]["required"] is False
    assert services["rabbitmq"]["deploy"]["replicas"] == "${RABBITMQ_REPLICAS:-1}"


def test_servers_have_no_way_out_and_the_proxy_none_to_them(compose: dict[str, Any]) -> None:
    services, networks = compose["services"], compose["networks"]
    assert {name for name, network in networks.items() if network and network.get("internal")} == {"default"}
    assert all("networks" not in services[name] for name in SERVERS - {"nginx"})
    assert services["nginx"]["networks"] == ["edge"]
    published = {name for name, service in services.items() if "ports" in service}
    assert published == {"nginx"} | WATCHING - {"node-exporter"}
    assert all(set(services[name]["networks"]) - {"default"} for name in published)  # an internal network publishes nothing


def test_each_process_has_the_time_that_it_needs_to_end(compose: dict[str, Any]) -> None:
    graces = {name: compose["services"][name]["stop_grace_period"] for name in sorted(OURS - {"migrate"})}
    assert graces == {"api": "30s", "dispatcher": "15s", "webhooks": "30s", "worker": "2m", "worker-gpu": "2m"}
    assert make_server(FastAPI(), Settings()).config.timeout_graceful_shutdown == 20
    assert Settings().webhooks.timeout_s < 30


def test_every_guardfleet_command_in_it_exists(compose: dict[str, Any]) -> None:
    commands = {tuple(s["command"][1:]) for s in compose["services"].values() if s.get("command", [""])[0] == "guardfleet"}
    assert commands == {("db", "upgrade"), ("api",), ("dispatcher",), ("worker", "--webhooks"), ("worker",)}
    for command in commands:
        shown = said(pathlib.Path("unused"), *command, "--help")
        assert shown.returncode == 0, shown.stderr


def test_no_secret_stands_in_it() -> None:
    text = (ROOT / "compose.yaml").read_text()
    for name in ("POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "GUARDFLEET_SECRET_KEY"):
        assert set(re.findall(rf"{name}: (\S+)", text)) <= {"${" + name + ":?set", "${" + name + ":?run"}


def test_prometheus_looks_for_every_process_where_it_serves_its_metrics(compose: dict[str, Any]) -> None:
    services = compose["services"]
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    scraped = {job["job_name"]: job for job in config["scrape_configs"]}
    (found,) = scraped["guardfleet"]["dns_sd_configs"]
    assert set(found["names"]) == OURS - {"migrate"}
    for name in found["names"]:
        assert services[name]["environment"]["GUARDFLEET_METRICS_PORT"] == str(found["port"])
        assert services[name]["environment"]["GUARDFLEET_METRICS_HOST"] == "0.0.0.0"  # noqa: S104
        assert "default" in services[name]["networks"]
    assert set(scraped) == {"guardfleet", "rabbitmq", "node", "prometheus"}
    assert "node-exporter" in services
    assert config["rule_files"] == ["rules.yml"]
    (alerted,) = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert alerted.split(":")[0] in services


def test_grafana_finds_its_source_and_its_boards_where_they_are_mounted(compose: dict[str, Any]) -> None:
    grafana, folder = compose["services"]["grafana"], ROOT / "deploy" / "grafana"
    (mounted,) = (volume.split(":")[1] for volume in grafana["volumes"] if volume.startswith("./deploy/grafana:"))
    assert grafana["environment"]["GF_PATHS_PROVISIONING"] == f"{mounted}/provisioning"
    (source,) = yaml.safe_load((folder / "provisioning" / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (boards,) = yaml.safe_load((folder / "provisioning" / "dashboards" / "guardfleet.yaml").read_text())["providers"]
    assert boards["options"]["path"] == mounted
