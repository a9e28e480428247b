"""The manifests: rendered by kubectl, valid, hardened, without a secret, and naming only what exists."""

import json
import os
import pathlib
import re
from functools import cache
from typing import Any, get_args
from unittest import mock

import kubernetes_validate
import pytest
import yaml
from pydantic import SecretStr

from guardfleet import __version__
from guardfleet.settings import ENV_PREFIX, Settings, load_settings
from guardfleet.settings.names import renamed
from guardfleet.settings.settings import is_known
from tests.services.commands import said
from tests.services.manifests import NAMES, ROOT, Manifest, Manifests, named, of_kind, overlay, overlay_of_the_docs, pods, selected

each = pytest.mark.parametrize("name", NAMES)
SECRETS = {"database-url", "broker-url", "secret-key", "previous-secret-key"}
OURS = ("keda.sh", "monitoring.coreos.com", "route.openshift.io")  # kinds of operators: they have no schema in Kubernetes
COMMANDS = {
    "guardfleet-api": ["guardfleet", "api"],
    "guardfleet-dispatcher": ["guardfleet", "dispatcher"],
    "guardfleet-migrate": ["guardfleet", "db", "upgrade"],
    "guardfleet-webhooks": ["guardfleet", "worker", "--webhooks"],
    "guardfleet-worker": ["guardfleet", "worker"],
}


def containers(manifests: Manifests) -> dict[str, Manifest]:
    """The one container of each pod."""
    found = {}
    for name, pod in pods(manifests).items():
        assert "initContainers" not in pod
        (found[name],) = pod["containers"]
    return found


def variables(container: Manifest) -> dict[str, Any]:
    return {entry["name"]: entry for entry in container["env"]}


def given_to_all(manifests: Manifests) -> dict[str, str]:
    data: dict[str, str] = named(manifests, "ConfigMap", "guardfleet")["data"]
    return data


def settings_in(manifests: Manifests) -> Settings:
    """What a process reads of the ConfigMap."""
    with mock.patch.dict(os.environ, given_to_all(manifests)):
        return load_settings()


@cache
def validate(manifest: str) -> None:
    """Hold a manifest, as JSON, against the schema of its kind; the overlays have most of them in common."""
    kubernetes_validate.validate(json.loads(manifest), "1.37", strict=True)


def test_the_overlays_are_those_that_the_docs_list() -> None:
    page = (ROOT / "docs" / "deploying.md").read_text()
    assert sorted(re.findall(r"^\| `overlays/(\S+)` \|", page, re.MULTILINE)) == NAMES


@each
def test_an_overlay_renders_and_is_valid(name: str) -> None:
    manifests = overlay(name)
    assert set(COMMANDS) == set(pods(manifests))
    for manifest in manifests:
        assert manifest["metadata"].get("namespace", "guardfleet") == "guardfleet"
        if not manifest["apiVersion"].startswith(OURS):
            validate(json.dumps(manifest, sort_keys=True))


def test_the_overlay_of_the_docs_renders(tmp_path: pathlib.Path) -> None:
    manifests = overlay_of_the_docs(tmp_path)
    assert all(container["image"].startswith("registry.example/guardfleet-") for container in containers(manifests).values())
    assert settings_in(manifests).intake.shard_texts == 4096
    assert named(manifests, "ScaledObject", "guardfleet-worker")["spec"]["maxReplicaCount"] == 40
    autoscaler = named(manifests, "HorizontalPodAutoscaler", "guardfleet-api")
    validate(json.dumps(autoscaler))
    assert autoscaler["spec"]["minReplicas"] == 2
    for scaled in ("guardfleet-api", "guardfleet-worker"):  # `apply` sets back nothing that an autoscaler has set
        assert "replicas" not in named(manifests, "Deployment", scaled)["spec"]


@each
def test_no_manifest_has_a_secret(name: str) -> None:
    manifests = overlay(name)
    assert not of_kind(manifests, "Secret")
    secret = {
        f"{ENV_PREFIX}{key.upper()}" for key, field in Settings.model_fields.items() if SecretStr in get_args(field.annotation)
    }
    assert f"{ENV_PREFIX}SECRET_KEY" in secret
    assert not secret & set(given_to_all(manifests))
    for container in containers(manifests).values():
        found = {key: entry for key, entry in variables(container).items() if key in secret}
        assert {entry["valueFrom"]["secretKeyRef"]["key"] for entry in found.values()} == SECRETS
        assert all(set(entry) == {"name", "valueFrom"} for entry in found.values())
    assert not re.search(r"://[^/\s\"']*:[^/\s\"']*@|password|[A-Za-z0-9+/]{43}=", yaml.safe_dump_all(manifests))


@each
def test_every_pod_is_hardened(name: str) -> None:
    manifests = overlay(name)
    labels = named(manifests, "Namespace", "guardfleet")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    users = {pod["securityContext"].get("runAsUser") for pod in pods(manifests).values()}
    assert users == ({None} if name == "openshift" else {10001})
    for pod in pods(manifests).values():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert {kind for volume in pod["volumes"] for kind in volume} <= {"name", "emptyDir", "persistentVolumeClaim"}
    for container in containers(manifests).values():
        context = container["securityContext"]
        assert context == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["image"].rpartition(":")[2] == __version__
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@each
def test_settings_and_commands_exist(name: str) -> None:
    manifests = overlay(name)
    assert {key: container["command"] for key, container in containers(manifests).items()} == COMMANDS
    given = {key for container in containers(manifests).values() for key in variables(container)} | set(given_to_all(manifests))
    assert given
    assert [key for key in given if not is_known(key)] == []
    assert renamed(dict.fromkeys(given, "")) == {}
    # Kubernetes would add GUARDFLEET_API_PORT=tcp://... for the Service, which is an old name of a setting.
    assert not is_known("GUARDFLEET_API_SERVICE_HOST")
    assert all(pod["enableServiceLinks"] is False for pod in pods(manifests).values())


def test_every_command_answers() -> None:
    for command in COMMANDS.values():
        assert said(pathlib.Path("unused"), *command[1:], "--help").returncode == 0


@each
def test_probes_and_ports_match(name: str) -> None:
    manifests = overlay(name)
    settings = settings_in(manifests)
    assert settings.metrics_host == "0.0.0.0"  # noqa: S104
    for key, container in containers(manifests).items():
        if key == "guardfleet-migrate":
            continue
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["metrics"] == settings.metrics_port
        asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
        assert {probe["port"] for probe in asked.values()} == {"http" if key == "guardfleet-api" else "metrics"}
        assert asked["liveness"]["path"] == "/livez"
        assert asked["readiness"]["path"] == "/readyz"
        startup = container["startupProbe"]
        if key == "guardfleet-worker":  # loading 16 GB
            assert asked["startup"]["path"] == "/readyz"
            assert startup["periodSeconds"] * startup["failureThreshold"] >= 1800
        else:  # the migration is waited for
            assert asked["startup"]["path"] == "/livez"
            assert startup["periodSeconds"] * startup["failureThreshold"] > 60
    api = containers(manifests)["guardfleet-api"]
    assert {"name": "http", "containerPort": settings.api.port} in api["ports"]
    assert variables(api)["GUARDFLEET_API__HOST"]["value"] == "0.0.0.0"  # noqa: S104
    (port,) = named(manifests, "Service", "guardfleet-api")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (8080, "http")


@each
def test_each_process_has_the_time_that_it_needs_to_end(name: str) -> None:
    graces = {key: pod["terminationGracePeriodSeconds"] for key, pod in pods(overlay(name)).items()}
    assert graces == {
        "guardfleet-api": 30,
        "guardfleet-dispatcher": 15,
        "guardfleet-migrate": 30,
        "guardfleet-webhooks": 30,
        "guardfleet-worker": 120,
    }
    waited = int(containers(overlay(name))["guardfleet-api"]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert waited + 20 < graces["guardfleet-api"]  # uvicorn's own 20 s: tests/unit/test_compose.py
    assert "lifecycle" not in containers(overlay(name))["guardfleet-worker"]


@each
def test_names_lead_somewhere(name: str) -> None:
    manifests = overlay(name)
    accounts = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "ServiceAccount")}
    claims = {manifest["metadata"]["name"] for manifest in of_kind(manifests, "PersistentVolumeClaim")}
    assert {pod["serviceAccountName"] for pod in pods(manifests).values()} == accounts
    for pod in pods(manifests).values():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == set(volumes)
        assert {v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v} <= claims
    for manifest in of_kind(manifests, "PodDisruptionBudget", "PodMonitor"):
        assert selected(manifests, manifest["spec"]["selector"]), manifest["metadata"]["name"]
    budgets = {
        one for manifest in of_kind(manifests, "PodDisruptionBudget") for one in selected(manifests, manifest["spec"]["selector"])
    }
    assert budgets == set(COMMANDS) - {"guardfleet-migrate"}
    (service,) = selected(manifests, {"matchLabels": named(manifests, "Service", "guardfleet-api")["spec"]["selector"]})
    assert service == "guardfleet-api"


@each
def test_only_what_a_policy_lists_comes_in_or_goes_out(name: str) -> None:
    manifests = overlay(name)
    policies = {manifest["metadata"]["name"]: manifest["spec"] for manifest in of_kind(manifests, "NetworkPolicy")}
    nothing = policies["guardfleet-nothing-else"]
    assert selected(manifests, nothing["podSelector"]) == set(COMMANDS)
    assert (sorted(nothing["policyTypes"]), set(nothing)) == (["Egress", "Ingress"], {"podSelector", "policyTypes"})
    entered = {key: port["port"] for key, spec in policies.items() for rule in spec.get("ingress", ()) for port in rule["ports"]}
    watched = {"guardfleet-is-scraped": "metrics"} if of_kind(manifests, "PodMonitor") else {}
    assert entered == {"guardfleet-api-is-called": "http"} | watched
    receivers = policies["guardfleet-webhooks-call-receivers"]
    assert selected(manifests, receivers["podSelector"]) == {"guardfleet-webhooks"}
    refused = {network for block in receivers["egress"][0]["to"] for network in block["ipBlock"]["except"]}
    assert {"10.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"} <= refused


def test_a_gpu_worker_has_one_gpu_and_may_be_on_a_spot_node_and_nothing_else_may() -> None:
    manifests = overlay("gpu")
    found = containers(manifests)
    assert found["guardfleet-worker"]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert found["guardfleet-worker"]["image"].startswith("guardfleet-worker-cuda:")
    assert {key for key, pod in pods(manifests).items() if "tolerations" in pod} == {"guardfleet-worker"}
    on_cpus = containers(overlay("cpu"))["guardfleet-worker"]
    assert on_cpus["image"].startswith("guardfleet-worker-cpu:")
    assert "nvidia.com/gpu" not in on_cpus["resources"]["limits"]
    assert variables(on_cpus)["GUARDFLEET_ENGINE__MODEL"]["value"] == "demo"


@pytest.mark.parametrize("source", ["prometheus", "postgresql"])
def test_keda_scales_workers_by_the_number_wanted_and_takes_silence_for_no_answer(source: str) -> None:
    manifests = overlay(f"keda/{source}")
    spec = named(manifests, "ScaledObject", "guardfleet-worker")["spec"]
    assert "replicas" not in named(manifests, "Deployment", spec["scaleTargetRef"]["name"])["spec"]
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert spec["fallback"]["replicas"] >= 1
    assert spec["cooldownPeriod"] == 600
    assert spec["minReplicaCount"] == 0
    (trigger,) = spec["triggers"]  # one: when one of two fails, the fallback replaces what the other says
    assert trigger["type"] == source
    if source == "prometheus":
        assert trigger["metadata"]["query"] == 'max(guardfleet_workers_wanted{route="any"})'
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        assert trigger["metadata"]["threshold"] == "1"
    else:
        assert trigger["metadata"]["query"] == "select wanted from guardfleet_workers_wanted where route = 'any'"
        assert trigger["metadata"]["targetQueryValue"] == "1"
        authentication = named(manifests, "TriggerAuthentication", trigger["authenticationRef"]["name"])
        assert authentication["spec"]["secretTargetRef"] == [
            {"parameter": "connection", "name": "guardfleet-keda", "key": "connection"}
        ]


def test_the_operator_scrapes_every_process_by_the_port_it_names() -> None:
    manifests = overlay("monitoring")
    monitor = named(manifests, "PodMonitor", "guardfleet")["spec"]
    assert selected(manifests, monitor["selector"]) == set(COMMANDS)  # the migration has no such port
    assert [endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]] == ["metrics"]
    assert named(manifests, "PrometheusRule", "guardfleet")["spec"].keys() == {"groups"}
