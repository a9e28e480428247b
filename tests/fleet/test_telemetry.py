"""What the processes export: metrics by their documented names, probes, and the interactive lane."""

import pathlib
import urllib.request
from collections.abc import Sequence

from guardfleet.client.direct import DirectClient
from guardfleet.domain.options import JobOptions
from guardfleet.domain.states import ShardState
from guardfleet.settings import Settings
from guardfleet.store.shards import leases
from tests.services.fixtures import fleet_settings
from tests.services.fleet import Process, until
from tests.services.outcome import assert_exactly_once, finished
from tests.services.patience import patience
from tests.services.servers import free_port

WORKER_METRICS = (
    'qwen_guard_request_total{method="prompt",result="safe"} 2.0',
    'qwen_guard_request_total{method="prompt",result="unsafe"} 1.0',
    'qwen_guard_request_duration_seconds_count{method="prompt"} 3.0',
    "qwen_guard_active_requests 0.0",
    "qwen_guard_safe_ratio 0.6666",
    'qwen_guard_risk_type_distribution{type="Violent"} 1.0',
    'guardfleet_texts_by_category_total{category="Violent"} 1.0',
    'guardfleet_claims_total{lane="interactive"} 1.0',
    'guardfleet_model_info{is_demo="true",',
    'guardfleet_dependency_up{dependency="broker"} 1.0',
    'guardfleet_dependency_up{dependency="database"} 1.0',
    "guardfleet_health 2.0",
    "guardfleet_batch_tokens_count 1.0",
    'guardfleet_shards_total{outcome="finished"} 1.0',
)
DISPATCHER_METRICS = (
    "guardfleet_dispatcher_leading 1.0",
    'guardfleet_doorbells_total{kind="rung",queue="interactive"} 1.0',
    'guardfleet_workers{model="instant",state="ready"} 1.0',
    'guardfleet_workers_wanted{route="any"} 0.0',
    "guardfleet_routes_without_worker 0.0",
    "guardfleet_deliveries_due 0.0",
)


def page(port: int, path: str = "metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
        text: str = answer.read().decode()
    return text


def missing_from(port: int, names: Sequence[str]) -> list[str]:
    shown = page(port)
    return [name for name in names if name not in shown]


def test_metrics_have_their_promised_names_on_a_port_of_their_own(
    database_url: str, redis_broker: str, tmp_path: pathlib.Path
) -> None:
    ports = free_port(), free_port()
    settings = fleet_settings(database_url, redis_broker, tmp_path)
    at = lambda port: settings.but(metrics_port=port)  # noqa: E731
    producer = DirectClient.connect(settings)
    worker = Process(at(ports[0]), "worker", log=tmp_path / "worker.log")
    dispatcher = Process(at(ports[1]), "dispatcher", log=tmp_path / "dispatcher.log")
    try:
        worker.until_says("worker_ready")
        job = finished(producer, producer.submit(["a", "b", "c [[unsafe]]"], JobOptions(interactive=True)).job)
        assert_exactly_once(producer, job)
        until(lambda: not missing_from(ports[0], WORKER_METRICS), what=f"{missing_from(ports[0], WORKER_METRICS)}")
        until(lambda: not missing_from(ports[1], DISPATCHER_METRICS), what=f"{missing_from(ports[1], DISPATCHER_METRICS)}")
        for port in ports:
            assert (page(port, "livez"), page(port, "readyz")) == ("ok\n", "ok\n")
            assert "c [[unsafe]]" not in page(port)
    finally:
        worker.stop()
        dispatcher.stop()
        producer.db.close()


def test_an_interactive_job_does_not_wait_for_a_slot_that_bulk_shards_hold(settings: Settings, tmp_path: pathlib.Path) -> None:
    slow = settings.but(instant_ms_per_batch=300.0, lease_s=30.0)
    producer = DirectClient.connect(slow.but(shard_texts=100))
    bulk = producer.submit([f"{'word ' * 40_000}{i}" for i in range(1600)]).job  # one text a batch: half a minute a shard
    worker = Process(slow, "worker", log=tmp_path / "worker.log")
    dispatcher = Process(slow, "dispatcher", log=tmp_path / "dispatcher.log")
    try:
        until(
            lambda: leases.states(producer.db, bulk.id).get(ShardState.LEASED) == slow.worker.concurrency, what="every slot taken"
        )
        for _ in range(3):
            urgent = finished(producer, producer.submit(["now"], JobOptions(interactive=True)).job, timeout_s=patience(10))
            assert urgent.done == 1
        assert producer.status(bulk.label).done == 0
        worker.process.terminate()
        assert worker.wait() == 0
    finally:
        worker.stop()
        dispatcher.stop()
        producer.db.close()
