"""A real Prometheus scrapes a real fleet: all that rules and boards ask is answered, and an alert reaches a real receiver."""

import json
import pathlib
from collections.abc import Iterator

import pytest
import yaml

from guardfleet.client.direct import DirectClient
from guardfleet.settings import Settings
from tests.services.fixtures import with_broker
from tests.services.fleet import Process, until
from tests.services.outcome import finished
from tests.services.prometheus import SHIPPED, OwnAlertmanager, OwnPrometheus
from tests.services.receiver import Receiver, receiver
from tests.services.servers import free_port

__all__ = ["receiver"]
BOARDS = SHIPPED.parent / "grafana" / "boards.yml"
PROCESSES = {"dispatcher": ("dispatcher",), "worker": ("worker",), "webhooks": ("worker", "--webhooks"), "api": ("api",)}
NO_NODE_EXPORTER = {"GuardfleetDiskUnknown"}


@pytest.fixture
def prometheus(tmp_path: pathlib.Path) -> Iterator[OwnPrometheus]:
    (tmp_path / "prometheus").mkdir()
    made = OwnPrometheus(tmp_path / "prometheus")
    yield made
    made.stop()


@pytest.fixture
def alertmanager(tmp_path: pathlib.Path) -> Iterator[OwnAlertmanager]:
    (tmp_path / "alertmanager").mkdir()
    made = OwnAlertmanager(tmp_path / "alertmanager")
    yield made
    made.stop()


@with_broker("rabbitmq")
def test_rules_and_boards_are_answered_and_an_alert_is_delivered(
    settings: Settings,
    tmp_path: pathlib.Path,
    prometheus: OwnPrometheus,
    alertmanager: OwnAlertmanager,
    receiver: Receiver,
) -> None:
    producer = DirectClient.connect(settings.but(shard_texts=50))
    ports = {name: free_port() for name in PROCESSES}
    running = {
        name: Process(settings.but(metrics_port=ports[name], api_port=free_port()), *args, log=tmp_path / f"{name}.log")
        for name, args in PROCESSES.items()
    }
    targets = {f"127.0.0.1:{port}" for port in ports.values()}
    try:
        prometheus.start(targets, every="1s", alertmanager=f"127.0.0.1:{alertmanager.port}", is_patient=False)
        until(lambda: prometheus.answering() == targets, what="a scrape of each process")
        finished(producer, producer.submit([f"text {i}{' [[unsafe]]' if i % 5 == 0 else ''}" for i in range(200)]).job)
        until(lambda: prometheus.value("sum(qwen_guard_request_total)") == 200, what="200 texts scraped")
        assert prometheus.value('sum(qwen_guard_request_total{result="unsafe"})') == 40
        until(lambda: prometheus.value("sum(guardfleet_dispatcher_leading)") == 1, what="a leader")
        refused = {expr: said for expr in asked() if (said := refusal(prometheus, expr))}
        assert refused == {}
        wrong = [
            rule
            for group in prometheus.get("/api/v1/rules")["data"]["groups"]
            for rule in group["rules"]
            if rule["health"] == "err"
        ]
        assert wrong == []

        until(lambda: prometheus.firing() <= NO_NODE_EXPORTER, what=f"a fleet without alerts ({prometheus.firing()})")
        alertmanager.start(receiver.url)
        running["dispatcher"].stop()  # the whole way: its metric is gone, a rule fires, Alertmanager sends
        until(lambda: "GuardfleetNoLeader" in told(receiver), what="the alert at the receiver")
        alert = told(receiver)["GuardfleetNoLeader"]
        assert alert["status"] == "firing"
        assert alert["labels"]["severity"] == "page"
        assert alert["annotations"]["summary"] == "No dispatcher leads"
        assert alert["annotations"]["runbook_url"].endswith("docs/operations.md#guardfleetnoleader")
    finally:
        for process in running.values():
            process.stop()
        producer.db.close()


def asked() -> Iterator[str]:
    """All that rules and boards ask."""
    for group in yaml.safe_load((SHIPPED / "rules.yml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])
    for panels in yaml.safe_load(BOARDS.read_text()).values():
        yield from (expr.replace("$price_per_hour", "2.5") for panel in panels for expr in panel["queries"].values())


def refusal(prometheus: OwnPrometheus, expr: str) -> str | None:
    """Why Prometheus cannot evaluate it over the series that are there, if it cannot."""
    try:
        prometheus.ask(expr)
    except OSError as error:
        return str(error)
    return None


def told(receiver: Receiver) -> dict[str, dict[str, dict[str, str]]]:
    """The alerts that arrived, by name."""
    messages = [json.loads(body) for _, body in receiver.got]
    return {alert["labels"]["alertname"]: alert for message in messages for alert in message["alerts"]}
